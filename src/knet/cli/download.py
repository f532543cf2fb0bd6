"""knet download: published weights into the user's cache folder."""

import argparse
from typing import Any

from knet.cli.options import add_verb


def add_parser(verbs: Any) -> None:
    """Adds the verb to the command line."""
    summary = "fetch the published weights of models, once, for machines that will be offline"
    parser = add_verb(verbs, "download", summary, "knet download knet-r50-coco-panoptic 'knet-upernet-*'")
    what = "models, also with * and ?; an address: https://... or hf:owner/repository[/file]"
    parser.add_argument("names", nargs="+", metavar="NAME", help=what)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fetches what is not here yet, and prints where each file is."""
    from knet.errors import ConfigError
    from knet.inference.load import bundled_file
    from knet.models.zoo import models
    from knet.weights.fetch import is_address, local, released_file
    from knet.weights.released import RELEASED

    for name in args.names:
        if is_address(name):
            print(f"{name}: {local(name)}")
            continue
        found = [name] if "*" not in name and "?" not in name else [each for each in models(name) if each in RELEASED]
        if not found:
            raise ConfigError(f"No model with published weights matches '{name}'; `knet models` lists all.")
        for model in found:
            print(f"{model}: {bundled_file(model) or released_file(model)}")
    return 0
