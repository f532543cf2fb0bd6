"""Frames whose segments a JSON file lists, as the labels that STQ counts: ids of any size become small numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from knet.errors import DataError
from knet.evaluation.panoptic import PanopticQuality, Segments, positions
from knet.evaluation.video_frames import VideoFrame
from knet.evaluation.video_labels import NUMBER_BITS, VOID
from knet.structures import Category


class Numbering:
    """Numbers the segments of each sequence in the order in which they are first listed.

    first: the number of the first one; VIPSeg's script starts from 0, which STQ takes for a crowd where it is a thing.
    Crowd regions of the truth get 0.
    """

    def __init__(self, categories: Sequence[Category], first: int = 1) -> None:
        self._read = PanopticQuality(categories).tabulate
        self._ids = np.array([category.id for category in categories])
        self._first = first
        self._sequence: str | None = None
        self._numbers: tuple[dict[int, int], dict[int, int]] = ({}, {})

    def labels(self, frame: VideoFrame) -> tuple[np.ndarray, np.ndarray]:
        """Truth and prediction as (H,W) int32 labels.

        Raises: DataError for everything that `PanopticQuality.add` refuses.
        """
        if frame.sequence != self._sequence:
            self._sequence, self._numbers = frame.sequence, ({}, {})
        _, *sides = self._read(*frame.truth, *frame.prediction, name=frame.name)
        maps = frame.truth[0], frame.prediction[0]
        true, predicted = (
            self._labels(id_map, segments, numbers, frame.name)
            for id_map, segments, numbers in zip(maps, sides, self._numbers, strict=True)
        )
        return true, predicted

    def _labels(self, id_map: np.ndarray, segments: Segments, numbers: dict[int, int], name: str) -> np.ndarray:
        own = [numbers.setdefault(id_, len(numbers) + self._first) for id_ in segments.ids.tolist()]
        if len(numbers) + self._first > 1 << NUMBER_BITS:
            raise DataError(f"{name}: the sequence has more than {1 << NUMBER_BITS} segments; STQ cannot number them.")
        own_numbers = np.where(segments.crowd, 0, np.array(own, np.int64))
        void = VOID << NUMBER_BITS
        table = np.concatenate([[void, void], self._ids[segments.rows] << NUMBER_BITS | own_numbers])
        return table.astype(np.int32)[positions(id_map.ravel(), segments.ids)].reshape(id_map.shape)
