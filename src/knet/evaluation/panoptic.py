"""Panoptic quality (PQ): how well segments are found (RQ) and how well the found ones are drawn (SQ); PQ = SQ x RQ.

Kirillov et al., "Panoptic Segmentation", CVPR 2019, Eq. 1. The numbers equal those of the official evaluators,
panopticapi and cityscapesScripts' copy of it, also where the code decides what the paper leaves open:

* A prediction matches a truth segment of its category if their IoU is above 0.5 (exactly 0.5 does not match).
* Pixels where the truth is void (id 0) are taken out of the union; pixels of crowd regions are not.
* A truth segment's area is the `area` that its JSON states, where it does; a prediction's area is counted.
* Crowd regions are never found or missed. An unmatched prediction is forgiven if more than half of it lies on void
  and on the crowd region of its category. Of several crowd regions of a category in an image only the last counts.
* Means are over the categories that occur in the truth or in the predictions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from knet.calls import named_options
from knet.data.categories import categories_from_rows
from knet.data.files.io import name_some
from knet.data.files.numbers import flag, whole
from knet.errors import DataError, shown
from knet.evaluation.details import Details
from knet.evaluation.maps import check_map, check_size, runs
from knet.evaluation.matches import UNLISTED, Overlaps, Segments, find_matches, overlap_table
from knet.evaluation.means import mean
from knet.evaluation.panoptic_files import (
    ID_LIMIT,
    Labelled,
    SegmentLike,
    read_annotations,
    read_document,
    read_pairs,
    under_ids_of_truth,
)
from knet.structures import Category, SegmentInfo


class PanopticQuality:
    """Accumulates PQ image by image, in memory that does not grow.

    `counts` (4, K) float64 holds everything, a column a category: the sum of the matches' IoU (iou), the numbers of
    matches (tp), of predicted segments that match nothing (fp) and of truth segments that nothing matches (fn).
    Accumulators can be added: with `merge`, or by summing `counts` over processes.

    Args:
        categories: the class table.

    Raises:
        DataError: the table is empty, or a category id occurs twice.
    """

    def __init__(self, categories: Sequence[Category]) -> None:
        self.categories = list(categories)
        self.counts = np.zeros((4, len(self.categories)))
        self._rows = {category.id: row for row, category in enumerate(self.categories)}
        self._ids = dict(enumerate(self._rows))
        if not self.categories or len(self._rows) != len(self.categories):
            raise DataError("PQ needs a class table with at least one category, in which no category id occurs twice.")

    def add(
        self,
        truth_ids: np.ndarray,
        truth_segments: Sequence[SegmentLike],
        predicted_ids: np.ndarray,
        predicted_segments: Sequence[SegmentLike],
        *,
        name: str = "the image",
    ) -> None:
        """Counts one image.

        Truth pixels whose id no segment lists are neither void nor a segment: predictions there are wrong, as in the
        official code. Truth segments without a pixel are missed.

        Args:
            truth_ids, predicted_ids: (H,W) integer id maps at the size of the original image, 0 = void.
            truth_segments, predicted_segments: the segments of the maps; those of the prediction must be exactly the
                ids of its map.
            name: what errors call the image.

        Raises:
            DataError: the maps differ in size, an id is negative, above 16,777,215 or listed twice, a category is
                unknown, or the predicted segments are not exactly the ids of the predicted map.
        """
        tables = self.tabulate((truth_ids, truth_segments), (predicted_ids, predicted_segments), name)
        self.counts += find_matches(*tables).counts(len(self.categories))

    def tabulate(
        self, true_image: Labelled, predicted_image: Labelled, name: str
    ) -> tuple[Overlaps, Segments, Segments]:
        """What `add` counts of an image: overlaps, true and predicted segments."""
        sides = f"{name} (truth)", f"{name} (prediction)"
        truth_ids = check_map(true_image[0], sides[0], "an id map is")
        predicted_ids = check_map(predicted_image[0], sides[1], "an id map is")
        check_size(truth_ids, predicted_ids, name)
        truth, predicted = self._read(true_image[1], sides[0]), self._read(predicted_image[1], sides[1])
        if (truth.ids == 0).any():
            raise DataError(f"{name} (truth): a segment has id 0, which means void; give segments ids from 1.")
        (true, found), lengths = runs(truth_ids, predicted_ids)
        for ids, side in zip((true, found), sides, strict=True):
            if ids.min() < 0 or ids.max() >= ID_LIMIT:
                span = f"{ids.min()} to {ids.max()}"
                raise DataError(f"{side}: ids run from {span}; 0 (void) to {ID_LIMIT - 1} are allowed.")
        overlaps = overlap_table(true, found, lengths, truth.ids, predicted.ids)
        if (overlaps.columns == UNLISTED).any():
            unlisted = np.setdiff1d(predicted_ids, np.append(predicted.ids, 0))
            raise DataError(f"{name}: the predicted mask has ids {name_some(unlisted)} that its segments do not list.")
        empty = predicted.ids[overlaps.predicted_areas() == 0]
        if empty.size:
            raise DataError(f"{name}: the prediction lists segments {name_some(empty)} that have no pixel in its mask.")
        return overlaps, truth, predicted

    def merge(self, other: PanopticQuality) -> None:
        """Adds what another accumulator with the same class table has counted.

        Raises:
            DataError: the class tables differ.
        """
        if [category.id for category in self.categories] != [category.id for category in other.categories]:
            raise DataError("PQ accumulators with different class tables cannot be merged; build both from one table.")
        self.counts += other.counts

    def result(self) -> dict[str, Any]:
        """PQ, SQ and RQ of all categories, of things, of stuff and of each category.

        Returns:
            `{"all": {"pq", "sq", "rq", "n"}, "things": {...}, "stuff": {...}, "classes": {category id: {"name",
            "thing", "pq", "sq", "rq", "tp", "fp", "fn", "iou"}}}`, fractions 0..1. `n` is the number of categories
            averaged, `iou` the sum over the matches. Where nothing was counted (a category that does not occur, no
            things at all) the three fractions are None; the official code prints 0 for such a category and divides by
            zero for such a group.
        """
        classes: dict[int, dict[str, Any]] = {}
        for category, (iou, tp, fp, fn) in zip(self.categories, self.counts.T.tolist(), strict=True):
            pq = sq = rq = None
            if tp + fp + fn:
                half_wrong = tp + 0.5 * fp + 0.5 * fn
                pq, sq, rq = iou / half_wrong, iou / tp if tp else 0.0, tp / half_wrong
            classes[category.id] = {"name": category.name, "thing": category.thing, "pq": pq, "sq": sq, "rq": rq}
            classes[category.id] |= {"tp": int(tp), "fp": int(fp), "fn": int(fn), "iou": iou}
        rows = list(classes.values())
        return {
            "all": _group(rows),
            "things": _group([row for row in rows if row["thing"]]),
            "stuff": _group([row for row in rows if not row["thing"]]),
            "classes": classes,
        }

    def _read(self, segments: Sequence[SegmentLike], name: str) -> Segments:
        rows = []
        for segment in segments:
            try:
                if isinstance(segment, Mapping):
                    crowd, area = flag(segment.get("iscrowd") or 0), segment.get("area")
                    number, category = whole(segment["id"]), segment["category_id"]
                    category = category if whole(category) is None else whole(category)
                    if number is None or crowd is None:
                        raise ValueError(segment)
                elif isinstance(segment, SegmentInfo):
                    crowd, area = segment.crowd, None
                    number, category = segment.id, self._ids[segment.label]
                else:
                    crowd, area = False, segment.area
                    number, category = segment.id, segment.category
                rows.append((number, self._rows.get(category, -1), crowd, np.nan if area is None else float(area)))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise DataError(f"{name}: {segment!r:.200} is not a segment with an id and a category_id.") from error
            if rows[-1][1] < 0:
                raise DataError(
                    f"{name}: segment {number} has the unknown category {shown(category)}; "
                    f"the class table has {name_some(self._rows, 10)}."
                )
        ids, labels, crowds, areas = zip(*rows, strict=True) if rows else ((), (), (), ())
        if len(set(ids)) != len(ids):
            repeated = name_some(id_ for id_, count in Counter(ids).items() if count > 1)
            raise DataError(f"{name}: segments {repeated} are listed twice.")
        if ids and not (min(ids) >= 0 and max(ids) < ID_LIMIT):
            raise DataError(f"{name}: segment ids run from {min(ids)} to {max(ids)}; 0 to {ID_LIMIT - 1} are allowed.")
        return Segments(np.array(ids, np.int64), np.array(labels, np.int64), np.array(crowds, bool), np.array(areas))


@named_options
def panoptic_quality(
    truth: str | PathLike[str] | Sequence[Labelled],
    predictions: str | PathLike[str] | Sequence[Labelled],
    *,
    categories: Sequence[Category] | None = None,
    truth_masks: str | PathLike[str] | None = None,
    prediction_masks: str | PathLike[str] | None = None,
    progress: bool = False,
    details: Details | None = None,
) -> dict[str, Any]:
    """PQ of predictions over all images of the truth.

    Predictions for images without truth are ignored, as in the official code.

    Args:
        truth, predictions: two COCO panoptic JSON files (Cityscapes and Mapillary use the same format), paired by the
            file names of their `images` or, where these do not fit, by `image_id`, whose RGB PNG masks hold
            id = R + 256 G + 65536 B; or equally many (id map (H,W), segments).
        categories: the class table; with files None takes the truth's. Files that list their classes are matched with
            it by name.
        truth_masks, prediction_masks: the folders of the masks. None looks in the folder that is called like the JSON
            file (without `.json`, then without a number at its end: `panoptic_2018.json`, `panoptic/`), then beside it.
        progress: whether a progress bar is shown.
        details: gets what a report shows beside the figures.

    Returns:
        What `PanopticQuality.result` returns.

    Raises:
        DataError: everything that `PanopticQuality.add` refuses, files that are missing or damaged, and images without
            a prediction.
    """
    if isinstance(truth, str | PathLike) and isinstance(predictions, str | PathLike):
        content = read_document(Path(truth))
        if categories is None:
            categories, _ = categories_from_rows(content.get("categories"), str(truth), DataError)
        true = read_annotations(content, Path(truth), truth_masks, categories)
        document = read_document(Path(predictions))
        predicted = read_annotations(document, Path(predictions), prediction_masks, categories)
        predicted = under_ids_of_truth(content, document, predicted)
        pairs, total = read_pairs(true, predicted), len(true)
    elif isinstance(truth, str | PathLike) or isinstance(predictions, str | PathLike):
        raise DataError("Truth and predictions must both be JSON files, or both sequences of (id map, segments).")
    else:
        if categories is None:
            raise DataError("Arrays carry no class table: give `categories`, a list of Category, as well.")
        if len(truth) != len(predictions):
            raise DataError(f"There are {len(truth)} truth images, {len(predictions)} predictions; give one for each.")
        pairs = ((f"image {i}", *pair) for i, pair in enumerate(zip(truth, predictions, strict=True)))
        total = len(truth)
    quality = PanopticQuality(categories)
    if details is not None:
        details.open(categories)
    for name, true_image, predicted_image in tqdm(pairs, "PQ", total, unit="image", disable=None if progress else True):
        found = find_matches(*quality.tabulate(true_image, predicted_image, name))
        quality.counts += found.counts(len(categories))
        if details is not None:
            sides = (true_image[0], found.truth.row_of()), (predicted_image[0], found.predicted.row_of())
            details.add_segments(name, found, scores_of(predicted_image[1]), details.paints(*sides))
    return quality.result()


def scores_of(segments: Sequence[SegmentLike]) -> list[float | None]:
    """The scores of predicted segments, None where they are not stated."""
    scores = [row.get("score") if isinstance(row, Mapping) else getattr(row, "score", None) for row in segments]
    return [float(score) if isinstance(score, int | float) else None for score in scores]


def _group(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    present = [row for row in rows if row["pq"] is not None]
    return {**{key: mean(row[key] for row in present) for key in ("pq", "sq", "rq")}, "n": len(present)}
