"""From maps on a small grid to maps on an image's pixels: bilinear resizing, as a table for each axis.

The tables hold the positions of torch's bilinear resize (align_corners=False); a chain of resizes with crops between
becomes one table. Whoever needs a pixel's value computes it from them in float64, in the same order of operations, and
so gets the same number, for whole maps and for single pixels, on a CPU and on a GPU. (The last digits of torch's own
float32 resize depend on the shape and the number of threads.)
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)  # so that what is made of it can be cached by its identity
class Axis:
    """One axis: pixel i is the sum over t of `weight[i, t]` x source[`index[i, t]`]."""

    index: np.ndarray  # (n,T) int32, ascending for each pixel, except that an index of weight 0 repeats another
    weight: np.ndarray  # (n,T) float64


@dataclass(frozen=True, slots=True)
class Stretch:
    """Both axes."""

    rows: Axis
    columns: Axis

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result."""
        return len(self.rows.index), len(self.columns.index)

    def __call__(self, map_: Tensor) -> Tensor:
        """(h,w) -> (H,W) float64"""
        map_ = map_.double()
        for axis in (self.rows, self.columns):  # each pass resizes the first axis and swaps the two
            index, weight = (torch.from_numpy(table).to(map_.device) for table in (axis.index, axis.weight))
            total = map_[index[:, 0]] * weight[:, :1]
            for t in range(1, index.shape[1]):
                total += map_[index[:, t]] * weight[:, t : t + 1]
            map_ = total.T
        return map_


@functools.lru_cache(maxsize=16)  # the images of a run have few sizes
def stretch(source: tuple[int, int], *steps: tuple[int, int], crop: tuple[int, int] | None = None) -> Stretch:
    """A chain of resizes from a map's (height, width) to those of `steps`, one after the other; none leaves it as is.

    Of the map before the last step only the upper left part of the size `crop` is used; None takes all.
    """
    crop = crop or (steps[-2] if len(steps) > 1 else source)
    return Stretch(*(_chain(source[axis], [step[axis] for step in steps], crop[axis]) for axis in (0, 1)))


def _chain(source: int, steps: list[int], crop: int) -> Axis:
    index, weight = np.arange(source)[:, None], np.ones((source, 1))
    for number, size in enumerate(steps, start=1):
        if number == len(steps):
            index, weight = index[:crop], weight[:crop]
        lower, upper, share = _positions(len(index), size)
        index = np.concatenate((index[lower], index[upper]), axis=1)
        weight = np.concatenate((weight[lower] * (1 - share)[:, None], weight[upper] * share[:, None]), axis=1)
        index, weight = _joined(index, weight)
    return Axis(np.ascontiguousarray(index, np.int32), np.ascontiguousarray(weight))


def _positions(source: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both source values of each pixel and the share of the second, rounded to float32 where torch rounds."""
    one, half = np.float32(1), np.float32(0.5)
    position = np.float32(source) / np.float32(size) * (np.arange(size, dtype=np.float32) + half) - half
    position = np.maximum(position, 0)
    lower = np.minimum(position.astype(np.int64), source - 1)
    share = np.clip(position - lower.astype(np.float32), 0, one)
    return lower, np.minimum(lower + 1, source - 1), share.astype(np.float64)


def _joined(index: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same table with ascending indices, each once, and without columns that no pixel needs."""
    index = np.where(weight == 0, index[:, :1], index)
    order = index.argsort(axis=1, kind="stable")
    index, weight = (np.take_along_axis(table, order, 1) for table in (index, weight))
    first = np.concatenate((np.ones((len(index), 1), bool), index[:, 1:] != index[:, :-1]), axis=1)
    place = first.cumsum(axis=1) - 1
    joined_index, joined = np.repeat(index[:, :1], index.shape[1], axis=1), np.zeros_like(weight)
    pixel = np.arange(len(index))[:, None]
    joined_index[pixel, place] = index
    np.add.at(joined, (pixel, place), weight)
    needed = max(int(place.max()) + 1, 1)
    return joined_index[:, :needed], joined[:, :needed]
