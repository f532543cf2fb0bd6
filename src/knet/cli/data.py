"""knet data: making and reading data sets."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from knet.cli.options import add_verb


def add_parser(verbs: Any) -> None:
    """Adds the verb and its own verbs to the command line."""
    parser = add_verb(verbs, "data", "make data sets for training", "knet data from-labels --help")
    jobs = parser.add_subparsers(title="jobs", metavar="JOB", required=True)
    labels = add_verb(
        jobs,
        "from-labels",
        "turn label PNGs into a COCO panoptic data set; objects are connected components, not annotated instances",
        "knet data from-labels --images img/train --labels lab/train --classes camvid --output data/train",
    )
    labels.add_argument("--images", required=True, metavar="DIR", help="folder of images")
    labels.add_argument("--labels", required=True, metavar="DIR", help="folder of label PNGs with the same names")
    labels.add_argument("--classes", required=True, metavar="TABLE", help="camvid, cityscapes, mapillary, or a file")
    labels.add_argument("--output", required=True, metavar="DIR", help="gets panoptic.json and panoptic/*.png")
    labels.add_argument(
        "--minimum-area", type=int, default=20, metavar="PIXELS", help="smaller components become void (default: 20)"
    )
    labels.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    labels.add_argument("--json", action="store_true", help="print the summary as JSON")
    labels.set_defaults(run=run_from_labels)


def run_from_labels(args: argparse.Namespace) -> int:
    """Converts and prints how many segments each class got."""
    from knet.data.from_labels import labels_to_panoptic

    made = labels_to_panoptic(
        args.images,
        args.labels,
        args.output,
        args.classes,
        minimum_area=args.minimum_area,
        overwrite=args.overwrite,
    )
    if args.json:
        print(json.dumps(asdict(made), indent=1, default=str))
        return 0
    for name, count in made.segments.items():
        dropped = f"  ({made.dropped[name]} dropped as too small)" if made.dropped.get(name) else ""
        print(f"{name:<20} {count:>7} segments{dropped}")
    print(f"{made.images} images, {made.json} and {made.masks}/ written")
    print(f"note: {made.note}")
    return 0
