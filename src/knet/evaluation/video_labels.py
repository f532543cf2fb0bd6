"""Frames as the video metrics count them: one number a pixel, class * 65536 + number of the object, 255 = void.

Classes are category ids, as in the data sets' files; two of the numbers together name a pair of segments.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from knet.data.files.io import name_some
from knet.errors import DataError
from knet.evaluation.maps import check_map, check_size, runs
from knet.structures import Category

VOID = 255
NUMBER_BITS = 16

Maps = tuple[np.ndarray, np.ndarray]
"""A frame's category ids (H,W) integers, 255 = void, and its objects' numbers (H,W), 0..65535."""


def pack_labels(classes: np.ndarray, numbers: np.ndarray, name: str) -> np.ndarray:
    """The labels of a frame: category ids and object numbers, integers of one shape -> int32 of that shape

    Raises:
        DataError: a value does not fit into its bits. `name` begins the sentence.
    """
    for values, what, bits in ((classes, "class", 8), (numbers, "object", NUMBER_BITS)):
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >> bits:
            raise DataError(f"{name}: {what} ids run from {low} to {high}; 0 to {(1 << bits) - 1} are allowed.")
    return classes.astype(np.int32) << NUMBER_BITS | numbers.astype(np.int32)


def label_runs(truth: Maps, predicted: Maps, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of pixels that are equal in all four maps.

    Returns:
        (R,) labels of the truth, (R,) labels of the prediction, (R,) lengths.

    Raises:
        DataError: the maps are no (H,W) integers of one size, or as `pack_labels`. `name` begins the sentence.
    """
    maps: list[np.ndarray] = []
    for (classes, numbers), side in ((truth, f"{name} (truth)"), (predicted, f"{name} (prediction)")):
        pair = check_map(classes, side, "classes are"), check_map(numbers, side, "object ids are")
        if pair[0].shape != pair[1].shape:
            raise DataError(
                f"{side}: classes have {pair[0].shape} pixels (height, width), object ids {pair[1].shape}; they must "
                "be equal."
            )
        maps += pair
    check_size(maps[0], maps[2], name)
    (true, true_ids, found, found_ids), lengths = runs(*maps)
    return (
        pack_labels(true, true_ids, f"{name} (truth)"),
        pack_labels(found, found_ids, f"{name} (prediction)"),
        lengths,
    )


def check_classes(labels: np.ndarray, known: np.ndarray, name: str) -> None:
    """Refuses labels whose class is not known: (R,) labels, (256,) bool as `known_classes` gives it

    Raises:
        DataError: there is such a label. `name` begins the sentence.
    """
    wrong = ~known[labels >> NUMBER_BITS]
    if wrong.any():
        raise DataError(
            f"{name} has the class {name_some(np.unique(labels[wrong] >> NUMBER_BITS))}, which the class table lacks; "
            f"it has {name_some(np.flatnonzero(known[:VOID]), 10)}, and {VOID} is void."
        )


def known_classes(categories: Sequence[Category]) -> np.ndarray:
    """Which of the values 0..255 a frame may hold, the categories' ids and void: -> (256,) bool

    Raises:
        DataError: the table is empty, an id occurs twice, or one is not in 0..254.
    """
    ids = [category.id for category in categories]
    if not ids or len(set(ids)) != len(ids) or not 0 <= min(ids) <= max(ids) < VOID:
        raise DataError("A video metric needs a class table whose ids are unique and between 0 and 254.")
    known = np.zeros(VOID + 1, bool)
    known[[*ids, VOID]] = True
    return known
