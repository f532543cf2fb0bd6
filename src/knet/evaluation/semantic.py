"""Semantic segmentation: intersection over union (IoU) of each class, its mean, and Cityscapes' instance-wise nIoU.

One confusion matrix holds all of it. Evaluators differ only in what they do with void, so a protocol says that:

* "mean": truth void is ignored; a labelled pixel that is predicted as void is missed (as in ADE20K's evaluator).
* "mapillary": a labelled pixel that is predicted as void, or as a class that is not evaluated, does not count at all.
* "cityscapes": as "mean" over the 19 evaluated classes, with the scores of the seven categories and with nIoU.
* "ade20k": as "mean", which here is mmsegmentation's figure, and beside it those of the official evaluator
  (CSAILVision/sceneparsing), for which a class that occurs nowhere has IoU 0, not none: over the whole validation
  set, where all 150 classes occur, the two agree.

Everywhere else a class that occurs neither in the truth nor (on labelled pixels) in the predictions is left out of the
mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from knet.calls import named_options
from knet.data.categories import LARGEST_VALUE, load_table
from knet.data.cityscapes_labels import CITYSCAPES_EVALUATED, CITYSCAPES_LABELS, CITYSCAPES_NAMES
from knet.errors import ConfigError, DataError, members, require, shown
from knet.evaluation.details import Details, unknown_table
from knet.evaluation.maps import check_map, check_size
from knet.evaluation.means import mean
from knet.evaluation.semantic_files import LabelMap, holds_ids, instance_maps, pair_maps, read_map
from knet.evaluation.semantic_ids import CategoryIds
from knet.structures import Category

PROTOCOLS = ("mean", "mapillary", "cityscapes", "ade20k")

_CATEGORY_OF = tuple(category for category, names in CITYSCAPES_LABELS.items() for _ in names)
# Mean size of an instance over the data set, in pixels, by label id: the numbers that the official nIoU uses.
_MEAN_SIZES = {24: 3462.4756337644, 25: 3930.4788056518, 26: 12794.0202738185, 27: 27855.1264367816}
_MEAN_SIZES |= {28: 35732.1511111111, 31: 67583.7075812274, 32: 6298.7200839748, 33: 4672.3249222261}
_RAW_LABELS = {  # what a message says where maps hold other numbers
    "cityscapes": "Cityscapes is evaluated on raw label ids 0..{last} (road is 7)",
    "ade20k": "ADE20K is evaluated on the values of its files, 0..{last} (0: other, wall is 1)",
}
_INSTANCE_CATEGORIES = ("human", "vehicle")
_NOT_EVALUATED = (29, 30)  # caravan and trailer have instances, but no score


class ConfusionMatrix:
    """Counts pixels by true and predicted class, image by image, in memory that does not grow.

    `counts` (K, K+1) int64: rows are true classes, columns predicted ones, the last column is void. Matrices can be
    added: with `merge`, or by summing `counts` over processes.

    Args:
        classes: their number K, 1 or more.

    Raises:
        DataError: there is none.
    """

    def __init__(self, classes: int) -> None:
        if classes < 1:
            raise DataError(f"A confusion matrix needs at least one class, not {classes}.")
        self.counts = np.zeros((classes, classes + 1), np.int64)

    def add(self, truth: np.ndarray, predicted: np.ndarray, *, name: str = "the image") -> None:
        """Counts one image.

        Args:
            truth, predicted: (H,W) integer labels 0..K-1; every other value is void.
            name: what errors call the image.

        Raises:
            DataError: the maps are not two-dimensional integer arrays of one size.
        """
        classes, columns = self.counts.shape
        truth, predicted = check_map(truth, f"{name} (truth)"), check_map(predicted, f"{name} (prediction)")
        check_size(truth, predicted, name)
        labelled = (truth >= 0) & (truth < classes)
        cells, found = truth[labelled].astype(np.int64), predicted[labelled].astype(np.int64)
        found[(found < 0) | (found >= classes)] = classes
        cells *= columns
        cells += found
        self.counts += np.bincount(cells, minlength=self.counts.size).reshape(self.counts.shape)

    def merge(self, other: ConfusionMatrix) -> None:
        """Adds what another matrix over the same classes has counted.

        Raises:
            DataError: it has another number of classes.
        """
        if self.counts.shape != other.counts.shape:
            both = f"Confusion matrices of {len(self.counts)} and {len(other.counts)} classes"
            raise DataError(f"{both} cannot be merged; count both over the same class table.")
        self.counts += other.counts

    def group(self, groups: Sequence[Sequence[int]]) -> ConfusionMatrix:
        """The matrix over groups of classes; classes in no group become void, in the truth and in the predictions."""
        into = np.zeros((self.counts.shape[1], len(groups) + 1), np.int64)
        into[:, -1] = 1
        for index, group in enumerate(groups):
            into[list(group), index], into[list(group), -1] = 1, 0
        grouped = ConfusionMatrix(len(groups))
        grouped.counts = into[:-1, :-1].T @ self.counts @ into
        return grouped

    def iou(self) -> np.ndarray:
        """(K,) float64 IoU of each class, 0..1; NaN for a class without a true and without a predicted pixel."""
        hits = np.diagonal(self.counts)
        union = self.counts.sum(axis=1) + self.counts[:, :-1].sum(axis=0) - hits
        return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)

    def pixel_accuracy(self) -> float:
        """The share of labelled pixels whose class is right, 0..1; NaN if there are none."""
        pixels = self.counts.sum()
        return float(np.trace(self.counts) / pixels) if pixels else float("nan")


class _InstanceScores:
    """Cityscapes' nIoU: every instance weighs as much as an average one of its class (Cordts et al., CVPR 2016).

    The true and the missed pixels of an instance are weighted by (mean size of the class) / (size of the instance);
    false positives, counted by the confusion matrix over the raw labels, are not. As in the official code, an
    instance's category is also found where a label of it that is not evaluated (caravan, trailer) is predicted.
    """

    def __init__(self) -> None:
        # Weighted hits and weighted size of each label and category.
        keys: tuple[int | str, ...] = (*_MEAN_SIZES, *_INSTANCE_CATEGORIES)
        self.sums = {key: np.zeros(2) for key in keys}

    def add(self, instances: np.ndarray, predicted: np.ndarray, name: str) -> None:
        """(H,W) integer instance ids (label id * 1000 + number; up to 1000: no instance), (H,W) raw label ids."""
        instances = check_map(instances, f"{name} (instances)")
        check_size(instances, predicted, f"{name} (instances)")
        single = instances > 1000
        ids, found = instances[single].astype(np.int64), predicted[single].astype(np.int64)
        sizes, hits = np.bincount(ids), np.bincount(ids, found == ids // 1000)
        category_hits = {group: np.bincount(ids, np.isin(found, _members(group))) for group in _INSTANCE_CATEGORIES}
        for instance in np.flatnonzero(sizes).tolist():
            label = instance // 1000
            if label in _NOT_EVALUATED:
                continue
            if label not in _MEAN_SIZES:
                raise DataError(f"{name}: instance id {instance} is of label {label}, which has no instances.")
            weight = _MEAN_SIZES[label] / sizes[instance]
            group = _CATEGORY_OF[label]
            self.sums[label] += weight * np.array([hits[instance], sizes[instance]])
            self.sums[group] += weight * np.array([category_hits[group][instance], sizes[instance]])

    def niou(self, of: int | str, matrix: ConfusionMatrix) -> float | None:
        """nIoU of a label id or a category, 0..1; None for an absent one and for one without instances."""
        if of not in self.sums:
            return None
        hits, size = self.sums[of]
        labels = [of] if isinstance(of, int) else _members(of)
        others = [label for label in CITYSCAPES_EVALUATED if label not in labels]
        union = size + matrix.counts[np.ix_(others, labels)].sum()
        return float(hits / union) if union else None


@named_options
def mean_iou(
    truth: LabelMap | Sequence[LabelMap],
    predictions: LabelMap | Sequence[LabelMap],
    *,
    classes: Mapping[int, str] | Sequence[Category] | Sequence[str] | None = None,
    protocol: str = "mean",
    instances: LabelMap | Sequence[LabelMap] | None = None,
    ids: Sequence[int] | None = None,
    progress: bool = False,
    details: Details | None = None,
) -> dict[str, Any]:
    """IoU of each class and its mean over all images.

    Args:
        truth, predictions: both folders of single-channel PNGs (searched recursively, paired by path or file name), or
            both a label map (array or PNG), or equally long sequences of those.
        classes: which pixel values are classes: {value: name}, Category rows (their `id`), or names (0, 1, ...); every
            other value is void. "cityscapes" has its own classes, "ade20k" the pixel values 1..150 (0: other) unless
            some are given; the other protocols need them.
        protocol: one of `PROTOCOLS`, see the top of this file. "cityscapes" takes `*_labelIds.png` and predictions with
            raw label ids, paired by the file names' `city_sequence_frame`.
        ids: the category ids of `classes`, where they are not the pixel values; they are the pixels of `*_semantic.png`
            as `knet predict` writes them. Where semantic_classes.json lies beside those, classes are found by name.
        instances: instance maps for Cityscapes' nIoU; None takes the `*_instanceIds.png` beside the truth, if any.
        progress: whether a progress bar is shown.
        details: gets what a report shows beside the figures.

    Returns:
        `{"miou", "pixel_accuracy", "classes": {value: {"name", "iou", "pixels"}}}`, fractions 0..1, None where nothing
        was counted; `pixels` are the class's labelled ones. "cityscapes" adds `"mniou"`, each class's `"niou"`,
        `"categories": {name: {"iou", "niou"}}`, and their means `"category_miou"` and `"category_mniou"`. "ade20k" adds
        `"mmsegmentation": {"miou", "macc", "pixel_accuracy"}` and `"sceneparsing": {"miou", "pixel_accuracy",
        "score"}`: `macc` is the mean class accuracy, `score` the mean of mIoU and pixel accuracy.

    Raises:
        DataError: a file is missing or damaged, sizes differ, a label is unknown, or an option is not the protocol's.
    """
    if not isinstance(protocol, str) or protocol not in PROTOCOLS:
        raise DataError(f"There is no protocol {shown(protocol)} for mean IoU; use {', '.join(PROTOCOLS)}.")
    cityscapes = protocol == "cityscapes"
    if protocol == "ade20k" and classes is None:
        ade20k = load_table("ade20k")
        classes = {value: c.name for value, c in zip(ade20k.label_values, ade20k.categories, strict=True)}
    if cityscapes == (classes is not None):
        fault = "has its own classes; leave `classes` out" if cityscapes else "needs `classes`, {pixel value: name}"
        raise DataError(f"The protocol {shown(protocol)} {fault}.")
    if instances is not None and not cityscapes:
        raise DataError(f"`instances` serve nIoU, which the protocol {shown(protocol)} does not have; leave them out.")
    table = _table(classes if classes is not None else CITYSCAPES_NAMES)
    of_knet = CategoryIds(table, ids)
    matrix, scores = ConfusionMatrix(len(table)), _InstanceScores()
    if details is not None:
        judged = {label: CITYSCAPES_NAMES[label] for label in CITYSCAPES_EVALUATED} if cityscapes else table
        details.open(unknown_table(judged))
    images = pair_maps(truth, predictions, cityscapes)
    numbered = instance_maps([image[1] for image in images], instances) if cityscapes else []
    bar = tqdm(images, "mIoU", unit="image", disable=None if progress else True)
    for index, (name, true, predicted) in enumerate(bar):
        truth_map, predicted_map = read_map(true, f"{name} (truth)"), read_map(predicted, f"{name} (prediction)")
        if protocol in _RAW_LABELS:
            _check_labels(truth_map, f"{name} (truth)", max(table), _RAW_LABELS[protocol])
            if not holds_ids(predicted):
                _check_labels(predicted_map, f"{name} (prediction)", max(table), _RAW_LABELS[protocol])
        if holds_ids(predicted):
            predicted_map = of_knet.values(predicted_map, Path(str(predicted)))
        labels = (_labels(truth_map, list(table)), _labels(predicted_map, list(table)))
        image = ConfusionMatrix(len(table))
        image.add(*labels, name=name)
        matrix.merge(image)
        if details is not None:
            rows = {label: row for row, label in enumerate(CITYSCAPES_EVALUATED if cityscapes else range(len(table)))}
            draw = details.paints((labels[0], rows), (labels[1], rows))
            details.add_pixels(name, _evaluated(image, protocol).counts, draw)
        if numbered:
            scores.add(read_map(numbered[index], f"{name} (instances)"), predicted_map, name)
    if cityscapes:
        return _cityscapes_result(matrix, scores if numbered else None)
    return semantic_result(_evaluated(matrix, protocol), table) | (ade20k_means(matrix) if protocol == "ade20k" else {})


def _evaluated(matrix: ConfusionMatrix, protocol: str) -> ConfusionMatrix:
    """What of the pixels a protocol counts."""
    if protocol == "cityscapes":
        return matrix.group([[label] for label in CITYSCAPES_EVALUATED])
    if protocol == "mapillary":
        matrix.counts[:, -1] = 0
    return matrix


def semantic_result(matrix: ConfusionMatrix, table: Mapping[int, str]) -> dict[str, Any]:
    """A matrix over the classes of `table` {pixel value: name} as `mean_iou` returns it, fractions 0..1."""
    iou, pixels = matrix.iou().tolist(), matrix.counts.sum(axis=1).tolist()
    classes = {
        value: {"name": name, "iou": _number(iou[row]), "pixels": pixels[row]}
        for row, (value, name) in enumerate(table.items())
    }
    return {"miou": mean(iou), "pixel_accuracy": _number(matrix.pixel_accuracy()), "classes": classes}


def ade20k_means(matrix: ConfusionMatrix) -> dict[str, dict[str, float | None]]:
    """The means by both conventions, under the names of the evaluators."""
    iou, pixels = matrix.iou(), matrix.counts.sum(axis=1)
    hits = np.diagonal(matrix.counts)
    recall = np.divide(hits, pixels, out=np.full(len(hits), np.nan), where=pixels > 0)
    accuracy, official = _number(matrix.pixel_accuracy()), float(np.nan_to_num(iou).mean())
    score = None if accuracy is None else (accuracy + official) / 2
    return {
        "mmsegmentation": {"miou": mean(iou.tolist()), "macc": mean(recall.tolist()), "pixel_accuracy": accuracy},
        "sceneparsing": {"miou": official, "pixel_accuracy": accuracy, "score": score},
    }


def _cityscapes_result(matrix: ConfusionMatrix, scores: _InstanceScores | None) -> dict[str, Any]:
    """The result from the matrix over all 34 raw labels."""
    evaluated = {label: CITYSCAPES_NAMES[label] for label in CITYSCAPES_EVALUATED}
    result = semantic_result(_evaluated(matrix, "cityscapes"), evaluated)
    for label, row in result["classes"].items():
        row["niou"] = scores.niou(label, matrix) if scores else None
    names = [name for name in CITYSCAPES_LABELS if name != "void"]
    groups = [[label for label in _members(name) if label in evaluated] for name in names]
    result["categories"] = {
        name: {"iou": _number(iou), "niou": scores.niou(name, matrix) if scores else None}
        for name, iou in zip(names, matrix.group(groups).iou().tolist(), strict=True)
    }
    for prefix, rows in (("", result["classes"]), ("category_", result["categories"])):
        for key in ("iou", "niou"):
            result[f"{prefix}m{key}"] = mean(row[key] for row in rows.values())
    return result


def _members(category: str) -> list[int]:
    return [label for label, of in enumerate(_CATEGORY_OF) if of == category]


def _table(classes: Mapping[int, str] | Sequence[Category] | Sequence[str]) -> dict[int, str]:
    rows: Iterable[tuple[int, Category | str]]
    listed = classes if isinstance(classes, Mapping) else members(classes)
    if listed is None:
        raise ConfigError(f"The classes cannot be {shown(classes)}; give names, or a table of pixel values and names.")
    rows = listed.items() if isinstance(listed, Mapping) else enumerate(listed)
    table: dict[int, str] = {}
    for number, row in rows:
        require(Category | str, "a name or a knet.Category", **{"classes": row})
        require(Integral, "a pixel value", **{"classes": number})
        value, name = (row.id, row.name) if isinstance(row, Category) else (number, row)
        if value in table or not 0 <= value <= LARGEST_VALUE:
            raise DataError(
                f"The class {shown(name)} has the pixel value {shown(value)}; give each its own, 0 to {LARGEST_VALUE}."
            )
        table[value] = name
    return table


def _labels(values: np.ndarray, table: Sequence[int]) -> np.ndarray:
    """The row of each pixel's value in the table, -1 for void: (H,W) integers -> (H,W) int16"""
    row_of = np.full(max(table) + 2, -1, np.int16)  # the last entry stands for all values that are not in the table
    row_of[list(table)] = np.arange(len(table))
    outside = (values < 0) | (values > max(table))
    return row_of[np.where(outside, len(row_of) - 1, values.astype(np.int64))]


def _check_labels(values: np.ndarray, name: str, last: int, rule: str) -> None:
    if values.min() < 0 or values.max() > last:
        raise DataError(
            f"{name}: pixel values run from {values.min()} to {values.max()}; {rule.format(last=last)}, not on "
            "training labels."
        )


def _number(value: float) -> float | None:
    return None if value != value else float(value)
