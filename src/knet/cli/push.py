"""knet push: a model as a folder, here or on Hugging Face, with a page that says what it is."""

import argparse
from typing import Any

from knet.cli.options import add_verb, add_weights
from knet.errors import counted


def add_parser(verbs: Any) -> None:
    """Adds the verb to the command line."""
    parser = add_verb(
        verbs,
        "push",
        "write a model folder: the weights, and a page with figures, classes, preprocessing and licence",
        "knet push runs/yard/best.safetensors shared/yard --licence 'CC BY 4.0'\n"
        "  knet push runs/yard/best.safetensors hf:me/yard",
    )
    parser.add_argument("model", metavar="MODEL", help="a name from `knet models`, or a .safetensors file of knet")
    target = "a folder, or hf:owner/repository on Hugging Face; `knet predict` takes either as MODEL"
    parser.add_argument("target", metavar="FOLDER|hf:OWNER/REPOSITORY", help=target)
    add_weights(parser)
    licence = "licence of the weights, in words (default: what is known of those by name, else not stated)"
    parser.add_argument("--licence", metavar="TEXT", help=licence)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes or uploads the folder, and prints how it is used."""
    from knet.inference.push import push

    card, place = push(args.model, args.target, args.weights, args.licence)
    print(f"wrote {place}: {card.model}, {counted(len(card.categories), 'class')}")
    print(f"use it with: knet predict {place} IMAGE")
    return 0
