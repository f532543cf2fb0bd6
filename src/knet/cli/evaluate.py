"""knet eval: compares a model, or results on disk, with ground truth."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knet.cli.options import add_model_options, add_verb, is_first, model_options
from knet.errors import ConfigError, shown
from knet.files import exists, is_dir, is_file

if TYPE_CHECKING:
    from knet.evaluation.details import Details

_VIDEO = ("stq", "vpq", "ytvis")
_WHOLE = {"pq": "panoptic.json", "ap": "detections.json", "ytvis": "results.json"}  # of all images in one file


def add_parser(verbs: Any) -> None:
    """Adds the verb to the command line."""
    parser = add_verb(
        verbs,
        "eval",
        "measure PQ, mIoU or mask AP, on videos STQ and VPQ, of a model or of results that any tool wrote",
        "knet eval configs/rtknet-lite-street.yaml --weights runs/camvid/best.safetensors\n"
        "  knet eval rtknet-lite-street data.root=data/camvid data.val.images=images/val "
        "data.val.json=val/panoptic.json data.val.masks=val/panoptic\n"
        "  knet eval video-knet-r50-kitti-step --weights knet_step.pth data.root=kitti_step data.val.format=step "
        "data.val.split=val\n"
        "  knet eval --metric pq --truth gt.json --predictions pred.json\n"
        "  knet eval --metric stq --truth kitti_step/panoptic_maps/val --predictions runs/step/predictions",
    )
    parser.add_argument("target", metavar="CONFIG|MODEL", nargs="?", help="a YAML config, or a model's name or file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="options such as data.val.images=DIR")
    parser.add_argument(
        "--metric",
        choices=["pq", "miou", "ap", *_VIDEO],
        help="evaluate results on disk: panoptic quality, mean IoU, AP of objects (COCO or Cityscapes); for videos "
        "STQ, VPQ, and AP of tracks (YouTube-VIS)",
    )
    parser.add_argument(
        "--truth",
        metavar="PATH",
        help="with --metric: a COCO panoptic JSON (pq), a folder of PNGs (miou), a COCO instances JSON or gtFine/val "
        "(ap), a folder of STEP PNGs, VIPSeg's folder, or the JSON of VIPSeg or Cityscapes-VPS (stq, vpq), that of "
        "YouTube-VIS (ytvis)",
    )
    parser.add_argument(
        "--predictions",
        metavar="PATH",
        help="with --metric: the results, in the truth's format or the official one, or what knet predict wrote",
    )
    for side in ("truth", "prediction"):
        masks = f"with --metric pq: the folder of the {side}'s PNGs (default: beside the JSON, called as it)"
        parser.add_argument(f"--{side}-masks", metavar="DIR", help=masks)
    parser.add_argument(
        "--classes",
        metavar="NAME",
        help="with --metric miou, stq or vpq: a class table, listed by `knet data --help` (default for stq and vpq: "
        "kitti_step, or the data set's own)",
    )
    parser.add_argument(
        "--protocol",
        metavar="NAME",
        help="with --metric miou: mean, mapillary, cityscapes, ade20k (default: that of --classes if it is one of "
        "these, else mean); with stq: official (default), video-knet, vipseg; with vpq: cityscapes-vps, vipseg, "
        "video-knet (default: that of the files' format, for folders video-knet)",
    )
    parser.add_argument(
        "--windows",
        metavar="N,N",
        help="with --metric vpq: lengths of the windows in frames, such as 1,2,4,6 (default: the protocol's)",
    )
    parser.add_argument(
        "--unlinked",
        action="store_true",
        help="video models on clips: segment frame by frame, without link and embeddings, and track by overlap",
    )
    parser.add_argument("--output", metavar="DIR", help="also write the figures there, as JSON and CSV")
    parser.add_argument("--report", metavar="FILE", help="also write a page in HTML there, see docs/reports.md")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Computes the figures, prints them and writes them. The status is 2 if a network said nothing of an image."""
    from knet.evaluation.report import table, write_csv, write_json

    details = _details(args) if args.metric and args.report else None
    parts = _on_disk(args, details) if args.metric else _of_model(args)
    figures = {name: result for name, result in parts.items() if name != "not_finite"}
    status = 2 if len(figures) < len(parts) else 0  # as of other images that cannot be used
    if not is_first():
        return status
    if args.output:
        folder = Path(args.output)
        for name, result in figures.items():
            write_json(result, folder / f"{name}.json")
            write_csv(result, folder / f"{name}.csv")
    if details is not None:
        _write_report(args, figures, details)
    if args.json:
        print(json.dumps(parts, indent=1))
    else:
        print("\n\n".join(table(result) for result in figures.values()))
    if args.report:
        print(f"report: {args.report} ({Path(args.report).stat().st_size / 1e6:.1f} MB)", file=sys.stderr)
    return status


def _details(args: argparse.Namespace) -> Details:
    from knet.evaluation.details import Details
    from knet.runs.report.page import check_report
    from knet.runs.report.pictures import paint_maps

    check_report(args.report)
    return Details(paint_maps)


def _write_report(args: argparse.Namespace, parts: dict[str, Any], details: Details) -> None:
    from knet.runs.report.page import Page, write_report

    about = [("metric", args.metric), ("truth", args.truth), ("predictions", args.predictions)]
    write_report(args.report, Page("Results on disk", parts, {next(iter(parts)): details}, about=about))


def _on_disk(args: argparse.Namespace, details: Details | None) -> dict[str, Any]:
    from knet.evaluation import cityscapes_instance_ap, mask_ap, panoptic_quality
    from knet.evaluation.instance_files import found_objects
    from knet.evaluation.written import refuse_others

    if not args.truth or not args.predictions:
        raise ConfigError("--metric needs --truth and --predictions; see `knet eval --help`.")
    _check_options(args)
    refuse_others(Path(args.predictions), args.metric)
    if args.metric in _WHOLE:  # `knet predict` writes it to the folder of its results
        whole = Path(args.predictions) / _WHOLE[args.metric]
        args.predictions = str(whole) if is_file(whole) else args.predictions
    if args.metric in _VIDEO:
        return _of_videos(args)
    if args.metric == "pq":
        masks = {"truth_masks": args.truth_masks, "prediction_masks": args.prediction_masks}
        return {"panoptic": panoptic_quality(args.truth, args.predictions, **masks, progress=True, details=details)}
    if args.metric == "ap" and is_dir(args.truth):
        return {"instance": cityscapes_instance_ap(args.truth, args.predictions, progress=True)}
    if args.metric == "ap":
        found = found_objects(Path(args.truth), Path(args.predictions))
        return {"instance": mask_ap(args.truth, found, progress=True, details=details)}
    return {"semantic": _of_classes(args, details)}


def _of_classes(args: argparse.Namespace, details: Details | None) -> dict[str, Any]:
    from knet.data.categories import load_table
    from knet.evaluation import mean_iou, semantic

    own = ("cityscapes", "ade20k")  # protocols with classes of their own
    protocol = args.protocol or (args.classes if args.classes in semantic.PROTOCOLS else "mean")
    if protocol not in semantic.PROTOCOLS:
        known = ", ".join(semantic.PROTOCOLS)
        raise ConfigError(f"--protocol {protocol} is none of --metric miou; use {known}.")
    if protocol in own and args.classes not in (None, protocol):
        raise ConfigError(f"--protocol {protocol} has its own classes; leave --classes {args.classes} out.")
    names = ids = None
    if protocol not in own:
        classes = args.classes or (protocol if protocol == "mapillary" else None)
        if classes is None:
            raise ConfigError("--metric miou needs --classes: a class table such as cityscapes or camvid, or a file.")
        table = load_table(classes)
        names = {value: c.name for value, c in zip(table.label_values, table.categories, strict=True)}
        ids = [category.id for category in table.categories]
    options: dict[str, Any] = {"classes": names, "protocol": protocol, "ids": ids, "details": details}
    return mean_iou(args.truth, args.predictions, **options, progress=True)


def _check_options(args: argparse.Namespace) -> None:
    of_metric = {"protocol": ("miou", "stq", "vpq"), "windows": ("vpq",)}
    of_metric |= {"truth_masks": ("pq",), "prediction_masks": ("pq",)}
    for option, metrics in of_metric.items():
        if getattr(args, option) is not None and args.metric not in metrics:
            owner = f"--metric {' or '.join(metrics)}"
            raise ConfigError(f"--{option.replace('_', '-')} belongs to {owner}, not to {args.metric}; leave it out.")
    for option, given in {"official": args.compatible, "unlinked": args.unlinked}.items():
        if given:
            raise ConfigError(f"--{option} is about what a model does, but --metric evaluates files; leave it out.")


def _of_videos(args: argparse.Namespace) -> dict[str, Any]:
    from knet.data.categories import load_categories
    from knet.evaluation import stq, video_stq, video_vpq, vpq, ytvis_ap

    if args.metric == "ytvis":
        if args.classes:
            raise ConfigError("--metric ytvis takes its classes from the truth; leave --classes out.")
        return {"tracks": ytvis_ap(args.truth, args.predictions, progress=True)}
    protocols = video_stq.PROTOCOLS if args.metric == "stq" else tuple(video_vpq.PROTOCOLS)
    if args.protocol is not None and args.protocol not in protocols:
        raise ConfigError(f"--protocol {args.protocol} is none of --metric {args.metric}; use {', '.join(protocols)}.")
    classes = load_categories(args.classes) if args.classes else None
    found = _tracks_in(Path(args.truth), Path(args.predictions))
    if args.metric == "stq":
        return {"stq": stq(args.truth, found, classes, args.protocol, progress=True)}
    return {"vpq": vpq(args.truth, found, classes, _windows(args.windows), args.protocol, progress=True)}


def _tracks_in(truth: Path, folder: Path) -> Path:
    """Of a folder that `knet predict` wrote the part in the form of the truth, if it is there; else the folder."""
    from knet.data.files.io import read_json

    if is_file(truth):
        content = read_json(truth)
        nested = isinstance(content, dict) and "videos" in content
        parts = [f"{'vipseg' if nested else 'cityscapes_vps'}_json/pred.json"]
    else:
        parts = ["vipseg/panomasks" if is_dir(truth / "panomasks") else "panoptic"]
    return next((folder / part for part in parts if exists(folder / part)), folder)


def _windows(text: str | None) -> list[int] | None:
    parts = [] if text is None else text.split(",")
    if not all(part.strip().isdecimal() and len(part) < 10 and int(part) > 0 for part in parts):
        raise ConfigError(f"--windows takes numbers of frames from 1 on, such as 1,2,4,6, not {shown(text)}.")
    return [int(part) for part in parts] or None


def _of_model(args: argparse.Namespace) -> dict[str, Any]:
    from knet.config import data_config, is_config, load_config, read_overrides
    from knet.distributed import joined
    from knet.inference.engines.open import exported_form
    from knet.inference.load import choose_device, load
    from knet.runs.evaluate import evaluate
    from knet.weights.fetch import config_of_run

    if args.target is None:
        raise ConfigError(
            "Give a config or a model to evaluate, or --metric for results on disk; see `knet eval --help`."
        )
    options = model_options(args)
    if is_config(args.target):
        config = load_config(args.target, args.overrides)
        model, data = config.model, config.data
        options |= {name: getattr(config, name) for name in ("score", "overlap", "merge") if options[name] is None}
        own = Path(args.target).parent / "best.safetensors"
        if options["weights"] is None and Path(args.target).name == "config.yaml" and is_file(own):
            options["weights"] = str(own)
    elif (of_run := config_of_run(args.target)) and not any(word.startswith("data.val") for word in args.overrides):
        model, data = args.target, load_config(of_run, args.overrides).data
    else:
        if not any(word.startswith("data.val") for word in args.overrides):
            raise ConfigError(
                f"'{args.target}' is a model, and there is no data to evaluate it on; give a config, or data as in "
                "data.root=DIR data.val.images=images data.val.json=val.json data.val.masks=masks (docs/datasets.md)."
            )
        model, data = args.target, data_config(**read_overrides(args.overrides))
    exported = exported_form(model)
    if args.precision == "auto" and not exported:
        options["precision"] = "fp32"  # figures are comparable with published ones unless asked otherwise
    with joined(choose_device("cpu" if exported else args.device)) as device:
        options["device"] = args.device if exported else str(device)  # runtimes know devices of their own
        segmenter = load(model, **options)
        return evaluate(segmenter, data, linked=not args.unlinked, report=args.report)
