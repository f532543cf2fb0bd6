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

from collections.abc import Mapping, Sequence
from functools import partial
from os import PathLike
from typing import Any

import numpy as np

from knet.calls import named_options
from knet.data.files.masks import mask_area, mask_box, read_mask
from knet.errors import DataError, shown
from knet.evaluation.details import Details
from knet.evaluation.detections import Format, Size, average_precision, is_number
from knet.evaluation.objects import add_objects
from knet.structures import Category

KINDS = ("segm", "bbox")

_COCO = Format("COCO", "image", ("height", "width"), "detection")


@named_options
def mask_ap(
    truth: Mapping[str, Any] | str | PathLike[str],
    predictions: Sequence[Mapping[str, Any]] | str | PathLike[str],
    kind: str = "segm",
    classes: Sequence[Category] | Mapping[int, str] | None = None,
    *,
    progress: bool = False,
    details: Details | None = None,
) -> dict[str, Any]:
    """AP of detections in COCO's results format against a COCO instances file.

    Masks are polygons, RLE, or, from Python, (H,W) arrays. Without a box the mask's is taken, and for the area of
    such a detection the mask's, as in pycocotools.

    Args:
        truth: a path, or what the JSON file holds: `images` (id, height, width), `annotations` (image_id, category_id,
            segmentation or bbox, and where known area and iscrowd) and `categories`.
        predictions: a path, or rows {image_id, category_id, score, segmentation or bbox}.
        kind: what is compared, "segm" (masks) or "bbox" (boxes).
        classes: the categories that are evaluated, rows or {id: name}; None takes all of the truth.
        progress: whether a progress bar is shown.
        details: gets what a report shows beside the figures, of masks.

    Returns:
        `{"all": {"ap", "ap50", "ap75", "aps", "apm", "apl", "ar1", "ar10", "ar100", "ars", "arm", "arl"}, "classes":
        {category id: {"name", the same, "objects", "predictions"}}}`, fractions 0..1; `objects` are counted without
        crowds. None where there is nothing to find; such classes are left out of the means.

    Raises:
        DataError: a file cannot be read, an image or a category is unknown, or a mask or a score is invalid.
    """
    if kind not in KINDS:
        raise DataError(f"There is no kind {shown(kind)} of average precision; use {' or '.join(KINDS)}.")
    if classes is not None and not isinstance(classes, Mapping):
        classes = {category.id: category.name for category in classes}
    sides = _COCO.read(truth, predictions, partial(_read_object, kind=kind), classes, progress)
    if details is not None and kind == "segm":
        add_objects(details, *sides)
    return average_precision(*sides, kind)


def object_faults(truth: Mapping[str, Any] | str | PathLike[str]) -> dict[int | str, str]:
    """What `mask_ap` would say of the annotations of a COCO instances file, by the ids of their images."""
    return _COCO.faults(truth, partial(_read_object, kind="segm"))


def _read_object(row: Mapping[str, Any], size: Size, place: str, scored: bool, kind: str) -> dict[str, Any]:
    mask, box = None, row.get("bbox")
    box = box.tolist() if isinstance(box, np.ndarray) else box
    if kind == "bbox" and box:
        if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(is_number, box)) or min(box[2:]) < 0:
            raise DataError(f"{place} has the box {box!r:.60}; give left, top, width and height in pixels.")
        box = [float(edge) for edge in box]
        area = box[2] * box[3]
    elif row.get("segmentation") is None:
        raise DataError(f"{place} has no segmentation{' and no bbox' * (kind == 'bbox')}; add it.")
    else:
        mask = read_mask(row["segmentation"], (size[0], size[1]), place)
        box, area = mask_box(mask), mask_area(mask)
    if not scored and row.get("area"):  # a tool that does not know it writes 0; the mask says it
        if not is_number(row["area"]) or row["area"] < 0:
            raise DataError(f"{place} has the area {row['area']!r:.60}; give the number of pixels.")
        area = row["area"]
    return {"area": area, "bbox": box} | ({"segmentation": mask} if kind == "segm" else {})
