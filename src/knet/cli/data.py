"""knet data: make, prepare and check data sets; `knet data show` and `knet data label` are in files of their own."""

import argparse
import json
from dataclasses import asdict
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from knet.cli import from_coco, import_data, label, show
from knet.cli.options import add_verb
from knet.cli.reports import report_text
from knet.errors import ConfigError, counted, did_you_mean, shown
from knet.files import is_file

_LAYOUTS = ("cityscapes", "mapillary")
_CLIP_LAYOUTS = ("step", "vipseg", "youtube-vis", "cityscapes-vps")
_KINDS = ("instances", "panoptic")
_KNOWN = (*_LAYOUTS, *_CLIP_LAYOUTS)
_CHECKED = (
    "all of --images, --panoptic and --masks (COCO panoptic), of --images and --instances (COCO instances), of "
    "--images, --labels, --instances and --classes (clips of your own), or of --images and --mots"
)
_TABLE_HINT = (
    "give camvid, cityscapes, mapillary, or a JSON file such as "
    '{"void_id": 255, "categories": [{"id": 1, "name": "floor", "thing": false, "color": [120, 120, 120]}, '
    '{"id": 2, "name": "box", "thing": true, "color": [220, 120, 20]}]}; see docs/custom-data.md.'
)


def add_parser(verbs: Any) -> None:
    """Adds the verb and its own verbs to the command line."""
    parser = add_verb(verbs, "data", "make, prepare and check data sets for training", "knet data prepare --help")
    tables = sorted(table.name.removesuffix(".json") for table in _tables().iterdir() if table.name.endswith(".json"))
    parser.description = f"{parser.description}\n\nclass tables:\n  {', '.join(tables)}"
    jobs = parser.add_subparsers(title="jobs", metavar="JOB", required=True)
    import_data.add_parser(jobs)
    _add_prepare(jobs)
    _add_check(jobs)
    show.add_parser(jobs)
    _add_from_labels(jobs)
    from_coco.add_parser(jobs)
    label.add_parser(jobs)
    _add_synth(jobs)


def _tables() -> Traversable:
    return resources.files("knet") / "data" / "tables"


def _add_prepare(jobs: Any) -> None:
    prepare = add_verb(
        jobs,
        "prepare",
        "make what training reads from the unpacked download of a data set",
        "knet data prepare cityscapes data/cityscapes\n  knet data prepare mapillary data/mapillary_vistas",
    )
    prepare.add_argument("dataset", choices=_LAYOUTS, help="which data set it is")
    prepare.add_argument("root", metavar="ROOT", help="folder that holds gtFine and leftImg8bit, or config.json")
    prepare.add_argument("--splits", metavar="LIST", help="such as train,val (default: all that have labels)")
    prepare.add_argument(
        "--train-ids", action="store_true", help="cityscapes: number categories 0..18 instead of 7..33"
    )
    _add_version(prepare)
    prepare.add_argument("--overwrite", action="store_true", help="replace panoptic files that exist")
    _finish(prepare, run_prepare, "summary")


def _add_check(jobs: Any) -> None:
    check = add_verb(
        jobs,
        "check",
        "read a whole data set, and report what it holds and what is wrong; the exit status is 2 if it cannot be used",
        "knet data check cityscapes data/cityscapes\n"
        "  knet data check data/mine\n"
        "  knet data check --images img --panoptic panoptic.json --masks panoptic\n"
        "  knet data check --images img --instances instances.json --model my.yaml\n"
        "  knet data check --images img/train --labels lab/train --instances ins/train --classes classes.json\n"
        "  knet data check --images training/image_02 --mots instances_txt",
    )
    known = f"{', '.join(_KNOWN)}; or the folder that `knet data import` made, without ROOT"
    check.add_argument("dataset", nargs="?", metavar="DATASET", help=known)
    check.add_argument("root", nargs="?", metavar="ROOT", help="its folder")
    check.add_argument("--splits", metavar="LIST", help="of ROOT, such as train,val (default: all that have labels)")
    _add_version(check)
    for option, metavar, text in (
        ("--images", "DIR", "images of any other data set, whose ground truth the options below give"),
        ("--panoptic", "FILE", "JSON in the COCO panoptic format; needs --masks"),
        ("--masks", "DIR", "the PNGs that belong to it"),
        ("--labels", "DIR", "label PNGs of your own clips; needs --instances and --classes"),
        ("--instances", "PATH", "JSON in the COCO instances format; or the instance PNGs that belong to --labels"),
        ("--mots", "DIR", "a MOTS text for each sequence, as in KITTI MOTS and MOTSChallenge"),
        ("--classes", "TABLE", "class table: camvid, cityscapes, mapillary, or a JSON or YAML file"),
    ):
        check.add_argument(option, metavar=metavar, help=text)
    check.add_argument(
        "--model",
        metavar="MODEL|CONFIG",
        help="also say which images have more segments than this model has kernels (default: 100 kernels)",
    )
    _finish(check, run_check, "report")


def _add_from_labels(jobs: Any) -> None:
    labels = add_verb(
        jobs,
        "from-labels",
        "turn label PNGs, and instance PNGs if there are any, into a COCO panoptic data set",
        "knet data from-labels --images img/train --labels lab/train --instances ins/train --classes classes.json "
        "--output data/train",
    )
    labels.add_argument("--images", required=True, metavar="DIR", help="folder of images")
    labels.add_argument(
        "--labels", required=True, metavar="DIR", help="PNGs of the same names: class numbers, or the table's colours"
    )
    labels.add_argument(
        "--instances",
        metavar="DIR",
        help="PNGs of the same names that number the objects of an image, 0 = not told apart "
        "(default: each connected region of a thing class is an object)",
    )
    labels.add_argument("--classes", metavar="TABLE", help="camvid, cityscapes, mapillary, or a JSON or YAML file")
    labels.add_argument("--output", required=True, metavar="DIR", help="where panoptic.json and panoptic/*.png go")
    labels.add_argument(
        "--minimum-area",
        type=int,
        metavar="N",
        help="make objects of fewer pixels void (default: 20; 0 with --instances)",
    )
    labels.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    _finish(labels, run_from_labels, "summary")


def _add_synth(jobs: Any) -> None:
    synth = add_verb(
        jobs,
        "synth",
        "draw street scenes or clips with their ground truth, laid out like a real data set",
        "knet data synth cityscapes data/synthetic --images 200 --size 512x1024 --seed 1\n"
        "  knet data synth step data/synthetic-step --clips 40 --frames 20 --size 128x256",
    )
    synth.add_argument("layout", choices=(*_LAYOUTS, *_CLIP_LAYOUTS), help="data set to imitate, of images or of clips")
    synth.add_argument("output", metavar="OUT", help="folder to make")
    synth.add_argument(
        "--images", type=int, metavar="N", help="images to train on (default: 100); a quarter as many to validate"
    )
    synth.add_argument(
        "--clips", type=int, metavar="N", help="clips to train on (default: 40); a quarter as many to validate"
    )
    synth.add_argument("--frames", type=int, metavar="N", help="frames in each clip (default: 20)")
    synth.add_argument("--size", type=_size, metavar="HxW", help="in pixels (default: 512x1024; 128x256 for clips)")
    synth.add_argument("--seed", type=int, default=0, help="the same seed gives the same files (default: 0)")
    _finish(synth, run_synth, "summary")


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", choices=["1.2", "2.0"], help="mapillary: which labels (default: 1.2 if there)")


def _finish(parser: argparse.ArgumentParser, run: Any, what: str) -> None:
    parser.add_argument("--json", action="store_true", help=f"print the {what} as JSON")
    parser.set_defaults(run=run)


def run_prepare(args: argparse.Namespace) -> int:
    """Prepares a data set and prints what is there now."""
    from knet.data.files.io import name_some
    from knet.data.make.prepare import prepare_cityscapes, prepare_mapillary

    chosen: dict[str, Any] = {} if args.splits is None else {"splits": _names(args.splits)}
    summary: dict[str, Any]
    if args.dataset == "cityscapes":
        if args.version is not None:
            raise ConfigError("--version is for mapillary; Cityscapes has one version.")
        splits = prepare_cityscapes(args.root, **chosen, train_ids=args.train_ids, overwrite=args.overwrite)
        summary = {"splits": [asdict(split) for split in splits]}
    else:
        if args.train_ids:
            raise ConfigError("--train-ids is for cityscapes; Mapillary's category ids are label index + 1.")
        made = prepare_mapillary(args.root, **chosen, version=args.version, overwrite=args.overwrite)
        splits, summary = made.splits, asdict(made)
    if args.json:
        print(json.dumps(summary, indent=1, default=str))
        return 0
    for split in splits:
        state = "written" if split.made else "kept as it was (--overwrite makes it anew)"
        print(f"{split.name}: {counted(split.images, 'image')}, {split.json} {state}")
        if split.unlabelled:
            print(f"note: {split.name} has images without a label, which stay unused: {name_some(split.unlabelled)}")
    if "table" in summary:
        print(f"class table of version {summary['version']}: {_describe_table(summary['table'])}")
    print(f"look it through with: knet data check {args.dataset} {args.root}")
    return 0


def run_check(args: argparse.Namespace) -> int:
    """Checks a data set and prints the report; the status is 2 if there are errors."""
    from knet.data.check.clips import check_clip_root
    from knet.data.check.images import check_root

    kernels = None
    if args.model is not None:
        from knet.runs.learnable import kernels_of

        kernels = kernels_of(args.model)
    kinds = ("images", "panoptic", "masks", "labels", "instances", "mots")
    given = {kind for kind in kinds if getattr(args, kind) is not None}
    if args.dataset is not None and args.dataset not in _KNOWN and not given and args.classes is None:
        reports = _check_made(args.dataset, args.root, kernels)
    elif args.dataset in _KNOWN and args.root is not None and not given:
        if args.classes is not None:
            raise ConfigError(f"--classes is for --panoptic; the classes of {args.dataset} are known.")
        splits = None if args.splits is None else _names(args.splits)
        if args.dataset in _CLIP_LAYOUTS:
            if args.version is not None:
                raise ConfigError(f"--version is for mapillary; {args.dataset} has one version.")
            reports = check_clip_root(args.dataset, args.root, splits, kernels)
        else:
            reports = check_root(args.dataset, args.root, splits, version=args.version, kernels=kernels)
    elif args.dataset is None and args.root is None and given:
        reports = [_check_files(args, given, kernels)]
    else:
        raise ConfigError(f"Give a data set and its ROOT, or {_CHECKED}.")
    if args.json:
        print(json.dumps([report.to_dict() for report in reports], indent=1))
    else:
        print("\n\n".join(report_text(report) for report in reports))
    return 2 if any(report.errors for report in reports) else 0


def _check_made(folder: str, root: str | None, kernels: Any) -> list[Any]:
    """The reports on the splits of a data set that an import made."""
    from knet.data.make.from_export import SPLITS, check_split

    there = [split for split in SPLITS for kind in _KINDS if is_file(Path(folder) / split / f"{kind}.json")]
    if root is not None or not there:
        hint = did_you_mean(folder, _KNOWN, f"known are {', '.join(_KNOWN)}, each with its ROOT.")
        raise ConfigError(
            f"'{folder}' is no folder that `knet data import` made, and no data set that is known; {hint}"
        )
    return [check_split(Path(folder), split, kernels) for split in there]


def _check_files(args: argparse.Namespace, given: set[str], kernels: Any) -> Any:
    """The report on a data set whose files are named one by one."""
    from knet.data.categories import load_categories
    from knet.data.check.clips import check_clips
    from knet.data.check.images import check_panoptic
    from knet.data.check.instances import check_instances
    from knet.data.readers.clip_folder import ClipFolder
    from knet.data.readers.mots import Mots

    categories = None if args.classes is None else load_categories(args.classes)
    if given == {"images", "panoptic", "masks"}:
        return check_panoptic(args.images, args.panoptic, args.masks, categories, kernels)
    if given == {"images", "instances"}:
        return check_instances(args.images, args.instances, categories, kernels)
    if given == {"images", "mots"}:
        return check_clips(Mots(args.images, args.mots, categories), args.mots, kernels)
    if given == {"images", "labels", "instances"}:
        if args.classes is None:
            raise ConfigError(f"--classes is missing: {_TABLE_HINT}")
        return check_clips(ClipFolder(args.images, args.labels, args.instances, args.classes), args.images, kernels)
    raise ConfigError(f"Give a data set and its ROOT, or {_CHECKED}.")


def run_from_labels(args: argparse.Namespace) -> int:
    """Converts labels and prints how many segments each class got."""
    from knet.data.make.from_labels import labels_to_panoptic

    if args.classes is None:
        raise ConfigError(f"--classes is missing: {_TABLE_HINT}")
    made = labels_to_panoptic(
        args.images,
        args.labels,
        args.output,
        args.classes,
        instances=args.instances,
        minimum_area=args.minimum_area,
        overwrite=args.overwrite,
    )
    if args.json:
        print(json.dumps(asdict(made), indent=1, default=str))
        return 0
    for name, count in made.segments.items():
        parts = []
        if made.crowds.get(name):
            parts.append(f"{made.crowds[name]} are crowd regions")
        if made.dropped.get(name):
            parts.append(f"{made.dropped[name]} dropped as too small")
        print(f"{name:<20} {count:>7} segment{'s' * (count != 1)}" + (f"  ({', '.join(parts)})" if parts else ""))
    print(f"{counted(made.images, 'image')}, {made.json} and {made.masks}/ written")
    print(f"note: {made.note}")
    return 0


def run_synth(args: argparse.Namespace) -> int:
    """Draws scenes or clips and prints what is in them."""
    from knet.data.synthetic.clip_layouts import synthesize_clips
    from knet.data.synthetic.layouts import synthesize

    if args.layout in _CLIP_LAYOUTS:
        if args.images is not None:
            raise ConfigError(f"--images is for {' and '.join(_LAYOUTS)}; give --clips and --frames for {args.layout}.")
        number, frames = (40 if args.clips is None else args.clips), (20 if args.frames is None else args.frames)
        clips = synthesize_clips(args.layout, args.output, number, frames, args.size or (128, 256), args.seed)
        summary, objects, counts, unit = asdict(clips), clips.tracks, clips.clips, f"clips of {clips.frames} frames"
        root, hint = clips.root, ""
    else:
        if args.clips is not None or args.frames is not None:
            raise ConfigError(
                f"--clips and --frames are for {', '.join(_CLIP_LAYOUTS)}; give --images for {args.layout}."
            )
        number = 100 if args.images is None else args.images
        made = synthesize(args.layout, args.output, number, args.size or (512, 1024), args.seed)
        summary, objects, counts, unit = asdict(made), made.objects, made.images, "images"
        root, hint = made.root, f"; next: knet data prepare {args.layout} {made.root}"
    if args.json:
        print(json.dumps(summary, indent=1, default=str))
        return 0
    print(", ".join(f"{name} {count}" for name, count in objects.items()))
    print(f"{root}: {', '.join(f'{count} {split}' for split, count in counts.items())} {unit}{hint}")
    return 0


def _describe_table(path: Any) -> str:
    from knet.data.categories import load_table

    table = load_table(path)
    things = sum(category.thing for category in table.categories)
    pairs = sum(flip != label for label, flip in enumerate(table.flip_labels)) // 2
    swapped = f", {pairs} pairs swapped in a mirror" if pairs else ""
    return f"{path} ({len(table.categories) - things} stuff, {things} things{swapped})"


def _names(text: str) -> list[str]:
    """The parts of a comma-separated list."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ConfigError(f"--splits {shown(text)} names no split; write for example --splits train,val.")
    return names


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    try:
        return int(height), int(width)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size such as 512x1024 (height x width)") from None
