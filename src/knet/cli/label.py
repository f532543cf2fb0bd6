"""knet data label: images labelled by models, void where they disagree or are unsure."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from knet.cli.options import add_device, add_json, add_precision, add_size, add_verb
from knet.errors import ConfigError, counted
from knet.files import keeping

if TYPE_CHECKING:
    from knet.inference.segmenter import Segmenter
    from knet.runs.label import Labels


def add_parser(jobs: Any) -> None:
    """Adds the verb to those of `knet data`."""
    parser = add_verb(
        jobs,
        "label",
        "label images by one or several models: a COCO panoptic data set, void where they disagree or are unsure",
        "knet data label swinl.safetensors frames --classes classes.json --map map.yaml --output labels\n"
        "  knet data label swinl.safetensors other.safetensors frames --scales 0.75,1,1.25 --output labels",
    )
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="+",
        help="names from `knet models` or .safetensors files; objects are those of the first panoptic one",
    )
    parser.add_argument("images", metavar="IMAGES", help="folder of images, subfolders included")
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="where panoptic.json, panoptic/*.png and the rest go"
    )
    weights = "official checkpoint or weights of knet: once for each model, in their order"
    parser.add_argument("--weights", action="append", metavar="FILE", help=weights)
    parser.add_argument(
        "--classes",
        metavar="TABLE",
        help="classes of the labels: the name of a class table, or a JSON or YAML file (default: the first model's)",
    )
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="NAME=NAME|FILE",
        help="a model's class and its name in the table, or void; or a JSON or YAML file of such; may be repeated",
    )
    _add_thresholds(parser)
    add_size(parser)
    add_device(parser)
    add_precision(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    add_json(parser, "the summary")
    parser.set_defaults(run=run)


def _add_thresholds(parser: argparse.ArgumentParser) -> None:
    scales = "average over these multiples of the size, such as 0.75,1,1.25 (default: 1)"
    parser.add_argument("--scales", type=_scales, metavar="LIST", help=scales)
    flip = "average over each image and its mirror image (default: yes)"
    parser.add_argument("--flip", action=argparse.BooleanOptionalAction, help=flip)
    agree = "share of the models that must name a pixel's class, above 0.5 (default: 1, all of them)"
    parser.add_argument("--agree", type=float, metavar="S", help=agree)
    score = "make pixels void of whose class these models are less sure in the mean, 0..1 (default: 0.4)"
    parser.add_argument("--score", type=float, metavar="S", help=score)
    area = "make pieces of fewer pixels void (default: 20)"
    parser.add_argument("--minimum-area", type=int, metavar="N", help=area)


def run(args: argparse.Namespace) -> int:
    """Labels all images and prints what is in them. The status is 2 if one failed; the others are done."""
    from knet.data.categories import load_categories
    from knet.data.make.same_classes import read_renames
    from knet.runs.label import Labeller, LabelSettings, label_images

    names = ("scales", "flip", "agree", "score", "minimum_area")
    settings = LabelSettings(**{name: getattr(args, name) for name in names if getattr(args, name) is not None})
    categories = None if args.classes is None else load_categories(args.classes)
    labeller = Labeller(_load(args), categories, read_renames(args.map), settings)
    if labeller.unreachable:
        names_ = ", ".join(labeller.unreachable)
        print(f"note: never in the labels, because too few models know them: {names_}", file=sys.stderr)
    with keeping([args.classes, *args.models, *(args.weights or [])]):
        made = label_images(labeller, args.images, args.output, args.overwrite)
    for sentence in made.failed:
        print(f"knet: {sentence}", file=sys.stderr)
    print(json.dumps(asdict(made), indent=1, default=str) if args.json else _summary(made))
    return 2 if made.failed else 0


def _load(args: argparse.Namespace) -> list[Segmenter]:
    from knet.inference.load import load

    weights = args.weights or [None] * len(args.models)
    if len(weights) != len(args.models):
        raise ConfigError(f"There are {len(args.models)} models but {len(weights)} --weights; give one for each model.")
    options = {"device": args.device, "precision": args.precision, "size": args.size}
    return [load(model, file, **options) for model, file in zip(args.models, weights, strict=True)]


def _summary(made: Labels) -> str:
    rows = [f"{name:<20} {count:>7} segment{'s' * (count != 1)}" for name, count in made.segments.items() if count]
    failed = f"; {len(made.failed)} failed" if made.failed else ""
    end = (
        f"{counted(made.images, 'image')}, {made.void_share:.1%} void, {made.json}, {made.masks}/, {made.objects} and "
    )
    return "\n".join([*rows, f"{end}{made.classes} written{failed}"])


def _scales(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of numbers such as 0.75,1,1.25") from None
