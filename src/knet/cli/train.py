"""knet train: a config in, a run folder out."""

import argparse
from pathlib import Path
from typing import Any

from knet.cli.options import add_verb, is_first
from knet.errors import ConfigError
from knet.files import keeping


def add_parser(verbs: Any) -> None:
    """Adds the verb to the command line."""
    parser = add_verb(
        verbs,
        "train",
        "train a model",
        "knet train rtknet-cityscapes data.root=/data/cityscapes batch=8 output=runs/city\n"
        "  knet train data/mine     # what knet data import made: the options are chosen, with their reasons\n"
        "  knet train --resume runs/city\n"
        "  torchrun --nproc-per-node 4 -m knet.cli.main train rtknet-cityscapes data.root=/data/cityscapes\n"
        "  knet train rtknet-cityscapes --print > my.yaml",
    )
    config = (
        "YAML file of options, the name of a published run (see configs/ and docs/training.md), or the folder of a "
        "data set that `knet data import` made"
    )
    parser.add_argument("config", metavar="CONFIG", nargs="?", help=config)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="options that replace those of the config")
    parser.add_argument("--resume", metavar="DIR", help="continue the run in this folder from its last saved iteration")
    parser.add_argument("--print", action="store_true", help="print all options as they would be used, and stop")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trains a model, and prints where the results are."""
    import yaml

    from knet.config import dump_config, load_config

    source, overrides = args.config, list(args.overrides)
    if args.resume is not None:
        if source is not None and "=" in source:
            source, overrides = None, [source, *overrides]
        source = source or Path(args.resume) / "config.yaml"
        overrides.append(f"output={args.resume}")
    if source is None:
        raise ConfigError(
            "Give a config (a YAML file or the name of a published run), the folder of a data set, or --resume with a "
            "run folder."
        )
    config = _chosen(source, overrides, args.print) if Path(source).is_dir() else load_config(source, overrides)
    if args.print:
        print(yaml.safe_dump(dump_config(config), sort_keys=False), end="")
        return 0
    from knet.runs.train import train

    with keeping([source if args.resume is None else None]):
        folder = train(config, resume=args.resume is not None)
    if is_first():
        weights = folder / ("last.safetensors" if config.data.val is None else "best.safetensors")
        print(f"run folder: {folder}; use its weights with: knet predict {weights} IMAGE")
    return 0


def _chosen(root: str, overrides: list[str], quiet: bool) -> Any:
    """The options for a data set, with those of the user; says why unless the options are all that is asked for."""
    from knet.config import load_config, read_overrides
    from knet.runs.choose import choose

    choice = choose(root, read_overrides(overrides))
    config = load_config(choice.config, overrides)
    given = tuple(f"{override.partition('=')[0]}=" for override in overrides)
    lines = [line for line in choice.reasons if not line.startswith(given)]
    if is_first() and not quiet:
        print("\n".join(lines), flush=True)
    return config
