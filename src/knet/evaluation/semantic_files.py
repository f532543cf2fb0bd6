"""Label maps as the metrics read them: arrays, or files of truth and predictions that are paired by name."""

from collections import Counter
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from knet.data.files.io import read_labels
from knet.errors import DataError, members, shown
from knet.evaluation.maps import check_map
from knet.files import is_dir

LabelMap = np.ndarray | str | PathLike[str]
"""A label map: an integer array (H,W), or the path of the single-channel PNG that holds it."""

_OF_KNET = "_semantic"  # what `knet predict` adds to the name of an image


def pair_maps(
    truth: LabelMap | Sequence[LabelMap], predictions: LabelMap | Sequence[LabelMap], cityscapes: bool
) -> list[tuple[str, LabelMap, LabelMap]]:
    """The name, the truth and the prediction of each image."""
    if isinstance(truth, str | PathLike) and isinstance(predictions, str | PathLike) and is_dir(Path(truth)):
        pattern, parts = ("*_labelIds.png", 3) if cityscapes else ("*.png", None)
        pairs = pair_files(
            Path(truth), pattern, Path(predictions), "*.png", lambda path: "_".join(path.stem.split("_")[:parts])
        )
        return [(str(path), path, found) for path, found in pairs]
    true, predicted = _listed(truth), _listed(predictions)
    if len(true) != len(predicted) or not true:
        raise DataError(f"There are {len(true)} truth images and {len(predicted)} predictions; give one for each.")
    names = [f"image {i}" if isinstance(item, np.ndarray) else str(item) for i, item in enumerate(true)]
    return list(zip(names, true, predicted, strict=True))


def pair_files(
    truth: Path, truth_pattern: str, predictions: Path, pattern: str, key: Callable[[Path], str]
) -> list[tuple[Path, Path]]:
    """The truth and the prediction of each image, from two folders that are searched recursively.

    Patterns are such as "*.png"; `key` gives what the names of an image's two files have in common.
    """
    true = sorted(truth.rglob(truth_pattern))
    if not true:
        raise DataError(f"{truth} holds no {truth_pattern}; give the folder with the truth, such as gtFine/val.")
    names = Counter(map(key, true))
    by_key: dict[str, list[Path]] = {}
    for path in sorted(predictions.rglob(pattern)):
        by_key.setdefault(key(path), []).append(path)
    pairs: list[tuple[Path, Path]] = []
    for path in true:
        found = by_key.get(key(path)) or by_key.get(key(path) + _OF_KNET, [])
        if len(found) > 1:  # `knet predict` may have written other formats beside it
            found = [item for item in found if holds_ids(item)] or found
        if len(found) > 1 or names[key(path)] > 1:  # the same name in several folders: the same place is meant
            same = [item for item in found if item.relative_to(predictions).parent == path.relative_to(truth).parent]
            found = same if same or names[key(path)] > 1 else found
        if not found and names[key(path)] > 1:
            raise DataError(
                f"{predictions} holds no prediction for {path}; as {names[key(path)]} images are called {key(path)}, "
                f"put those of each folder into one of the same name, such as {path.relative_to(truth).parent}."
            )
        if len(found) != 1:
            count, sought = f"{len(found)} predictions" if found else "no prediction", f"{pattern} of {key(path)}"
            raise DataError(f"{predictions} holds {count} for {path} (looked for {sought}); one is needed.")
        pairs.append((path, found[0]))
    return pairs


def holds_ids(source: LabelMap) -> bool:
    """Whether a label map is one that `knet predict` wrote, whose pixels are category ids in every data set."""
    return isinstance(source, str | PathLike) and Path(source).stem.endswith(_OF_KNET)


def instance_maps(truth: Sequence[LabelMap], given: LabelMap | Sequence[LabelMap] | None) -> list[LabelMap]:
    """The instance map of each truth image, or none at all; without `given`, those beside the truth."""
    maps: list[LabelMap] = []
    if given is not None:
        maps = _listed(given)
    elif not any(isinstance(item, np.ndarray) for item in truth):
        beside = [Path(str(item).replace("_labelIds.png", "_instanceIds.png")) for item in truth]
        maps = [path for path, item in zip(beside, truth, strict=True) if path != Path(str(item)) and path.is_file()]
    if len(maps) not in (0, len(truth)):
        raise DataError(f"There are {len(maps)} instance maps for {len(truth)} truth images; give all or none.")
    return maps


def _listed(maps: LabelMap | Sequence[LabelMap]) -> list[LabelMap]:
    kinds = np.ndarray | str | PathLike
    found = (maps,) if isinstance(maps, kinds) else members(maps)
    if found is None or not all(isinstance(one, kinds) for one in found):
        raise DataError(f"{shown(maps)} is no label map; give arrays (H,W) or paths of PNGs, one or a list.")
    return list(found)


def read_map(source: LabelMap, name: str) -> np.ndarray:
    """A label map as an (H,W) integer array, which errors call `name`; a palette PNG gives its indices."""
    return check_map(source, name) if isinstance(source, np.ndarray) else read_labels(Path(source))
