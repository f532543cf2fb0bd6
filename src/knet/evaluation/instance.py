"""COCO's average precision (AP) and recall (AR) of single objects, by masks or by boxes.

Lin et al., ECCV 2014. The numbers are pycocotools' own, computed by its faster successor:

* A detection finds an object of its class and image if their IoU is at least the threshold (0.50, 0.55, ... 0.95).
  Detections choose in the order of their scores; of equal scores the first listed comes first.
* Crowd regions need not be found. What lies in one (intersection / area of the detection) is neither right nor wrong.
* At most 100 detections count for each image and class. AP is the mean of 101 points of the precision-recall curve.
* Small objects have less than 32^2 pixels, large ones more than 96^2, by the truth's field `area`; an unmatched
  detection outside the range does not count.

pycocotools takes the area of a detection from its box if the results hold boxes, by which the figures by size change;
for masks the area of the mask is taken here.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from tqdm import tqdm

from knet.data.files.masks import mask_area, mask_box, read_mask
from knet.errors import DataError
from knet.structures import Category

Rows = list[dict[str, Any]]
KINDS = ("segm", "bbox")

_LIMITS = [1, 10, 100]  # detections that count for each image and class
_SIZES = ("all", "small", "medium", "large")  # as the library orders them


def mask_ap(
    truth: Mapping[str, Any] | str | PathLike[str],
    predictions: Sequence[Mapping[str, Any]] | str | PathLike[str],
    kind: str = "segm",
    classes: Sequence[Category] | Mapping[int, str] | None = None,
    *,
    progress: bool = False,
) -> dict[str, Any]:
    """AP of detections in COCO's result form against a COCO instances file; either is a path or what the JSON holds.

    `truth` has `images` (id, height, width), `annotations` (image_id, category_id, segmentation or bbox, and where
    known area and iscrowd) and `categories`; a prediction is {image_id, category_id, score, segmentation or bbox}.
    Masks are polygons, RLE, or, from Python, (H,W) arrays. Without a box the mask's is taken, and for the area of
    such a detection the mask's, as pycocotools does. `kind` says what is compared: "segm" or "bbox". `classes` names
    the categories that are judged, default all of the truth; those of others are left out.

    Gives fractions 0..1: `{"all": {"ap", "ap50", "ap75", "aps", "apm", "apl", "ar1", "ar10", "ar100", "ars", "arm",
    "arl"}, "classes": {category id: {"name", the same, "objects", "predictions"}}}`, the objects without crowds.
    None where there is nothing to find; such classes are left out of the means.

    Raises: DataError for files that cannot be read, unknown images and categories, masks of another size or form,
    scores that are missing or no numbers.
    """
    if kind not in KINDS:
        raise DataError(f"There is no kind {kind!r} of average precision; use {' or '.join(KINDS)}.")
    told, content = open_rows(truth, "truth")
    if not isinstance(content, Mapping) or not all(isinstance(content.get(k), list) for k in ("images", "annotations")):
        raise DataError(f"{told} must hold lists `images` and `annotations`; give a file in COCO's instances form.")
    known = read_names(content.get("categories"), told)
    names = known if classes is None else _names(classes)
    sizes = _images(content["images"], told)
    true = _rows(content["annotations"], told, sizes, known.keys() | names.keys(), kind, False, progress)
    told, results = open_rows(predictions, "predictions")
    if not isinstance(results, list | tuple):
        raise DataError(f"{told} must hold a list of detections; give results in COCO's form.")
    found = _rows(results, told, sizes, known.keys() | names.keys(), kind, True, progress)
    numbers = summarize(true, found, list(sizes.values()), sorted(names), kind)
    objects = Counter(row["category_id"] for row in true if not row["iscrowd"])
    detections = Counter(row["category_id"] for row in found)
    per_class = {
        category: {"name": name, **numbers[category], "objects": objects[category], "predictions": detections[category]}
        for category, name in names.items()
    }
    return {"all": numbers[None], "classes": per_class}


def summarize(
    true: Rows,
    found: Rows,
    sizes: Sequence[tuple[int, int, int]],
    categories: Sequence[int],
    kind: str,
    ranges: Sequence[tuple[float, float]] | None = None,
) -> dict[int | None, dict[str, float | None]]:
    """The figures of each category, and under None those of all.

    true, found: what the library's files hold · sizes: (number, height, width) of each image · ranges: least and
    largest area of all, small, medium and large objects; None takes COCO's.
    """
    content = {"images": [{"id": number, "height": height, "width": width} for number, height, width in sizes]}
    content["categories"] = [{"id": category} for category in categories]
    sides = [COCO({**content, "annotations": rows}) for rows in (true, found)]
    judge = COCOeval_faster(*sides, iouType=kind, print_function=lambda *_: None)
    judge.params.maxDets, judge.params.catIds = list(_LIMITS), list(categories)
    if ranges is not None:
        judge.params.areaRng = [list(limits) for limits in ranges]
    judge.evaluate()
    judge.accumulate()
    precision, recall = judge.eval["precision"], judge.eval["recall"]  # (T,R,K,A,M), (T,K,A,M); -1: nothing to find
    rows: dict[int | None, dict[str, float | None]] = {}
    for number, category in enumerate([None, *categories]):
        of = slice(None) if number == 0 else slice(number - 1, number)
        row = {"ap": precision[:, :, of, 0, -1], "ap50": precision[0, :, of, 0, -1], "ap75": precision[5, :, of, 0, -1]}
        row |= {f"ap{size[0]}": precision[:, :, of, n, -1] for n, size in enumerate(_SIZES) if n}
        row |= {f"ar{limit}": recall[:, of, 0, n] for n, limit in enumerate(_LIMITS)}
        row |= {f"ar{size[0]}": recall[:, of, n, -1] for n, size in enumerate(_SIZES) if n}
        rows[category] = {key: _mean(values) for key, values in row.items()}
    return rows


def _mean(values: np.ndarray) -> float | None:
    present = values[values > -1]
    return float(present.mean()) if present.size else None


def open_rows(source: Any, what: str) -> tuple[str, Any]:
    """What a file or an argument is called in messages, and its content. Raises: DataError."""
    if not isinstance(source, str | PathLike):
        return f"The {what}", source
    try:
        return str(source), json.loads(Path(source).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{source} cannot be read as a JSON file of COCO's form: {error}.") from error


def read_names(rows: Any, told: str) -> dict[int, str]:
    """{id: name} of a file's `categories`. Raises: DataError."""
    names: dict[int, str] = {}
    for row in rows if isinstance(rows, list) else [rows]:
        id_ = row.get("id") if isinstance(row, Mapping) else None
        if not is_whole(id_) or id_ in names:
            raise DataError(f"{told} needs a list `categories`, each with a whole number as id of its own.")
        names[id_] = str(row.get("name", id_))
    return names


def _names(classes: Sequence[Category] | Mapping[int, str]) -> dict[int, str]:
    return dict(classes) if isinstance(classes, Mapping) else {category.id: category.name for category in classes}


def _images(rows: Sequence[Any], told: str) -> dict[Any, tuple[int, int, int]]:
    """{image id: (number, height, width)}; ids may be text, so they are numbered in the order that ties are broken."""
    sizes: dict[Any, tuple[int, int]] = {}
    for row in rows:
        keys: Mapping[str, Any] = row if isinstance(row, Mapping) else {}
        id_, height, width = keys.get("id"), keys.get("height"), keys.get("width")
        named = is_whole(id_) or isinstance(id_, str)
        if not (named and is_whole(height) and is_whole(width) and min(height, width) > 0):
            raise DataError(f"{told}: an image needs id, height and width, not {row!r:.80}.")
        if id_ in sizes:
            raise DataError(f"{told} lists the image {id_!r} twice; ids must be unique.")
        sizes[id_] = height, width
    if not sizes:
        raise DataError(f"{told} lists no images; there is nothing to judge.")
    ordered = sorted(sizes, key=lambda id_: (isinstance(id_, str), id_))
    return {id_: (number, *sizes[id_]) for number, id_ in enumerate(ordered, 1)}


def _rows(
    rows: Sequence[Any],
    told: str,
    sizes: Mapping[Any, tuple[int, int, int]],
    categories: Any,
    kind: str,
    scored: bool,
    progress: bool,
) -> Rows:
    """Annotations, or with `scored` detections, in the one form that the library judges."""
    what = "detection" if scored else "annotation"
    read: Rows = []
    for number, row in enumerate(tqdm(rows, "masks", unit="object", disable=None if progress else True), 1):
        where = f"{told}: {what} {number}"
        if not isinstance(row, Mapping):
            raise DataError(f"{where} is {row!r:.60}; it must hold image_id, category_id and more.")
        image, category = row.get("image_id"), row.get("category_id")
        if not (is_whole(image) or isinstance(image, str)) or image not in sizes:
            raise DataError(f"{where} is of the image {image!r}, which the truth does not list.")
        if not is_whole(category) or category not in categories:
            raise DataError(f"{where} has the category {category!r}, which the truth does not list.")
        id_, *size = sizes[image]
        one: dict[str, Any] = {"id": number, "image_id": id_, "category_id": int(category), "iscrowd": 0}
        one |= _geometry(row, (size[0], size[1]), where, kind, scored)
        if scored:
            if not is_number(row.get("score")):
                raise DataError(f"{where} has the score {row.get('score')!r}; every detection needs a number.")
            one["score"] = float(row["score"])
        else:
            one["iscrowd"] = int(bool(row.get("iscrowd", 0)))
        read.append(one)
    return read


def _geometry(row: Mapping[str, Any], size: tuple[int, int], where: str, kind: str, scored: bool) -> dict[str, Any]:
    """Mask or box, and area."""
    mask, box = None, row.get("bbox")
    box = box.tolist() if isinstance(box, np.ndarray) else box
    if kind == "bbox" and box:
        if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(is_number, box)) or min(box[2:]) < 0:
            raise DataError(f"{where} has the box {box!r:.60}; give left, top, width and height in pixels.")
        box = [float(edge) for edge in box]
        area = box[2] * box[3]
    elif row.get("segmentation") is None:
        raise DataError(f"{where} has no segmentation{' and no bbox' * (kind == 'bbox')}; add it.")
    else:
        mask = read_mask(row["segmentation"], size, where)
        box, area = mask_box(mask), mask_area(mask)
    if not scored and row.get("area") is not None:
        if not is_number(row["area"]) or row["area"] < 0:
            raise DataError(f"{where} has the area {row['area']!r:.60}; give the number of pixels.")
        area = row["area"]
    return {"area": area, "bbox": box} | ({"segmentation": mask} if kind == "segm" else {})


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value of a JSON file is a whole number."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value of a JSON file is a finite number."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return number and bool(abs(value) < math.inf)  # NaN is not
