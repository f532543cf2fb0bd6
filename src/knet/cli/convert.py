"""knet convert: official checkpoints to files that carry everything needed to use them."""

import argparse
from inspect import signature
from pathlib import Path
from typing import Any

from knet.cli.options import add_verb
from knet.errors import ConfigError, counted


def add_parser(verbs: Any) -> None:
    """Adds the verb to the command line."""
    parser = add_verb(
        verbs,
        "convert",
        "turn a checkpoint into a .safetensors file that knows its model, classes and preprocessing",
        "knet convert rtknet_cityscapes.pth rtknet.safetensors --model rtknet-cityscapes\n"
        "  knet convert upernet_r50.pth upernet.safetensors --model knet-upernet-r50-ade20k channels=256\n"
        "  knet convert yard.pth yard.safetensors --model knet-r50-coco-panoptic --classes yard/classes.json",
    )
    parser.add_argument("source", metavar="IN", help="official checkpoint (.pth) or weights of knet (.safetensors)")
    parser.add_argument("target", metavar="OUT", help="the .safetensors file to write")
    overrides = "arguments of the network that differ from the model's"
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=overrides)
    parser.add_argument("--model", required=True, help="the model that the checkpoint belongs to; see `knet models`")
    classes = "class table of weights that were trained on other data: a JSON or YAML file, classes in their order"
    parser.add_argument("--classes", metavar="FILE", help=classes)
    parser.add_argument("--half", action="store_true", help="store matrices in float16, which halves the size")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Converts the file, and prints what was written."""
    from knet.config import read_overrides
    from knet.inference.load import convert

    overrides = read_overrides(args.overrides)
    for name in overrides.keys() & signature(convert).parameters.keys():
        raise ConfigError(f"'{name}' is no argument of a network; give the options of `knet convert --help`.")
    card = convert(args.source, args.target, args.model, args.half, args.classes, **overrides)
    size = Path(args.target).stat().st_size / 1e6
    print(f"wrote {args.target} ({size:.1f} MB): {card.model}, {counted(len(card.categories), 'class')}")
    print(f"use it with: knet predict {args.target} IMAGE")
    return 0
