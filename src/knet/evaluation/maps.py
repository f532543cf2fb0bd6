"""Maps of pixels as the metrics take them: checked, and counted by runs of equal pixels."""

import numpy as np

from knet.errors import DataError


def check_map(values: np.ndarray, name: str, what: str = "a label map is") -> np.ndarray:
    """The map itself, as an (H,W) array of integers; an error begins with `name` and `what`."""
    values = np.asarray(values)
    if values.ndim != 2 or values.dtype.kind not in "iu" or values.size == 0:
        raise DataError(f"{name}: {what} an (H,W) integer array, not {values.shape} {values.dtype}.")
    return values


def check_size(truth: np.ndarray, predicted: np.ndarray, name: str) -> None:
    """Refuses maps that differ in size; the error begins with `name`."""
    if truth.shape != predicted.shape:
        raise DataError(
            f"{name}: the prediction has {predicted.shape} pixels (height, width), the truth {truth.shape}; "
            "write predictions at the size of the original image."
        )


def runs(*maps: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Runs of pixels in which no map changes: maps of equal size -> (R,) values of each map, and (R,) lengths

    Neighbouring pixels mostly have the same ids, so it is much faster to count runs than pixels.
    """
    flat = [values.ravel() for values in maps]
    changes = flat[0][1:] != flat[0][:-1]
    for values in flat[1:]:
        changes |= values[1:] != values[:-1]
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    return [values[starts] for values in flat], np.diff(starts, append=flat[0].size)
