"""Which segments of an image, or of a window of a video, are found: overlaps in pixels, and who matches whom.

The rules are those of panoptic quality, see `panoptic`.
"""

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
class Matches:
    """The T true and P predicted segments, and what became of each.

    Attributes:
        truth_areas, predicted_areas: (T,), (P,) pixels.
        iou, match: (T,P) IoU, and who finds whom.
        missed, wrong: (T,), (P,) true segments that nothing finds, and predicted ones that find nothing; crowds, and
            what is forgiven, are neither.
    """

    truth: Segments
    predicted: Segments
    truth_areas: np.ndarray
    predicted_areas: np.ndarray
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
            match, missed, wrong = match & truth[:, None], missed & truth, wrong & predicted
        true, found = np.nonzero(match)
        rows = self.truth.rows
        return np.stack(
            [
                np.bincount(rows[true], self.iou[true, found], classes),
                np.bincount(rows[true], minlength=classes),
                np.bincount(self.predicted.rows[wrong], minlength=classes),
                np.bincount(rows[missed], minlength=classes),
            ]
        )


def find_matches(
    overlaps: np.ndarray, truth: Segments, predicted: Segments, *, forgive_unlisted: bool = False
) -> Matches:
    """Who matches whom: (2+T, 2+P) pixels as `overlap_table` gives them, T and P segments.

    With `forgive_unlisted`, truth pixels that no segment lists forgive an unmatched prediction as void does; they stay
    in the union.
    """
    both = overlaps[FIRST:, FIRST:].astype(np.float64)
    on_void = overlaps[VOID, FIRST:].astype(np.float64)
    predicted_areas = overlaps[:, FIRST:].sum(axis=0).astype(np.float64)
    truth_areas = np.where(np.isnan(truth.areas), overlaps[FIRST:].sum(axis=1), truth.areas)
    union = predicted_areas + truth_areas[:, None] - both - on_void
    iou = np.divide(both, union, out=np.zeros_like(both), where=union > 0)  # a stated area may be far too small
    match = (iou > 0.5) & (truth.rows[:, None] == predicted.rows) & ~truth.crowd[:, None]

    forgiven = on_void + (overlaps[UNLISTED, FIRST:] if forgive_unlisted else 0)
    last_crowd = {int(row): index for index, row in enumerate(truth.rows) if truth.crowd[index]}
    if last_crowd:
        crowd = np.array([last_crowd.get(int(row), -1) for row in predicted.rows], np.int64)
        on_crowd = both[crowd, np.arange(len(predicted.ids))]
        forgiven = forgiven + np.where(crowd >= 0, on_crowd, 0)
    wrong = ~match.any(axis=0) & ~(forgiven / predicted_areas > 0.5)
    missed = ~match.any(axis=1) & ~truth.crowd
    return Matches(truth, predicted, truth_areas, predicted_areas, iou, match, missed, wrong)


def overlap_table(
    truth_runs: np.ndarray, predicted_runs: np.ndarray, lengths: np.ndarray, truth: np.ndarray, predicted: np.ndarray
) -> np.ndarray:
    """The pixels that truth and prediction share: runs (R,), (R,), (R,) and listed ids (T,), (P,) -> (2+T, 2+P) int64

    The first row and column are those of ids that are not listed, the second those of void. A predicted segment that is
    listed with id 0 is a segment, as in panopticapi.
    """
    width = FIRST + len(predicted)
    cells = _positions(truth_runs, truth) * width + _positions(predicted_runs, predicted)
    counts = np.bincount(cells, lengths, minlength=(FIRST + len(truth)) * width)  # float64, exact to 2^53
    return counts.astype(np.int64).reshape(-1, width)


def _positions(values: np.ndarray, listed: np.ndarray) -> np.ndarray:
    """The row of each id in the table of overlaps: (R,) ids from 0 on, (S,) listed ids -> (R,) int64"""
    known = np.concatenate([[0], listed])
    order = np.argsort(known, kind="stable")  # a listed 0 comes behind the other, and so counts
    ordered = known[order]
    nearest = np.searchsorted(ordered, values, side="right") - 1
    return np.where(ordered[nearest] == values, order[nearest] + VOID, UNLISTED)
