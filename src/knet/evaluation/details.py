"""What a report shows beside the figures: confusion, sizes, scores, the best and the worst images.

All of it is added up image by image, in memory that does not grow with their number.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from colorsys import hls_to_rgb
from dataclasses import dataclass

import numpy as np

from knet.evaluation.matches import Matches
from knet.structures import Category

ROWS = 2000  # images that are listed: those with the lowest figures
ENDS = 6  # images with pictures at either end of the list
SIZES = ("small", "medium", "large")
BINS = 10  # of scores
SURE = (
    0.3  # of objects that may overlap, the least score that confusion and images count; most of a hundred are guesses
)
_EDGES = (32**2, 96**2)  # pixels, as COCO has them

Draw = Callable[[], bytes]
"""Gives the JPEG of an image: the truth at the left, what was found at the right."""

Side = tuple[np.ndarray, Mapping[int, int]]
"""An id map (H,W), and the row in the class table of each of its ids; others are void."""

Painter = Callable[[Side, Side, Sequence[Category]], bytes]
"""Draws the truth and what was found, as a `Draw` gives it."""


@dataclass(frozen=True, slots=True)
class ImageRow:
    """An image in the list: its figure, None where nothing was counted, and its counts."""

    name: str
    figure: float | None
    counts: tuple[int, ...]

    @property
    def place(self) -> tuple[bool, float, str]:
        """What the list is sorted by: the figure, and the name where figures are equal."""
        return self.figure is None, self.figure or 0.0, self.name


class Details:
    """Adds up what a report shows beside the figures. It can be pickled once it has no `painter` any more.

    Args:
        painter: draws the images of results on disk; without one, and without a `Draw`, there are no pictures.

    Attributes:
        categories: the class table of K classes, set by `open`.
        confusion: (K+1, K+1) int64. Rows are true classes, columns predicted ones; the last row is what is not there,
            the last column what was not found. Pixels have no last row, as void is not counted.
        sizes: (3, 4, K) float64, the counts of `PanopticQuality` by the size of the segment: of the true one, and of
            the predicted one where that matches none.
        scores: (10, 3) float64: by score how many segments there are, how many of them are right, and the sum of their
            scores.
        kind: what was counted: "segments", "pixels" or "objects"; "" before the first image.
        images: their number.
        worst, best: rows, at most 2000 and 6, by rising figures.
        pictures: the JPEGs of the images at both ends, by name.
    """

    def __init__(self, painter: Painter | None = None) -> None:
        self.painter = painter
        self.kind, self.images = "", 0
        self.worst: list[ImageRow] = []
        self.best: list[ImageRow] = []
        self.pictures: dict[str, bytes] = {}
        self.open(())

    def open(self, categories: Sequence[Category]) -> None:
        """Begins to count with this class table."""
        self.categories = list(categories)
        classes = len(self.categories)
        self.confusion = np.zeros((classes + 1, classes + 1), np.int64)
        self.sizes = np.zeros((len(SIZES), 4, classes))
        self.scores = np.zeros((BINS, 3))

    def paints(self, truth: Side, found: Side) -> Draw | None:
        """What draws an image of results on disk; None without a painter."""
        painter, table = self.painter, self.categories
        return None if painter is None else lambda: painter(truth, found, table)

    def add_segments(self, name: str, found: Matches, scores: Sequence[float | None], draw: Draw | None) -> None:
        """Counts the segments of an image; `scores` (P,) are those of the predicted ones, None where unknown."""
        self.kind, nothing = "segments", len(self.categories)
        near = (found.iou > 0.5) & found.missed[found.true] & found.wrong[found.found]
        mixed = _first_pairs(found.true[near], found.found[near])
        paired = [*zip(found.true[found.match], found.found[found.match], strict=True), *mixed]
        for true, predicted in paired:
            self.confusion[found.truth.rows[true], found.predicted.rows[predicted]] += 1
        lonely = found.missed.copy(), found.wrong.copy()
        for true, predicted in mixed:
            lonely[0][true], lonely[1][predicted] = False, False
        np.add.at(self.confusion, (found.truth.rows[lonely[0]], nothing), 1)
        np.add.at(self.confusion, (nothing, found.predicted.rows[lonely[1]]), 1)
        true_sizes, found_sizes = np.digitize(found.truth_areas, _EDGES), np.digitize(found.predicted_areas, _EDGES)
        for size, counts in enumerate(self.sizes):
            counts += found.counts(nothing, true_sizes == size, found_sizes == size)
        right = found.right()
        self._count_scores(scores, right, right | found.wrong)
        iou, tp, fp, fn = found.counts(nothing)
        whole = tp + (fp + fn) / 2
        pq = (iou[whole > 0] / whole[whole > 0]).mean() if whole.any() else None
        self._add(
            ImageRow(name, None if pq is None else float(pq), (int(tp.sum()), int(fp.sum()), int(fn.sum()))), draw
        )

    def add_pixels(self, name: str, counts: np.ndarray, draw: Draw | None) -> None:
        """Counts the pixels of an image: (K, K+1) as `ConfusionMatrix` has them."""
        self.kind = "pixels"
        self.confusion[:-1] += counts
        hits = np.diagonal(counts)
        union = counts.sum(axis=1) + counts[:, :-1].sum(axis=0) - hits
        iou = (hits[union > 0] / union[union > 0]).mean() if union.any() else None
        self._add(ImageRow(name, None if iou is None else float(iou), (int(counts.sum()), int(hits.sum()))), draw)

    def add_objects(
        self,
        name: str,
        iou: np.ndarray,
        truth: tuple[np.ndarray, np.ndarray],
        found: tuple[np.ndarray, np.ndarray],
        draw: Draw | None = None,
    ) -> None:
        """Counts the objects of an image: (P,T) IoU, (T,) rows and crowd flags, (P,) rows and scores.

        The IoU with a crowd is the share of the prediction that lies in it.
        """
        self.kind, nothing = "objects", len(self.categories)
        (true, crowd), (predicted, scores) = truth, found
        order = np.argsort(-scores, kind="stable")
        near = (iou >= 0.5) & ~crowd
        alike = predicted[:, None] == true
        free, right = np.ones(len(true), bool), np.zeros(len(predicted), bool)
        for number in order.tolist():
            options = np.where(near[number] & alike[number] & free, iou[number], 0.0)
            if options.any():
                free[options.argmax()], right[number] = False, True
        forgiven = ~right & ((iou >= 0.5) & crowd & alike).any(axis=1)
        self._count_scores(scores.tolist(), right, ~forgiven)
        sure = scores >= SURE
        found_of = np.ones(len(true), bool)  # what is not found by a sure prediction is missed
        counts = [0, 0, 0]
        for number in order[sure[order]].tolist():
            if forgiven[number]:
                continue
            row = predicted[number]
            same = np.where(near[number] & alike[number] & found_of, iou[number], 0.0)
            counts[0 if right[number] else 1] += 1
            if right[number]:
                found_of[same.argmax()] = False
                self.confusion[row, row] += 1
        counts[2] = int((found_of & ~crowd).sum())
        for number in order[sure[order] & ~right[order] & ~forgiven[order]].tolist():
            others = np.where(near[number] & ~alike[number] & found_of, iou[number], 0.0)
            if others.any():
                found_of[others.argmax()] = False
            self.confusion[true[others.argmax()] if others.any() else nothing, predicted[number]] += 1
        np.add.at(self.confusion, (true[found_of & ~crowd], nothing), 1)
        whole = counts[0] + (counts[1] + counts[2]) / 2
        self._add(ImageRow(name, counts[0] / whole if whole else None, tuple(counts)), draw)

    def merge(self, other: Details) -> None:
        """Adds what another one with the same class table has counted."""
        self.kind = self.kind or other.kind
        self.confusion += other.confusion
        self.sizes += other.sizes
        self.scores += other.scores
        self.images += other.images
        self.pictures |= other.pictures
        self._sort_in(other.worst, other.best)

    def ends(self) -> tuple[list[ImageRow], list[ImageRow]]:
        """The worst images, worst first, and the best, best first; no image is among both."""
        judged = [row for row in self.worst if row.figure is not None]
        few = min(ENDS, (len(judged) + 1) // 2)
        return judged[:few], self.best[::-1][: min(ENDS, len(judged) // 2)]

    def draw(self, draw: Callable[[str], bytes]) -> None:
        """Draws the images at the ends that have no picture, from their names."""
        for rows in self.ends():
            for row in rows:
                if row.name not in self.pictures:
                    self.pictures[row.name] = draw(row.name)

    def _count_scores(self, scores: Sequence[float | None], right: np.ndarray, counted: np.ndarray) -> None:
        for score, hit, counts in zip(scores, right.tolist(), counted.tolist(), strict=True):
            if counts and score is not None and 0 <= score <= 1:
                self.scores[min(int(score * BINS), BINS - 1)] += (1, hit, score)

    def _add(self, row: ImageRow, draw: Draw | None) -> None:
        self.images += 1
        self._sort_in([row], [row])
        if draw is not None and row in self._extremes():
            self.pictures[row.name] = draw()

    def _sort_in(self, worst: Sequence[ImageRow], best: Sequence[ImageRow]) -> None:
        for rows, more in ((self.worst, worst), (self.best, [row for row in best if row.figure is not None])):
            for row in more:
                insort(rows, row, key=lambda row: row.place)
        del self.worst[ROWS:], self.best[:-ENDS]
        kept = {row.name for row in self._extremes()}
        self.pictures = {name: picture for name, picture in self.pictures.items() if name in kept}

    def _extremes(self) -> list[ImageRow]:
        return [row for row in [*self.worst[:ENDS], *self.best] if row.figure is not None]


def merged(shares: Sequence[Details]) -> Details:
    """What several processes have counted, together."""
    whole = shares[0]
    for other in shares[1:]:
        whole.merge(other)
    return whole


def of_matrix(categories: Sequence[Category], counts: np.ndarray) -> Details:
    """The confusion of pixels alone, (K, K+1) as `ConfusionMatrix` has it, without images."""
    details = Details()
    details.open(categories)
    details.kind, details.confusion[:-1] = "pixels", counts
    return details


def unknown_table(names: Mapping[int, str]) -> list[Category]:
    """A class table of which only ids and names are known, in colours that differ."""
    rows = []
    for row, (id_, name) in enumerate(names.items()):
        red, green, blue = hls_to_rgb(row * 0.618034 % 1.0, 0.35 + 0.3 * (row * 0.7548777 % 1.0), 0.6)
        rows.append(Category(id_, name, False, (round(255 * red), round(255 * green), round(255 * blue))))
    return rows


def _first_pairs(true: np.ndarray, found: np.ndarray) -> list[tuple[int, int]]:
    """Of pairs (N,), (N,) those of which neither side is in an earlier one."""
    pairs, taken = list[tuple[int, int]](), (set[int](), set[int]())
    for pair in zip(true.tolist(), found.tolist(), strict=True):
        if pair[0] not in taken[0] and pair[1] not in taken[1]:
            pairs.append(pair)
            taken[0].add(pair[0])
            taken[1].add(pair[1])
    return pairs
