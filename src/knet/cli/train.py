"""knet train: a config in, a run folder out."""

from __future__ import annotations

import argparse
from typing import Any

from knet.cli.options import add_verb


def add_parser(verbs: Any) -> None:
    """Adds the verb to the command line."""
    parser = add_verb(
        verbs,
        "train",
        "train a model",
        "knet train configs/rtknet-slim-camvid.yaml data.root=/data/camvid batch=4 output=runs/camvid",
    )
    parser.add_argument("config", metavar="CONFIG", help="YAML file of options; see configs/ and docs/training.md")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="options that replace those of the file")
    parser.add_argument(
        "--resume", metavar="DIR", help="go on with the run in this folder from its last saved iteration"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trains, and prints where the results are."""
    from knet.config import load_config
    from knet.training.loop import train

    overrides = args.overrides + ([f"output={args.resume}"] if args.resume else [])
    config = load_config(args.config, overrides)
    folder = train(config, resume=args.resume is not None)
    print(f"run folder: {folder}; use its weights with: knet predict {folder / 'best.safetensors'} IMAGE")
    return 0
