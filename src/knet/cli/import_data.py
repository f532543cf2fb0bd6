"""knet data import: what an annotation tool exported, as a data set to train on."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from knet.cli.options import add_json, add_verb
from knet.cli.reports import report_text
from knet.errors import counted

_FORMS = ("yolo", "supervisely", "cvat-masks", "label-studio-brush", "coco", "labelme", "color-masks")


def add_parser(jobs: Any) -> None:
    """Adds the verb to those of `knet data`."""
    parser = add_verb(
        jobs,
        "import",
        "make a data set to train on of what an annotation tool exported, whose format is found by itself",
        "knet data import my-export --output data/mine\n"
        "  knet data import roboflow --output data/mine --val 0.1 --stuff road,sky",
    )
    parser.add_argument("path", metavar="PATH", help="the unpacked export: a folder, or its data.yaml or JSON")
    parser.add_argument("--output", required=True, metavar="DIR", help="the data set to make, for `knet train DIR`")
    val = "share of the images to validate on (default: the export's own split, else 0.2)"
    parser.add_argument("--val", type=float, metavar="SHARE", help=val)
    parser.add_argument("--seed", type=int, default=0, help="of the choice of these (default: 0)")
    stuff = "classes that cannot be counted, such as road,sky (default: what the export says)"
    parser.add_argument("--stuff", metavar="LIST", help=stuff)
    things = "classes that can be counted, such as car,person; of masks without objects, each region is one"
    parser.add_argument("--things", metavar="LIST", help=things)
    overlap = "with stuff, who is on top where objects overlap: the smaller one (default), or the later one in the file"
    parser.add_argument("--overlap", choices=["area", "order"], default="area", help=overlap)
    parser.add_argument("--form", choices=_FORMS, help="what the export is, where it could be several things")
    parser.add_argument("--overwrite", action="store_true", help="replace a data set that an import made")
    add_json(parser, "the summary")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Imports, and prints what came out and what a check of it finds; the status is 2 if it cannot be used."""
    from knet.data.make.from_export import import_export

    stuff, things = (_names(text) for text in (args.stuff, args.things))
    options = {"val": args.val, "seed": args.seed, "stuff": stuff, "things": things, "overlap": args.overlap}
    made = import_export(args.path, args.output, **options, form=args.form, overwrite=args.overwrite)
    errors = any(report.errors for report in made.reports)
    if args.json:
        plain = {**asdict(made), "reports": [report.to_dict() for report in made.reports]}
        print(json.dumps(plain, indent=1, default=str))
        return 2 if errors else 0
    counts = ", ".join(f"{count} {split}" for split, count in made.images.items())
    print(f"{made.form}: {counted(sum(made.images.values()), 'image')} ({counts}), written as COCO {made.kind}")
    for line in made.remarks:
        print(line)
    for report in made.reports:
        print(f"\n{report_text(report)}")
    print(f"\ntrain on it with: knet train {Path(args.output)}")
    return 2 if errors else 0


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]
