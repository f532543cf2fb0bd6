"""knet data from-coco: a COCO panoptic data set out of COCO instances."""

import argparse
import json
from dataclasses import asdict
from typing import Any

from knet.cli.options import add_json, add_verb
from knet.errors import counted


def add_parser(jobs: Any) -> None:
    """Adds the verb to those of `knet data`."""
    parser = add_verb(
        jobs,
        "from-coco",
        "turn COCO instances (polygons or RLE) into a COCO panoptic data set, in which every pixel has one owner",
        "knet data from-coco --images img/train --instances instances_train.json --output data/train\n"
        "  knet data from-coco --images img --instances all.json --stuff road,sky --overlap order --output data",
    )
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of images, which stay in place")
    parser.add_argument("--instances", required=True, metavar="FILE", help="JSON in the COCO instances format")
    parser.add_argument("--output", required=True, metavar="DIR", help="where panoptic.json and panoptic/*.png go")
    parser.add_argument(
        "--overlap",
        choices=["area", "order"],
        default="area",
        help="who is on top where objects overlap: the smaller one (default), or the later one in the file",
    )
    parser.add_argument(
        "--stuff", metavar="LIST", help="classes that are stuff, such as road,sky (default: those with isthing 0)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    add_json(parser, "the summary")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Converts, and prints how many segments each class got and what was left out."""
    from knet.data.make.from_coco import coco_to_panoptic

    stuff = [name.strip() for name in (args.stuff or "").split(",") if name.strip()]
    options = {"overlap": args.overlap, "stuff": stuff, "overwrite": args.overwrite}
    made = coco_to_panoptic(args.images, args.instances, args.output, **options)
    if args.json:
        print(json.dumps(asdict(made), indent=1, default=str))
        return 0
    for name, count in made.segments.items():
        crowds = f"  ({made.crowds[name]} are crowd regions)" if name in made.crowds else ""
        print(f"{name:<20} {count:>7} segments{crowds}")
    print(f"{counted(made.images, 'image')}, {made.json} and {made.masks}/ written")
    print(f"{made.rule}: {made.overlapping} pixels, {made.hidden} objects are hidden by others")
    for reason, count in made.left_out.items():
        print(f"left out: {count} objects {reason}")
    print(f"look it through with: knet data check --images {args.images} --panoptic {made.json} --masks {made.masks}")
    return 0
