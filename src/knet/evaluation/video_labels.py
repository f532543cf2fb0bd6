"""Frames as the video metrics count them: one number a pixel, class * 65536 + number of the object, 255 = void.

Classes are category ids, as in the data sets' files; two of the numbers together name a pair of segments.
"""

from collections.abc import Sequence

import numpy as np

from knet.data.files.io import name_some
from knet.errors import DataError
from knet.evaluation.maps import check_map
from knet.structures import Category

VOID = 255
NUMBER_BITS = 16

Maps = tuple[np.ndarray, np.ndarray]
"""A frame's category ids (H,W) integers, 255 = void, and its objects' numbers (H,W), 0..65535."""


def pack_labels(classes: np.ndarray, numbers: np.ndarray, name: str) -> np.ndarray:
    """The labels of a frame, which errors call `name`: category ids and object numbers (H,W) -> (H,W) int32"""
    classes, numbers = check_map(classes, name, "classes are"), check_map(numbers, name, "object ids are")
    if classes.shape != numbers.shape:
        sizes = f"classes have {classes.shape} pixels (height, width), object ids {numbers.shape}"
        raise DataError(f"{name}: {sizes}; they must be equal.")
    for values, what, bits in ((classes, "class", 8), (numbers, "object", NUMBER_BITS)):
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >> bits:
            raise DataError(f"{name}: {what} ids run from {low} to {high}; 0 to {(1 << bits) - 1} are allowed.")
    return classes.astype(np.int32) << NUMBER_BITS | numbers.astype(np.int32)


def check_classes(labels: np.ndarray, known: np.ndarray, name: str) -> None:
    """Refuses labels whose class is not known: (R,) labels, (256,) bool as `known_classes` gives it"""
    wrong = ~known[labels >> NUMBER_BITS]
    if wrong.any():
        raise DataError(
            f"{name} has the class {name_some(np.unique(labels[wrong] >> NUMBER_BITS))}, which the class table lacks; "
            f"it has {name_some(np.flatnonzero(known[:VOID]), 10)}, and {VOID} is void."
        )


def known_classes(categories: Sequence[Category]) -> np.ndarray:
    """Which of the values 0..255 a frame may hold, the categories' ids and void: -> (256,) bool"""
    ids = [category.id for category in categories]
    if not ids or len(set(ids)) != len(ids) or not 0 <= min(ids) <= max(ids) < VOID:
        raise DataError("A video metric needs a class table whose ids are unique and between 0 and 254.")
    known = np.zeros(VOID + 1, bool)
    known[[*ids, VOID]] = True
    return known
