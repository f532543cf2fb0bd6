"""Frames as the video metrics count them: one number a pixel, class * 65536 + number of the object, 255 = void.

Classes are category ids, as in the data sets' files; two of the numbers together name a pair of segments.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from knet.errors import DataError
from knet.evaluation.panoptic import runs
from knet.evaluation.panoptic_files import some
from knet.evaluation.semantic_files import check_size
from knet.structures import Category

VOID = 255
NUMBER_BITS = 16

Maps = tuple[np.ndarray, np.ndarray]
"""A frame's category ids (H,W) integers, 255 = void, and its objects' numbers (H,W), 0..65535."""

Clips = Mapping[str, Sequence[Maps]]
"""The frames of each sequence, in order."""


def pack_labels(classes: np.ndarray, numbers: np.ndarray, name: str) -> np.ndarray:
    """Category ids and object numbers, integers of one shape -> int32 of that shape

    Raises: DataError if a value does not fit into its bits.
    """
    for values, what, bits in ((classes, "class", 8), (numbers, "object", NUMBER_BITS)):
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >> bits:
            raise DataError(f"{name}: {what} ids run from {low} to {high}; 0 to {(1 << bits) - 1} are allowed.")
    return classes.astype(np.int32) << NUMBER_BITS | numbers.astype(np.int32)


def label_runs(truth: Maps, predicted: Maps, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of pixels that are equal in all four maps: (R,) labels of the truth and of the prediction, (R,) lengths.

    Raises: DataError if the maps are no (H,W) integers of one size, or as `pack_labels`.
    """
    sides = f"{name} (truth)", f"{name} (prediction)"
    maps = [np.asarray(values) for values in (*truth, *predicted)]
    for position, values in enumerate(maps):
        if values.ndim != 2 or values.dtype.kind not in "iu" or values.size == 0:
            what = "object ids" if position % 2 else "classes"
            told = f"{values.shape} {values.dtype}"
            raise DataError(f"{sides[position // 2]}: {what} are an (H,W) integer array, not {told}.")
    for one, other in ((0, 1), (2, 3)):
        if maps[one].shape != maps[other].shape:
            told = f"{maps[one].shape} pixels (height, width), object ids {maps[other].shape}"
            raise DataError(f"{sides[one // 2]}: classes have {told}; they must be equal.")
    check_size(maps[0], maps[2], name)
    (true, true_ids, found, found_ids), lengths = runs(*maps)
    return pack_labels(true, true_ids, sides[0]), pack_labels(found, found_ids, sides[1]), lengths


def check_classes(labels: np.ndarray, known: np.ndarray, name: str) -> None:
    """Raises: DataError if labels (R,) have classes that are neither `known` (256,) bool nor void."""
    wrong = ~known[labels >> NUMBER_BITS]
    if wrong.any():
        raise DataError(
            f"{name} has the class {some(np.unique(labels[wrong] >> NUMBER_BITS).tolist())}, which the class table "
            f"lacks; it has {some(np.flatnonzero(known[:VOID]).tolist())}, and {VOID} is void."
        )


def known_classes(categories: Sequence[Category]) -> np.ndarray:
    """Which of the values 0..255 a frame may hold: the categories' ids and void. -> (256,) bool

    Raises: DataError if the table is empty, an id occurs twice, or one is not in 0..254.
    """
    ids = [category.id for category in categories]
    if not ids or len(set(ids)) != len(ids) or not 0 <= min(ids) <= max(ids) < VOID:
        raise DataError("A video metric needs a class table whose ids are unique and between 0 and 254.")
    known = np.zeros(VOID + 1, bool)
    known[[*ids, VOID]] = True
    return known


class FrameCounter(ABC):
    """What metrics that add up frame by frame share: how a frame comes in, and which classes it may hold (`known`)."""

    known: np.ndarray

    def update_maps(self, sequence: str, truth: Maps, predicted: Maps, name: str | None = None) -> None:
        """Counts a frame of a sequence; errors call it `name`.

        Raises: DataError if maps differ in size, classes are unknown, or numbers are below 0 or above 65,535.
        """
        name = f"A frame of {sequence}" if name is None else name
        self._check_and_count(sequence, name, *label_runs(truth, predicted, name))

    def update_labels(self, sequence: str, truth: np.ndarray, predicted: np.ndarray, *, name: str) -> None:
        """Counts a frame whose classes and numbers are packed: (H,W) int32 each.

        Raises: DataError as `update_maps`.
        """
        check_size(truth, predicted, name)
        (true, found), lengths = runs(truth, predicted)
        self._check_and_count(sequence, name, true, found, lengths)

    def _check_and_count(
        self, sequence: str, name: str, true: np.ndarray, found: np.ndarray, lengths: np.ndarray
    ) -> None:
        check_classes(true, self.known, f"{name} (truth)")
        check_classes(found, self.known, f"{name} (prediction)")
        self._count(sequence, name, true, found, lengths)

    @abstractmethod
    def _count(self, sequence: str, name: str, true: np.ndarray, found: np.ndarray, lengths: np.ndarray) -> None:
        """Counts runs of pixels that are equal on both sides: (R,) labels of each, (R,) lengths."""


def paired(truth: Clips, predictions: Clips) -> Iterable[tuple[str, str, Maps, Maps]]:
    """(sequence, name, truth, prediction) of each frame. Raises: DataError if they do not pair up."""
    lonely = [name for name in truth if name not in predictions] + [name for name in predictions if name not in truth]
    if lonely:
        raise DataError(f"Truth and predictions must have the same sequences; {some(lonely)} is on one side only.")
    for sequence, frames in truth.items():
        if len(frames) != len(predictions[sequence]):
            told = f"{len(frames)} frames of truth and {len(predictions[sequence])} of predictions"
            raise DataError(f"The sequence {sequence} has {told}; give one for each.")
    for sequence, frames in truth.items():
        for n, (true, predicted) in enumerate(zip(frames, predictions[sequence], strict=True)):
            yield sequence, f"{sequence}, frame {n}", true, predicted
