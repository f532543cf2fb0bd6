"""What the video metrics share: frames of both sides come in, are checked, and are added up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar

import numpy as np
from tqdm import tqdm

from knet.data.categories import load_categories
from knet.data.files.io import name_some
from knet.errors import DataError, shown
from knet.evaluation.maps import check_size, runs
from knet.evaluation.matches import Overlaps, Segments
from knet.evaluation.panoptic import PanopticQuality
from knet.evaluation.panoptic_files import SegmentLike
from knet.evaluation.video_files import open_videos
from knet.evaluation.video_labels import VOID, Maps, check_classes, known_classes, pack_labels
from knet.structures import Category

Clips = Mapping[str, Sequence[Maps]]
"""The frames of each sequence, in order."""


class FrameCounter(ABC):
    """Accumulates a video metric frame by frame; a subclass says how frames add up, and has a `merge`."""

    metric: ClassVar[str]
    protocols: ClassVar[Collection[str]]

    def __init__(self, categories: Sequence[Category] | None, protocol: str) -> None:
        if not isinstance(protocol, str) or protocol not in self.protocols:
            raise DataError(
                f"There is no protocol {shown(protocol)} for {self.metric}; use {', '.join(self.protocols)}."
            )
        self.categories = list(load_categories("kitti_step") if categories is None else categories)
        self.protocol = protocol
        self._known = known_classes(self.categories)
        self._things = np.isin(np.arange(VOID + 1), [category.id for category in self.categories if category.thing])
        self._tabulate = PanopticQuality(self.categories).tabulate

    def update(
        self,
        sequence: str,
        truth_classes: np.ndarray,
        truth_ids: np.ndarray,
        predicted_classes: np.ndarray,
        predicted_ids: np.ndarray,
        *,
        name: str | None = None,
    ) -> None:
        """Counts the next frame of a sequence from maps.

        Truth of a thing with the number 0 is a crowd, and numbers of stuff do not matter, except for VPQ in the
        protocol "video-knet", where each class and number is a segment.

        Args:
            sequence: what the sequence is called.
            truth_classes, predicted_classes: (H,W) category ids, 255 = void.
            truth_ids, predicted_ids: (H,W) object numbers, 0..65535.
            name: what errors call the frame.

        Raises:
            DataError: maps differ in size, classes are unknown, or numbers are out of range; for VPQ also a sequence
                that was left before.
        """
        name = name or f"A frame of {sequence}"
        truth = pack_labels(truth_classes, truth_ids, f"{name} (truth)")
        predicted = pack_labels(predicted_classes, predicted_ids, f"{name} (prediction)")
        self.update_labels(sequence, truth, predicted, name=name)

    def update_labels(self, sequence: str, truth: np.ndarray, predicted: np.ndarray, *, name: str) -> None:
        """Counts the next frame of a sequence from packed classes and numbers: (H,W) int32 each, see `pack_labels`."""
        check_size(truth, predicted, name)
        (true, found), lengths = runs(truth, predicted)
        check_classes(true, self._known, f"{name} (truth)")
        check_classes(found, self._known, f"{name} (prediction)")
        self._count(sequence, name, true, found, lengths)

    def update_segments(
        self,
        sequence: str,
        truth_ids: np.ndarray,
        truth_segments: Sequence[SegmentLike],
        predicted_ids: np.ndarray,
        predicted_segments: Sequence[SegmentLike],
        *,
        name: str | None = None,
    ) -> None:
        """Counts the next frame of a sequence from what `PanopticQuality.add` takes.

        An object has the same id in all frames of a sequence.

        Raises:
            DataError: as `PanopticQuality.add`; for STQ also too many segments in the sequence, for VPQ a sequence that
                was left before.
        """
        name = name or f"A frame of {sequence}"
        tables = self._tabulate((truth_ids, truth_segments), (predicted_ids, predicted_segments), name)
        self._count_segments(sequence, name, *tables)

    @abstractmethod
    def result(self) -> dict[str, Any]:
        """The figures of all that was counted, fractions 0..1."""

    @abstractmethod
    def _count(self, sequence: str, name: str, true: np.ndarray, found: np.ndarray, lengths: np.ndarray) -> None:
        """Counts runs of pixels that are equal on both sides: (R,) labels of each, (R,) lengths."""

    @abstractmethod
    def _count_segments(
        self, sequence: str, name: str, overlaps: Overlaps, truth: Segments, predicted: Segments
    ) -> None:
        """Counts the overlaps of segments."""

    def _settings(self) -> list[Any]:
        return [self.protocol, [(category.id, category.thing) for category in self.categories]]

    def _check_alike(self, other: FrameCounter) -> None:
        if self._settings() != other._settings():
            what = f"{self.metric} accumulators with different classes or settings"
            raise DataError(f"{what} cannot be merged; build them alike.")


def count_videos(
    make: Callable[[Sequence[Category] | None, str | None], FrameCounter],
    truth: str | PathLike[str] | Clips,
    predictions: str | PathLike[str] | Clips,
    classes: Sequence[Category] | None,
    progress: bool,
) -> dict[str, Any]:
    """The figures of all frames, from two paths that `open_videos` reads or from two mappings of arrays.

    `make` takes the class table and the form of the files, None for arrays, and returns the accumulator.
    """
    if isinstance(truth, str | PathLike) and isinstance(predictions, str | PathLike):
        videos = open_videos(truth, predictions, classes)
        counter = make(videos.categories, videos.form)
        bar = tqdm(videos.frames(), counter.metric, videos.count, unit="frame", disable=None if progress else True)
        for sequence, name, true, predicted in bar:
            if videos.listed:
                counter.update_segments(sequence, *true, *predicted, name=name)
            else:
                counter.update_labels(sequence, true, predicted, name=name)
    elif isinstance(truth, str | PathLike) or isinstance(predictions, str | PathLike):
        raise DataError("Truth and predictions must both be paths, or both mappings of sequences to frames.")
    else:
        counter = make(classes, None)
        for sequence, name, true, predicted in _paired(truth, predictions):
            counter.update(sequence, *true, *predicted, name=name)
    return counter.result()


def _paired(truth: Clips, predictions: Clips) -> Iterator[tuple[str, str, Maps, Maps]]:
    """The sequence, the name, the truth and the prediction of each frame."""
    if not isinstance(truth, Mapping) or not isinstance(predictions, Mapping):
        raise DataError("Truth and predictions must both be paths, or both mappings of sequences to frames.")
    lonely = [name for name in truth if name not in predictions] + [name for name in predictions if name not in truth]
    if lonely:
        raise DataError(f"Truth and predictions must have the same sequences; {name_some(lonely)} is on one side only.")
    for sequence, frames in truth.items():
        if len(frames) != len(predictions[sequence]):
            counts = f"{len(frames)} frames of truth and {len(predictions[sequence])} of predictions"
            raise DataError(f"The sequence {sequence} has {counts}; give one for each.")
    for sequence, frames in truth.items():
        for n, (true, predicted) in enumerate(zip(frames, predictions[sequence], strict=True)):
            yield sequence, f"{sequence}, frame {n}", true, predicted
