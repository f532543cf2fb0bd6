"""What a report shows beside the AP of single objects, from the rows that `detections` evaluates."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from faster_coco_eval.core import mask as masks

from knet.data.files.masks import unpack_mask
from knet.evaluation.details import SURE, Details, Draw, Side, unknown_table
from knet.evaluation.detections import Rows, Whole


def add_objects(
    details: Details, true: Rows, predicted: Rows, images: Sequence[Whole], names: Mapping[int, str]
) -> None:
    """Counts what `average_precision` evaluates: rows of masks, image by image."""
    details.open(unknown_table(names))
    row_of = {id_: row for row, id_ in enumerate(names)}
    of_image: tuple[dict[int, Rows], dict[int, Rows]] = (defaultdict(list), defaultdict(list))
    for side, rows in zip(of_image, (true, predicted), strict=True):
        for row in rows:
            if row["category_id"] in row_of:
                side[row["image_id"]].append(row)
    for image in images:
        there, found = (side.get(image.number, []) for side in of_image)
        packed = [[row["segmentation"] for row in rows] for rows in (found, there)]
        crowd = np.array([bool(row["iscrowd"]) for row in there], bool)
        iou = np.zeros((len(found), len(there)))
        if iou.size:
            iou = np.asarray(masks.iou(*packed, crowd.tolist())).reshape(iou.shape)
        classes = [np.array([row_of[row["category_id"]] for row in rows], np.int64) for rows in (there, found)]
        scores = np.array([row["score"] for row in found])
        draw = _draw(details, (there, [row for row in found if row["score"] >= SURE]), image, row_of)
        details.add_objects(image.name, iou, (classes[0], crowd), (classes[1], scores), draw)


def _draw(details: Details, sides: tuple[Rows, Rows], image: Whole, row_of: Mapping[int, int]) -> Draw | None:
    painter = details.painter
    if painter is None:
        return None
    there, found = sides
    return lambda: painter(_side(there, image, row_of), _side(found, image, row_of), details.categories)


def _side(rows: Rows, image: Whole, row_of: Mapping[int, int]) -> Side:
    """Masks as an id map, in which the highest score, of the truth the smallest object, has the pixel."""
    ids, of = np.zeros(image.size, np.int32), dict[int, int]()
    ordered = sorted(rows, key=lambda row: (row.get("score", 0.0), -row["area"]))
    for number, row in enumerate(ordered, 1):
        ids[unpack_mask(row["segmentation"])] = number
        of[number] = row_of[row["category_id"]]
    return ids, of
