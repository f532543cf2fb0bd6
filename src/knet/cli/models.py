"""knet models: the models that the package knows."""

import argparse
import json
from typing import Any

from knet.cli.options import add_verb


def add_parser(verbs: Any) -> None:
    """Adds the verb to the command line."""
    summary = "list the models with their parameters, GFLOPs and published figures"
    parser = add_verb(verbs, "models", summary, "knet models '*cityscapes*'")
    parser.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="names to list, with * and ?")
    parser.add_argument("--json", action="store_true", help="print JSON, with more about each model")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints a line for each model: name, task, parameters, GFLOPs, where its weights come from, published figures."""
    from knet.models.zoo import models

    names = models(args.pattern)
    if args.json:
        print(json.dumps([_row(name) for name in names], indent=1))
        return 0
    if not names:
        print(f"No model matches '{args.pattern}'; `knet models` lists all.")
        return 2
    print(f"{'model':<29} {'task':<9} {'parameters':>10} {'GFLOPs at':>10} {'':<9}  {'weights':<13} published")
    for name in names:
        row = _row(name)
        figures = ", ".join(f"{key} {value}" for key, value in row["published"].items())
        numbers = f"{row['parameters'] / 1e6:>8.1f} M {row['gflops']:>10.1f} {row['size'][0]:>4}x{row['size'][1]:<4}"
        # A line at a time, since counting all of them takes some seconds.
        print(f"{name:<29} {row['task']:<9} {numbers}  {row['weights']:<13} {figures}".rstrip(), flush=True)
    return 0


def _row(name: str) -> dict[str, Any]:
    from knet.inference.cost import cost
    from knet.models.zoo import entry

    row, counted = entry(name), cost(name)
    return {
        "name": name,
        "task": row.task,
        "categories": row.categories,
        "weights": "bundled" if row.bundled else "official .pth" if row.official else "your own",
        "published": row.published,
        "parameters": counted.parameters,
        "gflops": counted.flops / 1e9,
        "size": list(counted.size),
        "about": row.about,
    }
