"""Video panoptic quality (VPQ): PQ of tubes, which are what a segment covers in a window of consecutive frames.

Kim et al., "Video Panoptic Segmentation", CVPR 2020. A tube of the prediction matches one of the truth if their IoU
over the window is above 0.5; windows move frame by frame within a sequence, and VPQ is the mean over window lengths. In
a window everything is counted as `panoptic` counts an image. Protocols, named for whose program they equal:

* "cityscapes-vps" (mcahny/vps): windows of 1, 2, 3, 4 labelled frames (its k = 0, 5, 10, 15). Means are over the
  classes that occur. Areas are the truth's JSON's.
* "vipseg" (VIPSeg-Dataset): the same with windows of 1, 2, 4, 6, 8 frames; papers quote 1, 2, 4, 6.
* "video-knet" (its `eval_dvpq_step.py`): windows of 1, 2, 3, 4 frames. Means are over all classes, a class that never
  occurs counting 0. There is no crowd: a thing's region with the number 0 is an object. Void leaves the union only
  where its number is 0; an unmatched prediction is forgiven if more than half of it lies on any void.

A sequence shorter than a window adds nothing to it. (Video K-Net's script for VIPSeg reads the classes in place of the
objects and shortens windows for all later videos; neither is done here.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np

from knet.calls import named_options
from knet.errors import DataError
from knet.evaluation.matches import Overlaps, Segments, find_matches, overlap_table
from knet.evaluation.means import mean
from knet.evaluation.panoptic import PanopticQuality
from knet.evaluation.video_counter import Clips, FrameCounter, count_videos
from knet.evaluation.video_labels import NUMBER_BITS, VOID
from knet.structures import Category

PROTOCOLS = {"cityscapes-vps": (1, 2, 3, 4), "vipseg": (1, 2, 4, 6, 8), "video-knet": (1, 2, 3, 4)}
"""The protocols, with the lengths of their windows in frames."""

_NUMBERS = (1 << NUMBER_BITS) - 1
_IGNORED = (VOID + 1) << NUMBER_BITS  # truth void that has a number: in Video K-Net's protocol only


@dataclass(frozen=True, slots=True)
class _Frame:
    """The overlaps of segments, and the segments themselves, of a frame or of a window."""

    overlaps: Overlaps
    truth: Segments
    predicted: Segments


class VideoPanopticQuality(FrameCounter):
    """Accumulates VPQ frame by frame, keeping no more of a sequence than the tables of the last window.

    `counts` {sequence: (W, 4, K)} float64 holds everything: for each window and category the sum of the matches' IoU
    and the numbers of matches, of wrong and of missed tubes. A sequence's frames come in order and without those of
    others between them. Accumulators can be pickled, and those of different sequences added with `merge`.

    Args:
        categories: the class table; None takes the table kitti_step.
        protocol: one of `PROTOCOLS`, see the top of this file.
        windows: their lengths in frames; None takes the protocol's.

    Raises:
        DataError: an unknown protocol, windows below 1 or repeated, or ids that are not unique in 0..254.
    """

    metric, protocols = "VPQ", PROTOCOLS

    def __init__(
        self,
        categories: Sequence[Category] | None = None,
        protocol: str = "video-knet",
        windows: Sequence[int] | None = None,
    ) -> None:
        super().__init__(categories, protocol)
        self.windows = PROTOCOLS[protocol] if windows is None else tuple(windows)
        if not self.windows or min(self.windows) < 1 or len(set(self.windows)) != len(self.windows):
            raise DataError(f"VPQ windows must be different numbers of frames from 1 on, not {list(self.windows)}.")
        self.counts: dict[str, np.ndarray] = {}
        self.frames: dict[str, int] = {}
        self._rows = np.full(VOID + 1, -1)
        self._rows[[category.id for category in self.categories]] = np.arange(len(self.categories))
        self._sequence: str | None = None
        self._recent: deque[_Frame] = deque(maxlen=max(self.windows))

    def _count(self, sequence: str, name: str, true: np.ndarray, found: np.ndarray, lengths: np.ndarray) -> None:
        true, found = self._ids(true, truth=True), self._ids(found, truth=False)
        sides = self._segments(true, truth=True), self._segments(found, truth=False)
        self._add(sequence, _Frame(overlap_table(true, found, lengths, sides[0].ids, sides[1].ids), *sides), name)

    def _count_segments(
        self, sequence: str, name: str, overlaps: Overlaps, truth: Segments, predicted: Segments
    ) -> None:
        self._add(sequence, _Frame(overlaps, truth, predicted), name)

    def merge(self, other: VideoPanopticQuality) -> None:
        """Adds what another accumulator has counted.

        Raises:
            DataError: class table, protocol or windows differ, or both have counted frames of one sequence.
        """
        self._check_alike(other)
        if both := self.counts.keys() & other.counts.keys():
            raise DataError(f"Both VPQ accumulators have frames of {min(both)}; windows need all of them in one.")
        self.counts |= other.counts
        self.frames |= other.frames

    def _settings(self) -> list[Any]:
        return [*super()._settings(), self.windows]

    def result(self) -> dict[str, Any]:
        """The figures of all that was counted.

        Returns:
            `{"protocol", "all": {"vpq"}, "things", "stuff", "classes": {category id: {"name", "thing", "vpq"}},
            "windows": {frames: as `PanopticQuality.result`}, "sequences": {name: {"vpq", "things", "stuff",
            "frames"}}}`, fractions 0..1. `vpq` is the mean over the windows, without those that nothing was counted in.
            None where nothing was counted.
        """
        total = np.zeros((len(self.windows), 4, len(self.categories)))
        sequences = {}
        for sequence, counts in self.counts.items():
            total += counts
            means = _means(self._windows(counts))
            sequences[sequence] = {"vpq": means["all"], "things": means["things"], "stuff": means["stuff"]}
            sequences[sequence]["frames"] = self.frames[sequence]
        windows = self._windows(total)
        groups = {group: {"vpq": mean} for group, mean in _means(windows).items()}
        classes = {}
        for category in self.categories:
            value = mean(window["classes"][category.id]["pq"] for window in windows.values())
            classes[category.id] = {"name": category.name, "thing": category.thing, "vpq": value}
        return {"protocol": self.protocol, **groups, "classes": classes, "windows": windows, "sequences": sequences}

    def _windows(self, counts: np.ndarray) -> dict[int, dict[str, Any]]:
        """(W,4,K) -> {frames: PQ's result}"""
        results = {}
        for frames, window in zip(self.windows, counts, strict=True):
            quality = PanopticQuality(self.categories)
            quality.counts += window
            results[frames] = quality.result()
            if self.protocol == "video-knet" and window.any():
                rows = list(results[frames]["classes"].values())
                results[frames]["all"] = _mean_of_all(rows)
                results[frames]["things"] = _mean_of_all([row for row in rows if row["thing"]])
                results[frames]["stuff"] = _mean_of_all([row for row in rows if not row["thing"]])
        return results

    def _ids(self, labels: np.ndarray, truth: bool) -> np.ndarray:
        """(R,) labels -> (R,) ids as PQ counts them: 0 = void, class 0 is 1 * 65536, and so on."""
        classes, script = labels >> NUMBER_BITS, self.protocol == "video-knet"
        ids = labels + (1 << NUMBER_BITS)
        if not script:
            ids = np.where(self._things[classes], ids, ids & ~_NUMBERS)
        return np.where(classes == VOID, np.where(labels & _NUMBERS, _IGNORED, 0) if script and truth else 0, ids)

    def _segments(self, ids: np.ndarray, truth: bool) -> Segments:
        listed = np.unique(ids)
        listed = listed[(listed != 0) & (listed != _IGNORED)]
        classes = (listed >> NUMBER_BITS) - 1
        crowd = self._things[classes] & (listed & _NUMBERS == 0) & (truth and self.protocol != "video-knet")
        return Segments(listed, self._rows[classes], crowd, np.full(len(listed), np.nan))

    def _add(self, sequence: str, frame: _Frame, name: str) -> None:
        """Counts the windows that the frame completes."""
        if sequence != self._sequence:
            if sequence in self.counts:
                raise DataError(f"{name} comes after another sequence; give the frames of each sequence in a row.")
            self._sequence = sequence
            self._recent.clear()
            self.counts[sequence] = np.zeros((len(self.windows), 4, len(self.categories)))
            self.frames[sequence] = 0
        areas = np.where(np.isnan(frame.truth.areas), frame.overlaps.true_areas(), frame.truth.areas)
        self._recent.append(replace(frame, truth=replace(frame.truth, areas=areas)))
        self.frames[sequence] += 1
        for row, frames in enumerate(self.windows):
            if frames <= len(self._recent):
                window = _join(list(self._recent)[-frames:])
                sides, forgiving = (window.truth, window.predicted), self.protocol == "video-knet"
                found = find_matches(window.overlaps, *sides, forgive_unlisted=forgiving)
                self.counts[sequence][row] += found.counts(len(self.categories))


@named_options
def vpq(
    truth: str | PathLike[str] | Clips,
    predictions: str | PathLike[str] | Clips,
    classes: Sequence[Category] | None = None,
    windows: Sequence[int] | None = None,
    protocol: str | None = None,
    *,
    progress: bool = False,
) -> dict[str, Any]:
    """VPQ of predictions over all frames.

    Args:
        truth, predictions, classes, progress: see `stq`.
        windows: their lengths in frames; None takes the protocol's.
        protocol: one of `PROTOCOLS`, see the top of this file; None takes that of the files' form, for folders and
            arrays "video-knet".

    Returns:
        What `VideoPanopticQuality.result` returns.

    Raises:
        DataError: as `VideoPanopticQuality.update`; a file is missing or damaged, or only one side has a frame.
    """

    def make(table: Sequence[Category] | None, form: str | None) -> VideoPanopticQuality:
        return VideoPanopticQuality(table, protocol or (form if form in PROTOCOLS else "video-knet"), windows)

    return count_videos(make, truth, predictions, classes, progress)


def _join(frames: Sequence[_Frame]) -> _Frame:
    """A window as one image: what its frames have in common is added up, segment by segment."""
    truth, true_places = _union([frame.truth for frame in frames])
    predicted, found_places = _union([frame.predicted for frame in frames])
    tables = [frame.overlaps for frame in frames]
    overlaps = Overlaps.of(
        (2 + len(truth.ids), 2 + len(predicted.ids)),
        np.concatenate([places[table.rows] for places, table in zip(true_places, tables, strict=True)]),
        np.concatenate([places[table.columns] for places, table in zip(found_places, tables, strict=True)]),
        np.concatenate([table.pixels for table in tables]),
    )
    return _Frame(overlaps, truth, predicted)


def _union(frames: Sequence[Segments]) -> tuple[Segments, list[np.ndarray]]:
    """All segments in the order in which they first occur, areas added up; and where each frame's stand in a table."""
    places: dict[int, int] = {}
    own = [
        np.array([0, 1, *(places.setdefault(id_, len(places) + 2) for id_ in frame.ids.tolist())]) for frame in frames
    ]
    areas, rows, crowd = (np.zeros(len(places), kind) for kind in (np.float64, np.int64, np.bool_))
    for frame, where in reversed(list(zip(frames, own, strict=True))):  # the first frame decides class and crowd
        areas[where[2:] - 2] += frame.areas
        rows[where[2:] - 2], crowd[where[2:] - 2] = frame.rows, frame.crowd
    return Segments(np.array(list(places), np.int64), rows, crowd, areas), own


def _means(windows: dict[int, dict[str, Any]]) -> dict[str, float | None]:
    """The mean PQ over the windows in which something was counted, of all, things and stuff."""
    return {group: mean(window[group]["pq"] for window in windows.values()) for group in ("all", "things", "stuff")}


def _mean_of_all(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """As Video K-Net's script: a class that never occurs counts 0."""
    return {key: mean(row[key] or 0.0 for row in rows) for key in ("pq", "sq", "rq")} | {"n": len(rows)}
