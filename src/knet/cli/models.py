"""knet models: the models that the package knows.

They are read from a table that benchmarks/model_table.py makes, since counting 36 networks takes most of a minute and
needs torch.
"""

import argparse
import fnmatch
import json
from importlib import resources
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
    table = resources.files("knet") / "assets" / "models.json"
    rows = [row for row in json.loads(table.read_text("utf-8")) if fnmatch.fnmatch(row["name"], args.pattern)]
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    if not rows:
        print(f"No model matches '{args.pattern}'; `knet models` lists all.")
        return 2
    print(f"{'model':<29} {'task':<9} {'parameters':>10} {'GFLOPs at':>10} {'':<9}  {'weights':<13} published")
    for row in rows:
        figures = ", ".join(f"{key} {value}" for key, value in row["published"].items())
        numbers = f"{row['parameters'] / 1e6:>8.1f} M {row['gflops']:>10.1f} {row['size'][0]:>4}x{row['size'][1]:<4}"
        print(f"{row['name']:<29} {row['task']:<9} {numbers}  {row['weights']:<13} {figures}".rstrip())
    return 0
