"""knet eval: a model, a run's config, or results on disk against ground truth."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knet.cli.options import add_model_options, add_verb, is_first, model_options
from knet.errors import ConfigError

if TYPE_CHECKING:
    from knet.inference.segmenter import Segmenter


def add_parser(verbs: Any) -> None:
    """Adds the verb to the command line."""
    parser = add_verb(
        verbs,
        "eval",
        "measure PQ, mIoU or mask AP of a model, or of results that any tool left on disk",
        "knet eval configs/rtknet-slim-camvid.yaml --weights runs/camvid/best.safetensors\n"
        "  knet eval rtknet-slim-camvid data.root=data/camvid data.val.images=images/val "
        "data.val.json=val/panoptic.json data.val.masks=val/panoptic\n"
        "  knet eval --metric pq --truth gt.json --predictions pred.json",
    )
    parser.add_argument("target", metavar="CONFIG|MODEL", nargs="?", help="a YAML config, or a model's name or file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="options such as data.val.images=DIR")
    parser.add_argument(
        "--metric",
        choices=["pq", "miou", "ap"],
        help="judge results on disk: panoptic quality, mean IoU, AP of single objects (COCO or Cityscapes)",
    )
    parser.add_argument(
        "--truth",
        metavar="PATH",
        help="with --metric: COCO panoptic JSON (pq), folder of PNGs (miou), COCO instances JSON or gtFine/val (ap)",
    )
    parser.add_argument(
        "--predictions", metavar="PATH", help="with --metric: the results, in the same or official form"
    )
    parser.add_argument("--classes", metavar="NAME", help="with --metric miou: class table, see `knet data --help`")
    parser.add_argument("--output", metavar="DIR", help="also write the figures there, as JSON and CSV")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measures and prints."""
    from knet.evaluation.report import table, write_csv, write_json

    parts = _on_disk(args) if args.metric else _of_model(args)
    if not is_first():
        return 0
    if args.output:
        folder = Path(args.output)
        for name, result in parts.items():
            write_json(result, folder / f"{name}.json")
            write_csv(result, folder / f"{name}.csv")
    if args.json:
        print(json.dumps(parts, indent=1))
    else:
        print("\n\n".join(table(result) for result in parts.values()))
    return 0


def _on_disk(args: argparse.Namespace) -> dict[str, Any]:
    from knet.evaluation import cityscapes_instance_ap, mask_ap, mean_iou, panoptic_quality

    if not args.truth or not args.predictions:
        raise ConfigError("--metric needs --truth and --predictions; see `knet eval --help`.")
    if args.metric == "pq":
        return {"panoptic": panoptic_quality(args.truth, args.predictions, progress=True)}
    if args.metric == "ap":
        judge: Any = cityscapes_instance_ap if Path(args.truth).is_dir() else mask_ap
        return {"instance": judge(args.truth, args.predictions, progress=True)}
    if args.classes in ("cityscapes", "ade20k"):
        return {"semantic": mean_iou(args.truth, args.predictions, protocol=args.classes, progress=True)}
    if not args.classes:
        raise ConfigError("--metric miou needs --classes: a class table such as cityscapes or camvid, or a file.")
    from knet.data.categories import load_table

    table = load_table(args.classes)
    names = {value: c.name for value, c in zip(table.label_values, table.categories, strict=True)}
    return {"semantic": mean_iou(args.truth, args.predictions, classes=names, progress=True)}


def _of_model(args: argparse.Namespace) -> dict[str, Any]:
    from knet.config import config_names, data_config, load_config
    from knet.evaluation.evaluate import evaluate
    from knet.inference.load import choose_device, load
    from knet.training.build import open_data
    from knet.training.distributed import joined

    if args.target is None:
        raise ConfigError("Give a config or a model to judge, or --metric for results on disk; see `knet eval --help`.")
    options = model_options(args)
    if Path(args.target).suffix in (".yaml", ".yml") or args.target in config_names():
        config = load_config(args.target, args.overrides)
        model, data = config.model, config.data
        options["score"] = config.score if args.score is None else args.score
        options["overlap"] = config.overlap if args.overlap is None else args.overlap
        options["merge"] = config.merge if args.merge is None else args.merge
    else:
        model, data = args.target, data_config(args.overrides)
    with joined(choose_device(args.device)) as device:
        segmenter = load(model, **{**options, "device": str(device)})
        if data.val.labels is not None and data.categories is None:
            data = data.model_copy(update={"categories": _table_of(segmenter)})
        return evaluate(segmenter, open_data(data, data.val, segmenter.categories))


def _table_of(segmenter: Segmenter) -> str | None:
    """The class table that a model was made for: what the values of label PNGs mean, if nobody says otherwise."""
    from knet.data.categories import load_categories
    from knet.models.zoo import entry

    table = entry(segmenter.name).categories
    return table if load_categories(table) == segmenter.categories else None
