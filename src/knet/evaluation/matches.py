"""Which segments of an image, or of a window of a video, are found: overlaps in pixels, and who matches whom.

The rules are those of panoptic quality, see `panoptic`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UNLISTED, VOID, FIRST = 0, 1, 2  # positions in the table of overlaps; segments follow from FIRST on


@dataclass(frozen=True, slots=True)
class Segments:
    """The S segments of an image as (S,) columns: id, category row, crowd flag, stated area (NaN where not stated)."""

    ids: np.ndarray
    rows: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray

    def row_of(self) -> dict[int, int]:
        """The category row of each id."""
        return dict(zip(self.ids.tolist(), self.rows.tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class Overlaps:
    """The pixels that true and predicted segments share, for the N pairs that share any: maps may have many segments.

    A table of T + 2 rows and P + 2 columns: the first are those of ids that are not listed, the second those of void.

    Attributes:
        shape: of the table.
        rows, columns, pixels: (N,) int64, (N,) int64, (N,) float64, row by row.
    """

    shape: tuple[int, int]
    rows: np.ndarray
    columns: np.ndarray
    pixels: np.ndarray

    @classmethod
    def of(cls, shape: tuple[int, int], rows: np.ndarray, columns: np.ndarray, pixels: np.ndarray) -> Overlaps:
        """Adds up what is told of each pair in several places: (R,), (R,), (R,)"""
        cells = rows * shape[1] + columns
        if shape[0] * shape[1] <= 4 * len(cells):  # of few segments, where counting is faster than sorting
            counts = np.bincount(cells, pixels)  # float64, exact to 2^53
            unique = np.flatnonzero(counts)
            counts = counts[unique]
        else:
            unique, where = np.unique(cells, return_inverse=True)
            counts = np.bincount(where, pixels)
        return cls(shape, *np.divmod(unique, shape[1]), counts)

    def true_areas(self) -> np.ndarray:
        """The pixels of true segments. -> (T,) float64"""
        return np.bincount(self.rows, self.pixels, self.shape[0])[FIRST:]

    def predicted_areas(self, row: int | None = None) -> np.ndarray:
        """The pixels of predicted segments, with `row` those that they share with it. -> (P,) float64"""
        there = slice(None) if row is None else self.rows == row
        return np.bincount(self.columns[there], self.pixels[there], self.shape[1])[FIRST:]


@dataclass(frozen=True, slots=True)
class Matches:
    """The T true and P predicted segments, and what became of each.

    Attributes:
        truth_areas, predicted_areas: (T,), (P,) pixels.
        true, found: (N,) places of the segments of each pair that shares pixels, by rising true ones.
        iou, match: (N,) their IoU, and whether they match.
        missed, wrong: (T,), (P,) true segments that nothing finds, and predicted ones that find nothing; crowds, and
            what is forgiven, are neither.
    """

    truth: Segments
    predicted: Segments
    truth_areas: np.ndarray
    predicted_areas: np.ndarray
    true: np.ndarray
    found: np.ndarray
    iou: np.ndarray
    match: np.ndarray
    missed: np.ndarray
    wrong: np.ndarray

    def counts(self, classes: int, truth: np.ndarray | None = None, predicted: np.ndarray | None = None) -> np.ndarray:
        """The sum of IoU and the numbers of tp, fp and fn of each category. -> (4, classes) float64

        With (T,) and (P,) flags only the segments that they name are counted, and matches of those true ones.
        """
        match, missed, wrong = self.match, self.missed, self.wrong
        if truth is not None and predicted is not None:
            match, missed, wrong = match & truth[self.true], missed & truth, wrong & predicted
        rows = self.truth.rows
        matched = rows[self.true[match]]
        return np.stack(
            [
                np.bincount(matched, self.iou[match], classes),
                np.bincount(matched, minlength=classes),
                np.bincount(self.predicted.rows[wrong], minlength=classes),
                np.bincount(rows[missed], minlength=classes),
            ]
        )

    def right(self) -> np.ndarray:
        """Which predicted segments match a true one. -> (P,) bool"""
        return _among(self.found[self.match], len(self.predicted.ids))


def find_matches(
    overlaps: Overlaps, truth: Segments, predicted: Segments, *, forgive_unlisted: bool = False
) -> Matches:
    """Who matches whom of T and P segments.

    With `forgive_unlisted`, truth pixels that no segment lists forgive an unmatched prediction as void does; they stay
    in the union.
    """
    segments = (overlaps.rows >= FIRST) & (overlaps.columns >= FIRST)
    true, found, both = overlaps.rows[segments] - FIRST, overlaps.columns[segments] - FIRST, overlaps.pixels[segments]
    on_void = overlaps.predicted_areas(VOID)
    predicted_areas = overlaps.predicted_areas()
    truth_areas = np.where(np.isnan(truth.areas), overlaps.true_areas(), truth.areas)
    union = predicted_areas[found] + truth_areas[true] - both - on_void[found]
    iou = np.divide(both, union, out=np.zeros_like(both), where=union > 0)  # a stated area may be far too small
    match = (iou > 0.5) & (truth.rows[true] == predicted.rows[found]) & ~truth.crowd[true]

    forgiven = on_void + (overlaps.predicted_areas(UNLISTED) if forgive_unlisted else 0)
    last_crowd = {int(row): index for index, row in enumerate(truth.rows) if truth.crowd[index]}
    if last_crowd:
        crowd = np.array([last_crowd.get(int(row), -1) for row in predicted.rows], np.int64)
        on_crowd = crowd[found] == true
        forgiven = forgiven + np.bincount(found[on_crowd], both[on_crowd], len(predicted.ids))
    wrong = ~_among(found[match], len(predicted.ids)) & ~(forgiven / predicted_areas > 0.5)
    missed = ~_among(true[match], len(truth.ids)) & ~truth.crowd
    return Matches(truth, predicted, truth_areas, predicted_areas, true, found, iou, match, missed, wrong)


def overlap_table(
    truth_runs: np.ndarray, predicted_runs: np.ndarray, lengths: np.ndarray, truth: np.ndarray, predicted: np.ndarray
) -> Overlaps:
    """The pixels that truth and prediction share: runs (R,), (R,), (R,) and listed ids (T,), (P,).

    A predicted segment that is listed with id 0 is a segment, as in panopticapi.
    """
    shape = FIRST + len(truth), FIRST + len(predicted)
    return Overlaps.of(shape, _positions(truth_runs, truth), _positions(predicted_runs, predicted), lengths)


def _among(places: np.ndarray, count: int) -> np.ndarray:
    """Which of so many places are named. -> (count,) bool"""
    flags = np.zeros(count, np.bool_)
    flags[places] = True
    return flags


def _positions(values: np.ndarray, listed: np.ndarray) -> np.ndarray:
    """The row of each id in the table of overlaps: (R,) ids from 0 on, (S,) listed ids -> (R,) int64"""
    known = np.concatenate([[0], listed])
    order = np.argsort(known, kind="stable")  # a listed 0 comes behind the other, and so counts
    ordered = known[order]
    nearest = np.searchsorted(ordered, values, side="right") - 1
    return np.where(ordered[nearest] == values, order[nearest] + VOID, UNLISTED)
