"""Segmentation and tracking quality (STQ): how well pixels get their class (SQ) and objects keep their number (AQ).

Weber et al., "STEP: Segmenting and Tracking Every Pixel", NeurIPS Datasets 2021; STQ = sqrt(AQ x SQ). The numbers equal
those of deeplab2's evaluator, also where its code decides what the paper leaves open:

* SQ is the mean IoU over all frames. Truth void (255) does not count. A prediction of void is wrong, and void then is
  one more class of the mean.
* A track is a (class, number) of a thing. AQ asks for the right region only: a track of another thing class earns too.
* Truth of a thing with the number 0 is a crowd: out of AQ on both sides, still in SQ. A predicted 0 is a track.
* What lies on truth void makes a predicted track larger, and so worse.
* AQ is the sum over all truth tracks of all sequences by their number, not the mean of the sequences' AQ.

Protocols: "official"; "video-knet", the script of Video K-Net, which takes all pixels of truth void out first and, for
the 19 classes of KITTI-STEP, has the things 11 to 18 instead of 11 and 13; "vipseg", the script of VIPSeg, which is the
official one but numbers the segments of a video from 0 in the order of its JSON file, so that a thing which is listed
first becomes a crowd.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np

from knet.calls import named_options
from knet.errors import DataError
from knet.evaluation.matches import Overlaps, Segments
from knet.evaluation.video_counter import Clips, FrameCounter, count_videos
from knet.evaluation.video_labels import NUMBER_BITS, VOID
from knet.structures import Category

PROTOCOLS = ("official", "video-knet", "vipseg")

_PAIR_BITS = 24  # of each of the two labels in a key
_STEP_CLASSES, _SCRIPT_THINGS = set(range(19)), range(11, 19)


class TrackingQuality(FrameCounter):
    """Accumulates STQ frame by frame, in memory that grows with the number of tracks, not of frames.

    `tables` holds everything: for each sequence how many pixels each pair of segments, (truth class, number, predicted
    class, number) in one key, has in common. Accumulators can be pickled, and added with `merge`, in any order and also
    parts of one sequence (unless they came with `update_segments`).

    Args:
        categories: the class table; None takes the table kitti_step.
        protocol: one of `PROTOCOLS`, see the top of this file.

    Raises:
        DataError: an unknown protocol, or ids that are not unique in 0..254.
    """

    metric, protocols = "STQ", PROTOCOLS

    def __init__(self, categories: Sequence[Category] | None = None, protocol: str = "official") -> None:
        super().__init__(categories, protocol)
        self.tables: dict[str, Counter[int]] = {}
        self.frames: Counter[str] = Counter()
        if protocol == "video-knet" and {category.id for category in self.categories} == _STEP_CLASSES:
            self._things = np.isin(np.arange(VOID + 1), _SCRIPT_THINGS)
        # Truth and predictions, {sequence: {segment id of a JSON file: number}}.
        self._numbers: tuple[dict[str, dict[int, int]], dict[str, dict[int, int]]] = ({}, {})

    def _count_segments(
        self, sequence: str, name: str, overlaps: Overlaps, truth: Segments, predicted: Segments
    ) -> None:
        true, found = (
            self._number(segments, numbers.setdefault(sequence, {}), name)
            for segments, numbers in zip((truth, predicted), self._numbers, strict=True)
        )
        self._count(sequence, name, true[overlaps.rows], found[overlaps.columns], overlaps.pixels)

    def _number(self, segments: Segments, numbers: dict[int, int], name: str) -> np.ndarray:
        """The labels of the rows of a table of overlaps, whose first two are void: S segments -> (2+S,) int64

        Segments are numbered in the order in which a sequence first lists them; crowd regions get 0. VIPSeg's script
        starts from 0, which STQ takes for a crowd where the segment is a thing.
        """
        first = 0 if self.protocol == "vipseg" else 1
        own = [numbers.setdefault(id_, len(numbers) + first) for id_ in segments.ids.tolist()]
        if len(numbers) + first > 1 << NUMBER_BITS:
            raise DataError(f"{name}: the sequence has more than {1 << NUMBER_BITS} segments; STQ cannot number them.")
        classes = np.array([category.id for category in self.categories])[segments.rows]
        labels = classes << NUMBER_BITS | np.where(segments.crowd, 0, np.array(own, np.int64))
        return np.concatenate([[VOID << NUMBER_BITS] * 2, labels])

    def _count(self, sequence: str, name: str, true: np.ndarray, found: np.ndarray, lengths: np.ndarray) -> None:
        keys = self._without_stuff(true) << _PAIR_BITS | self._without_stuff(found)
        pairs, where = np.unique(keys, return_inverse=True)
        pixels = np.bincount(where, lengths).astype(np.int64)
        self.tables.setdefault(sequence, Counter()).update(dict(zip(pairs.tolist(), pixels.tolist(), strict=True)))
        self.frames[sequence] += 1

    def _without_stuff(self, labels: np.ndarray) -> np.ndarray:
        """(R,) labels -> (R,) int64, stuff and void with the number 0"""
        classes = labels >> NUMBER_BITS
        return np.where(self._things[classes], labels, classes << NUMBER_BITS).astype(np.int64)

    def merge(self, other: TrackingQuality) -> None:
        """Adds what another accumulator has counted.

        Raises:
            DataError: class table or protocol differ.
        """
        self._check_alike(other)
        for sequence, table in other.tables.items():
            self.tables.setdefault(sequence, Counter()).update(table)
        self.frames.update(other.frames)

    def result(self) -> dict[str, Any]:
        """The figures of all that was counted.

        Returns:
            `{"protocol", "all": {"stq", "aq", "sq", "tracks", "frames"}, "classes": {category id: {"name", "thing",
            "iou", "aq", "tracks", "pixels"}}, "sequences": {name: as all}}`, fractions 0..1. `tracks` are those of the
            truth, `pixels` the truth's of a class; `thing` says what the protocol tracks. A sequence without tracks has
            AQ 0, as in the official code. None where nothing was counted.
        """
        confusion = np.zeros((VOID + 1, VOID + 1))
        earned, tracks = np.zeros(VOID + 1), np.zeros(VOID + 1, np.int64)
        sequences = {}
        for sequence, table in self.tables.items():
            own_confusion, own_earned, own_tracks = self._add_up(table)
            sequences[sequence] = _row(own_confusion, own_earned, own_tracks, self.frames[sequence])
            confusion += own_confusion
            earned += own_earned
            tracks += own_tracks
        iou, present = _iou(confusion)
        classes = {}
        for category in self.categories:
            c, thing = category.id, bool(self._things[category.id])
            classes[c] = {"name": category.name, "thing": thing, "iou": float(iou[c]) if present[c] else None}
            classes[c] |= {"aq": float(earned[c] / tracks[c]) if tracks[c] else None}
            classes[c] |= {"tracks": int(tracks[c]) if thing else None, "pixels": int(confusion[c].sum())}
        total = _row(confusion, earned, tracks, self.frames.total())
        return {"protocol": self.protocol, "all": total, "classes": classes, "sequences": sequences}

    def _add_up(self, table: Counter[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A sequence's confusion (256,256), what its truth tracks earn, and their number, by class (256,)."""
        keys, pixels = np.array(list(table), np.int64), np.array(list(table.values()), np.float64)
        truth, predicted = keys >> _PAIR_BITS, keys & ((1 << _PAIR_BITS) - 1)
        if self.protocol == "video-knet":
            counts = truth >> NUMBER_BITS != VOID
            truth, predicted, pixels = truth[counts], predicted[counts], pixels[counts]
        true_class, found_class = truth >> NUMBER_BITS, predicted >> NUMBER_BITS
        confusion = np.zeros((VOID + 1, VOID + 1))
        np.add.at(confusion, (true_class, found_class), pixels)
        confusion[VOID] = 0

        crowd = self._things[true_class] & (truth & ((1 << NUMBER_BITS) - 1) == 0)
        tracked, claimed = self._things[true_class] & ~crowd, self._things[found_class] & ~crowd
        tubes, of_tube = np.unique(truth[tracked], return_inverse=True)
        areas = np.bincount(of_tube, pixels[tracked], len(tubes))
        _, of_claim = np.unique(predicted, return_inverse=True)
        claims = np.bincount(of_claim, pixels * claimed)
        both = claimed[tracked]
        shared, gained = pixels[tracked][both], of_tube[both]
        union = areas[gained] + claims[of_claim[tracked][both]] - shared
        earned = np.bincount(gained, shared**2 / union, len(tubes)) / areas
        of_class = tubes >> NUMBER_BITS
        by_class = np.bincount(of_class, earned, VOID + 1), np.bincount(of_class, minlength=VOID + 1)
        return confusion, *by_class


@named_options
def stq(
    truth: str | PathLike[str] | Clips,
    predictions: str | PathLike[str] | Clips,
    classes: Sequence[Category] | None = None,
    protocol: str | None = None,
    *,
    progress: bool = False,
) -> dict[str, Any]:
    """STQ of predictions over all frames.

    Args:
        truth, predictions: two paths in one of the forms that `open_videos` reads, or two mappings {sequence:
            [(category ids (H,W), object numbers (H,W)), ...]}.
        classes: the class table; None takes that of the files, else the table kitti_step.
        protocol: one of `PROTOCOLS`, see the top of this file; None takes "official", for VIPSeg's JSON files "vipseg".
        progress: whether a progress bar is shown.

    Returns:
        What `TrackingQuality.result` returns.

    Raises:
        DataError: as `TrackingQuality.update`; a file is missing or damaged, or only one side has a frame.
    """

    def make(table: Sequence[Category] | None, form: str | None) -> TrackingQuality:
        return TrackingQuality(table, protocol or ("vipseg" if form == "vipseg" else "official"))

    return count_videos(make, truth, predictions, classes, progress)


def _iou(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU (256,) of each class, void as one of them, and which occur."""
    hits = np.diagonal(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    return np.divide(hits, union, out=np.zeros_like(union), where=union > 0), union > 0


def _row(confusion: np.ndarray, earned: np.ndarray, tracks: np.ndarray, frames: int) -> dict[str, Any]:
    iou, present = _iou(confusion)
    sq = float(iou.sum() / present.sum()) if present.any() else None
    aq = float(earned.sum() / tracks.sum()) if tracks.sum() else 0.0
    stq_ = None if sq is None else math.sqrt(aq * sq)
    return {"stq": stq_, "aq": aq, "sq": sq, "tracks": int(tracks.sum()), "frames": frames}
