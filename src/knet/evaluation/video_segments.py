"""Frames whose segments a JSON file lists, as the labels that STQ counts: ids of any size become small numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from knet.errors import DataError
from knet.evaluation.panoptic import Segments, positions
from knet.evaluation.video_labels import NUMBER_BITS, VOID
from knet.structures import Category


class Numbering:
    """Numbers the segments of each sequence of one side in the order in which they are first listed.

    Crowd regions of the truth get 0.

    Args:
        categories: the class table.
        first: the number of the first segment. VIPSeg's script starts from 0, which STQ takes for a crowd where the
            segment is a thing.
    """

    def __init__(self, categories: Sequence[Category], first: int) -> None:
        self._ids = np.array([category.id for category in categories])
        self._first = first
        self._numbers: dict[str, dict[int, int]] = {}

    def labels(self, sequence: str, id_map: np.ndarray, segments: Segments, name: str) -> np.ndarray:
        """The labels of a frame: (H,W) ids and its segments -> (H,W) int32, see `video_labels`

        Raises:
            DataError: the sequence has too many segments. `name` begins the sentence.
        """
        numbers = self._numbers.setdefault(sequence, {})
        own = [numbers.setdefault(id_, len(numbers) + self._first) for id_ in segments.ids.tolist()]
        if len(numbers) + self._first > 1 << NUMBER_BITS:
            raise DataError(f"{name}: the sequence has more than {1 << NUMBER_BITS} segments; STQ cannot number them.")
        own_numbers = np.where(segments.crowd, 0, np.array(own, np.int64))
        void = VOID << NUMBER_BITS
        table = np.concatenate([[void, void], self._ids[segments.rows] << NUMBER_BITS | own_numbers])
        return table.astype(np.int32)[positions(id_map.ravel(), segments.ids)].reshape(id_map.shape)
