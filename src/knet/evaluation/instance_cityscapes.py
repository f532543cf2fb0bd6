"""Cityscapes' average precision (AP) of single objects: how well objects are found, ranked by confidence.

Cordts et al., CVPR 2016, section 4.2. The numbers equal those of cityscapesScripts, also where its code decides what
the paper leaves open:

* A prediction finds an object of its class if their IoU is above the threshold (0.50, 0.55, ... 0.95), strictly. Of
  several that find the same object the most confident one counts, the others are wrong.
* Objects of fewer than 100 pixels and group regions (ids below 1000) need not be found, and finding them is not wrong.
* An unmatched prediction is forgiven if a share above the threshold of it lies on void, on group regions and on small
  objects of its class (a group region of fewer than 100 pixels weighs twice).
* The area under the precision-recall curve is summed in steps, each as wide as half the recall between its neighbours.
* A class without objects has no AP; one with objects but without predictions has AP 0. Where all predictions of a
  class are forgiven, so that nothing is left to rank, the official code crashes; here the class then has no AP.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from knet.calls import named_options
from knet.data.cityscapes_labels import CITYSCAPES_EVALUATED, CITYSCAPES_NAMES
from knet.data.files.io import read_gray, read_labels
from knet.errors import DataError, shown
from knet.evaluation.means import mean
from knet.evaluation.semantic_files import pair_files
from knet.parse import ParseError, read_lines

CITYSCAPES_THINGS = (24, 25, 26, 27, 28, 31, 32, 33)  # raw ids of the evaluated classes that have single objects
SMALLEST = 100  # pixels of an object that has to be found

_NOT_EVALUATED = [label for label in range(len(CITYSCAPES_NAMES)) if label not in CITYSCAPES_EVALUATED]
_THRESHOLDS = np.arange(0.5, 1.0, 0.05)  # the official floats, rounding and all


@dataclass(slots=True)
class _Ranking:
    """A class at one threshold: confidences of right and wrong predictions, and the number of objects not found."""

    right: list[float] = field(default_factory=list)
    wrong: list[float] = field(default_factory=list)
    missed: int = 0


@dataclass(slots=True)
class _ClassCount:
    objects: int = 0
    predictions: int = 0
    rankings: list[_Ranking] = field(default_factory=lambda: [_Ranking() for _ in _THRESHOLDS])


@named_options
def cityscapes_instance_ap(
    truth_folder: str | PathLike[str], predictions_folder: str | PathLike[str], *, progress: bool = False
) -> dict[str, Any]:
    """AP of predictions in the format of the Cityscapes server.

    The distance variants AP100m and AP50m, which need depth maps, are not computed.

    Args:
        truth_folder: searched recursively for `*_instanceIds.png`.
        predictions_folder: searched recursively for one text file `<city>_<sequence>_<frame>*.txt` for each image, with
            lines "mask.png label confidence": the mask's path relative to the text file (any pixel above 0 belongs to
            it), raw label id, any number.
        progress: whether a progress bar is shown.

    Returns:
        `{"ap", "ap50", "classes": {label id: {"name", "ap", "ap50", "objects", "predictions"}}}`, fractions 0..1. `ap`
        is the mean over the ten thresholds, `ap50` the value at 0.5, `objects` the number that had to be found. None
        where there is nothing to measure; such classes are left out of the mean.

    Raises:
        DataError: a file is missing, damaged or of another size, an image has no prediction file or several, or a line
            is malformed, has an unknown label, or names a mask outside the folder.
    """
    counts = {label: _ClassCount() for label in CITYSCAPES_THINGS}
    pairs = pair_files(Path(truth_folder), "*_instanceIds.png", Path(predictions_folder), "*.txt", _image_of)
    for truth, listing in tqdm(pairs, "AP", unit="image", disable=None if progress else True):
        _count_image(truth, _read_listing(listing, Path(predictions_folder)), counts)
    classes: dict[int, dict[str, Any]] = {}
    for label, count in counts.items():
        values = _class_ap(count)
        ap, ap50 = (None, None) if values is None else (float(values.mean()), float(values[0]))
        classes[label] = {"name": CITYSCAPES_NAMES[label], "ap": ap, "ap50": ap50}
        classes[label] |= {"objects": count.objects, "predictions": count.predictions}
    return {**{key: mean(row[key] for row in classes.values()) for key in ("ap", "ap50")}, "classes": classes}


def _image_of(path: Path) -> str:
    city, sequence, frame = (*path.stem.split("_"), "", "")[:3]
    return f"{city}_{sequence}_{frame[:6]}"


def _read_listing(listing: Path, root: Path) -> dict[Path, tuple[int, float]]:
    """The masks of one image with their raw label ids and confidences; of a mask's lines the last counts (official)."""
    try:
        lines = read_lines(listing)
    except (OSError, ParseError) as error:
        raise DataError(f"The prediction file {listing} cannot be read: {error}.") from error
    masks: dict[Path, tuple[int, float]] = {}
    for number, line in enumerate(lines, 1):
        try:
            name, label_text, confidence_text = line.split(" ")
            label, confidence = int(float(label_text)), float(confidence_text)
            path = (listing.parent / name.replace("\\", "/")).resolve()  # a ValueError for what is no name at all
        except (ValueError, OverflowError, OSError, RuntimeError) as error:  # the last two of links in a circle
            raise DataError(f"{listing}, line {number}: {shown(line)} is not 'mask.png labelId confidence'.") from error
        if not path.is_relative_to(root.resolve()) or Path(name).is_absolute():
            raise DataError(f"{listing}, line {number}: the mask {name} lies outside {root}; use relative paths in it.")
        if not 0 <= label < len(CITYSCAPES_NAMES) or confidence != confidence:
            raise DataError(
                f"{listing}, line {number}: label {label} and confidence {confidence}; use raw label ids "
                f"0..{len(CITYSCAPES_NAMES) - 1} and numbers."
            )
        masks[path] = label, confidence
    return masks


def _count_image(truth: Path, masks: Mapping[Path, tuple[int, float]], counts: dict[int, _ClassCount]) -> None:
    id_map = _read_instances(truth)
    sizes = np.bincount(id_map.ravel())
    ids = np.flatnonzero(sizes)
    columns = (np.cumsum(sizes > 0) - 1)[id_map]
    predicted: dict[int, list[tuple[float, np.ndarray]]] = {label: [] for label in counts}
    for path, (label, confidence) in masks.items():
        if label in counts:
            under = columns[_read_mask(path, id_map.shape)]
            if under.size:
                predicted[label].append((confidence, np.bincount(under, minlength=len(ids))))
    for label, count in counts.items():
        pixels = np.array([row for _, row in predicted[label]], np.int64).reshape(-1, len(ids))
        confidences = np.array([confidence for confidence, _ in predicted[label]])
        _count_class(count, label, ids, sizes[ids], pixels, confidences)


def _count_class(
    count: _ClassCount, label: int, ids: np.ndarray, sizes: np.ndarray, pixels: np.ndarray, confidences: np.ndarray
) -> None:
    """Adds one image to a class: (I,) ids and sizes of the truth, (P,I) their pixels under each mask, (P,)."""
    of_class = np.where(ids < 1000, ids, ids // 1000) == label
    areas, shared = sizes[of_class], pixels[:, of_class]
    predicted_areas = pixels.sum(axis=1)
    group, small = ids[of_class] < 1000, areas < SMALLEST
    required = ~group & ~small
    iou = shared / (areas + predicted_areas[:, None] - shared)
    void = pixels[:, np.isin(ids, _NOT_EVALUATED)].sum(axis=1)
    forgiven = (void + shared @ (group.astype(np.int64) + small)) / predicted_areas
    count.objects += int(required.sum())
    count.predictions += len(confidences)
    for threshold, ranking in zip(_THRESHOLDS, count.rankings, strict=True):
        hit = iou > threshold
        for column in np.flatnonzero(required):
            found = sorted(confidences[hit[:, column]].tolist())
            ranking.missed += not found
            ranking.right += found[-1:]
            ranking.wrong += found[:-1]
        ranking.wrong += confidences[~hit.any(axis=1) & (forgiven <= threshold)].tolist()


def _class_ap(count: _ClassCount) -> np.ndarray | None:
    """(10,) AP at each threshold; None where there is none."""
    if not count.objects:
        return None
    if not count.predictions:
        return np.zeros(len(_THRESHOLDS))
    if any(not ranking.right and not ranking.wrong for ranking in count.rankings):
        return None
    return np.array([_average_precision(ranking) for ranking in count.rankings])


def _average_precision(ranking: _Ranking) -> float:
    """The area under the precision-recall curve, whose points are the confidences, ascending."""
    right, wrong = np.sort(ranking.right), np.sort(ranking.wrong)
    confidences = np.unique(np.concatenate([right, wrong]))
    tp = len(right) - np.searchsorted(right, confidences)
    fp = len(wrong) - np.searchsorted(wrong, confidences)
    precision = tp / (tp + fp)
    recall = np.append(tp / (len(right) + ranking.missed), 0.0)
    around = np.concatenate([recall[:1], recall, [0.0]])
    widths = (around[:-2] - around[2:]) / 2
    return float(np.append(precision, 1.0) @ widths)


def _read_instances(path: Path) -> np.ndarray:
    ids = read_labels(path)
    last = int(ids.max())
    if ids.min() < 0 or (last // 1000 if last >= 1000 else last) >= len(CITYSCAPES_NAMES):
        raise DataError(
            f"{path}: instance ids run from {ids.min()} to {last}; Cityscapes' are raw label ids (up to 33), or "
            "label id * 1000 + number."
        )
    return ids


def _read_mask(path: Path, size: tuple[int, ...]) -> np.ndarray:
    mask = read_gray(path)
    if mask.shape != size:
        raise DataError(f"The mask {path} has {mask.shape} pixels (height, width), its image {size}; write full masks.")
    return mask != 0
