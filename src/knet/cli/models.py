"""knet models: what there is."""

from __future__ import annotations

import argparse
import json
from typing import Any

from knet.cli.options import add_verb


def add_parser(verbs: Any) -> None:
    """Adds the verb to the command line."""
    parser = add_verb(verbs, "models", "list the models", "knet models '*cityscapes*'")
    parser.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="names to show, with * and ?")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints a line a model: name, parameters, weights, what it is for."""
    from knet.models.zoo import ZOO, models

    rows = []
    for name in models(args.pattern):
        entry = ZOO[name]
        figures = ", ".join(f"{key} {value}" for key, value in entry.published.items())
        weights = "bundled" if entry.bundled else "official .pth" if entry.published else "train your own"
        rows.append({"name": name, "weights": weights, "published": figures, "about": entry.about})
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        published = f" ({row['published']})" if row["published"] else ""
        print(f"{row['name']:<24} {row['weights']:<15} {row['about']}{published}")
    if not rows:
        print(f"No model matches '{args.pattern}'; `knet models` lists all.")
    return 0 if rows else 2
