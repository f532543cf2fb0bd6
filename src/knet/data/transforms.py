"""RT-K-Net's training augmentation: random size, crop around an object, colours, flip.

Functions take the values that are drawn, so each can be checked by itself; `TrainAugmentation` draws them. Images are
(3,H,W) uint8 RGB tensors, id maps (H,W) int32 tensors with 0 = void. Source: RT-K-Net (Schoen et al., IV 2023,
sections III-C, IV-B) and its official code; where they differ the code is followed and the place says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from knet.data.color import random_color
from knet.errors import ConfigError
from knet.structures import Sample, Target

CROP_TRIES = 10
MINIMUM_PIXELS = 2
PAD_VALUE = 128


class Window(NamedTuple):
    """A part of an image in pixels; bottom and right are exclusive."""

    top: int
    left: int
    bottom: int
    right: int


def resized_size(size: tuple[int, int], short_edge: int, max_size: int) -> tuple[int, int]:
    """(height, width) after making the shorter edge `short_edge`; the longer one is at most `max_size`."""
    height, width = size
    scale = short_edge / min(height, width)
    new_height, new_width = (
        (float(short_edge), scale * width) if height < width else (scale * height, float(short_edge))
    )
    if max(new_height, new_width) > max_size:
        scale = max_size / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return max(int(new_height + 0.5), 1), max(int(new_width + 0.5), 1)


def resize_image(image: Tensor, size: tuple[int, int], window: Window | None = None) -> Tensor:
    """Bilinear, smoothed when it shrinks, as PIL resizes. (3,H,W) uint8 -> (3,h,w) uint8

    Of the image at `size` only the part in `window` is made, with the pixels that it has in the whole one.
    """
    window = window or Window(0, 0, *size)
    before = tuple(image.shape[-2:])
    if before == size:
        return image[:, window.top : window.bottom, window.left : window.right]
    rows = _needed(window.top, window.bottom, before[0], size[0])
    columns = _needed(window.left, window.right, before[1], size[1])
    part = image[:, rows.start : rows.stop, columns.start : columns.stop]
    # The batch gets its dimension where an image of a file has its rows: torch sees that colours lie side by side, and
    # is twice as fast, only with a stride for the batch that fits.
    part = part.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
    # The number of pixels is cut down to a whole one: what rounding takes from an exact product must not cost a pixel.
    factors = [after / edge * (1 + 1e-12) for after, edge in zip(size, before, strict=True)]
    part = F.interpolate(part, scale_factor=factors, mode="bilinear", antialias=True)[0]
    top, left = window.top - rows.skipped, window.left - columns.skipped
    return part[:, top : top + window.bottom - window.top, left : left + window.right - window.left]


def resize_ids(id_map: Tensor, size: tuple[int, int], window: Window | None = None) -> Tensor:
    """Each pixel takes the id of the one it falls on: row floor(y H / h), likewise columns. (H,W) -> (h,w)

    Of the map at `size` only the part in `window` is made.
    """
    window = window or Window(0, 0, *size)
    if tuple(id_map.shape) == size:
        return id_map[window.top : window.bottom, window.left : window.right]
    rows, columns = (_nearest(before, after) for before, after in zip(id_map.shape, size, strict=True))
    rows, columns = rows[window.top : window.bottom], columns[window.left : window.right]
    first, last = int(rows[0]), int(rows[-1])
    # Whole rows last: they are copied in one piece.
    return id_map[first : last + 1].index_select(1, columns).index_select(0, rows - first)


def choose_window(
    id_map: Tensor,
    size: tuple[int, int],
    crop: tuple[int, int],
    thing_ids: Sequence[int],
    windows: Sequence[tuple[int, int]],
) -> int:
    """Number of the first window that holds an object's centre, else of the last (RT-K-Net, section III-C).

    (H,W) int32 ids before resizing, the (height, width) that they are resized to, (height, width) of the crop, ids of
    the things that count, corners (top, left) to try. A window holds an object if the mean position of the object's
    pixels over the WHOLE resized id map, rounded half to even, lies in it and at least one of its pixels does too: the
    centre of a ring may lie in a window that shows none of it.
    The paper ends in a random window where none fits; the code takes the last one tried, and so does this.
    """
    height, width = (min(edge, whole) for edge, whole in zip(crop, size, strict=True))
    if not thing_ids:
        return len(windows) - 1
    pieces = _pieces(id_map, size, thing_ids)
    center_y, center_x = _centers(pieces, len(thing_ids))
    for number, (top, left) in enumerate(windows):
        inside = (center_y >= top) & (center_y < top + height) & (center_x >= left) & (center_x < left + width)
        if inside.any():
            visible = (pieces.top < top + height) & (pieces.bottom > top)
            visible &= (pieces.left < left + width) & (pieces.right > left)
            if inside[pieces.thing[visible]].any():
                return number
    return len(windows) - 1


def draw_windows(size: tuple[int, int], crop: tuple[int, int], rng: np.random.Generator) -> list[tuple[int, int]]:
    """Ten random corners (top, left) of windows that lie in an image of `size`."""
    limits = [max(whole - edge, 0) + 1 for whole, edge in zip(size, crop, strict=True)]
    return [(int(top), int(left)) for top, left in rng.integers(0, limits, (CROP_TRIES, 2))]


def window_at(corner: tuple[int, int], crop: tuple[int, int], size: tuple[int, int]) -> Window:
    """The window of `crop` (height, width) at a corner (top, left), cut to an image of `size`."""
    return Window(*corner, *(min(low + edge, whole) for low, edge, whole in zip(corner, crop, size, strict=True)))


def flip_horizontally(image: Tensor, id_map: Tensor) -> tuple[Tensor, Tensor]:
    """Left and right swapped."""
    return image.flip(-1), id_map.flip(-1)


def pad_to_size(image: Tensor, id_map: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """At least `size`: right and bottom filled with grey 128 and void. (3,H,W) uint8, (H,W) int32 -> (3,h,w), (h,w)"""
    height, width = id_map.shape
    margins = (0, max(size[1] - width, 0), 0, max(size[0] - height, 0))
    if not any(margins):
        return image, id_map
    return F.pad(image, margins, value=PAD_VALUE), F.pad(id_map, margins, value=0)


def make_target(id_map: Tensor, sample: Sample, flip_labels: Sequence[int] | None = None) -> Target:
    """What is left of the sample's segments in an id map cut out of its own. (H,W) int32

    Segments that are no crowd and have at least 2 pixels become 1, 2, ... in the order of the sample; the rest is void.
    flip_labels: the label that each label becomes; None keeps them.
    """
    ids = [segment.id for segment in sample.segments]
    numbers = _number_ids(id_map, ids)
    areas = torch.bincount(numbers.flatten(), minlength=len(ids) + 1)[1:].tolist()
    kept = [
        index for index, segment in enumerate(sample.segments) if not segment.crowd and areas[index] >= MINIMUM_PIXELS
    ]
    value_of = torch.zeros(len(ids) + 1, dtype=torch.int32)
    value_of[[index + 1 for index in kept]] = torch.arange(1, len(kept) + 1, dtype=torch.int32)
    labels = [sample.segments[index].label for index in kept]
    if flip_labels is not None:
        labels = [flip_labels[label] for label in labels]
    numbered = value_of.index_select(0, numbers.flatten()).view(numbers.shape)
    return Target(numbered, torch.tensor(labels, dtype=torch.int64))


class TrainAugmentation:
    """Draws an augmentation for each sample: resize, crop with an instance, colours, flip, padding, in this order.

    short_edges: one is drawn for each image · max_size: limit of the longer edge · crop: (height, width) of the
    window, cut to the image · flip, color: whether to draw them (a flip has probability 1/2) · pad: (height, width)
    that smaller results are padded to, None = not (Mapillary: the crop size) · instance_crop: False takes a plain
    random window · flip_labels: the label that each label becomes in a mirror image, None = its own.

    The window is chosen first, from the runs of equal ids in the source; only what it shows is resized.
    """

    def __init__(
        self,
        short_edges: Sequence[int],
        max_size: int,
        crop: tuple[int, int],
        flip: bool = True,
        color: bool = True,
        pad: tuple[int, int] | None = None,
        instance_crop: bool = True,
        flip_labels: Sequence[int] | None = None,
    ):
        if not short_edges or min(short_edges) < 1 or max_size < 1 or min(crop) < 1:
            raise ConfigError(
                f"short_edges {list(short_edges)}, max_size {max_size} and crop {tuple(crop)} must be 1 pixel or more; "
                "give at least one short edge."
            )
        if flip_labels is not None and any(
            not 0 <= other < len(flip_labels) or flip_labels[other] != label for label, other in enumerate(flip_labels)
        ):
            raise ConfigError(f"flip_labels {list(flip_labels)} must swap labels in pairs or leave them alone.")
        self.short_edges, self.max_size, self.crop = tuple(short_edges), max_size, (crop[0], crop[1])
        self.flip, self.color, self.pad = flip, color, pad
        self.instance_crop = instance_crop
        self.flip_labels = None if flip_labels is None else tuple(flip_labels)

    def __call__(self, sample: Sample, things: Sequence[bool], rng: np.random.Generator) -> tuple[Tensor, Target]:
        """(3,h,w) uint8 RGB and its target (h,w). `things[label]` tells things from stuff; crowds never attract a crop.

        The same sample and an equal `rng` give the same result. What is drawn depends on the sizes alone.
        """
        image = torch.from_numpy(sample.image).permute(2, 0, 1)
        id_map = torch.from_numpy(sample.id_map)
        short_edge = self.short_edges[int(rng.integers(len(self.short_edges)))]
        size = resized_size((id_map.shape[0], id_map.shape[1]), short_edge, self.max_size)
        corners = draw_windows(size, self.crop, rng)
        number = 0
        if self.instance_crop:
            thing_ids = [segment.id for segment in sample.segments if things[segment.label] and not segment.crowd]
            number = choose_window(id_map, size, self.crop, thing_ids, corners)
        window = window_at(corners[number], self.crop, size)
        image, id_map = resize_image(image, size, window).contiguous(), resize_ids(id_map, size, window)
        if self.color:
            image = random_color(image, rng)
        flipped = self.flip and rng.random() < 0.5
        if flipped:
            image, id_map = flip_horizontally(image, id_map)
        if self.pad is not None:
            image, id_map = pad_to_size(image, id_map, self.pad)
        return image.contiguous(), make_target(id_map, sample, self.flip_labels if flipped else None)


def _nearest(before: int, after: int) -> Tensor:
    """Index of the source pixel of each of `after` pixels; torch's own rule, its float32 rounding included."""
    return F.interpolate(torch.arange(before).float()[None, None], size=after, mode="nearest")[0, 0].long()


class _Range(NamedTuple):
    """Source pixels start .. stop - 1, from which resizing makes those from number `skipped` on."""

    start: int
    stop: int
    skipped: int


def _needed(start: int, stop: int, before: int, after: int) -> _Range:
    """What of `before` pixels in a row must be resized for pixels start .. stop - 1 of `after`.

    torch lays the first pixel it makes against the edge of what it gets, so the part has to begin where an edge between
    pixels of the result falls on one of the source. The triangle filter reaches one pixel of the coarser grid.
    """
    reach = max(before, after) / before  # in pixels of the result
    common = math.gcd(before, after)
    steps = max(start - math.ceil(reach), 0) // (after // common)
    first, skipped = steps * (before // common), steps * (after // common)
    last = min(math.ceil((stop + reach) * before / after) + 1, before)
    if before != after and (last - first) * after // before == last - first:
        return _Range(0, before, 0)  # torch leaves alone an axis whose number of pixels stays
    return _Range(first, last, skipped)


class _Pieces(NamedTuple):
    """Things in a resized id map as rectangles: thing 0, 1, ... and edges in pixels, bottom and right exclusive."""

    thing: np.ndarray
    top: np.ndarray
    bottom: np.ndarray
    left: np.ndarray
    right: np.ndarray


def _pieces(id_map: Tensor, size: tuple[int, int], thing_ids: Sequence[int]) -> _Pieces:
    """The rectangles that the runs of each thing in the rows of an (H,W) map become when the map is resized to `size`.

    Some 10 000 runs instead of millions of pixels, and the resized map is not made.
    """
    width = id_map.shape[1]
    ids = id_map.numpy().ravel()
    starting = np.empty(ids.size, bool)
    np.not_equal(ids[1:], ids[:-1], out=starting[1:])
    starting[::width] = True
    starts = np.flatnonzero(starting)
    lengths = np.diff(starts, append=ids.size)
    numbers = _number_ids(torch.from_numpy(ids[starts]), thing_ids).numpy()
    chosen = np.flatnonzero(numbers)
    row, column = np.divmod(starts[chosen], width)
    # Entry i: the first resized row (column) that lies on source row (column) i or a later one.
    row_edges, column_edges = (
        np.searchsorted(_nearest(before, after).numpy(), np.arange(before + 1))
        for before, after in zip(id_map.shape, size, strict=True)
    )
    pieces = _Pieces(
        numbers[chosen] - 1,
        row_edges[row],
        row_edges[row + 1],
        column_edges[column],
        column_edges[column + lengths[chosen]],
    )
    left_over = (pieces.top < pieces.bottom) & (pieces.left < pieces.right)
    return _Pieces(*(values[left_over] for values in pieces))


def _centers(pieces: _Pieces, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rounded mean row and column of things 0 .. count - 1; a thing without pixels has its centre at -1."""
    height, width = pieces.bottom - pieces.top, pieces.right - pieces.left
    areas = np.bincount(pieces.thing, height * width, count)
    centers = []
    for first, end in ((pieces.top, pieces.bottom), (pieces.left, pieces.right)):
        # Twice the sum of the coordinates; whole numbers far below 2^53, so float64 holds them exactly.
        sums = np.bincount(pieces.thing, (first + end - 1) * (height * width), count) / 2
        centers.append(np.where(areas > 0, np.rint(sums / np.maximum(areas, 1)), -1))
    return centers[0], centers[1]


def _number_ids(id_map: Tensor, ids: Sequence[int]) -> Tensor:
    """int32 tensor of the same shape with 1, 2, ... where `id_map` has the ids, in their order, and 0 elsewhere."""
    # numpy's zeros are not written to memory until touched, so a table up to ids of 24 bits costs next to nothing.
    table = torch.from_numpy(np.zeros(max(int(id_map.max()), *ids, 0) + 1, np.int32))
    table[list(ids)] = torch.arange(1, len(ids) + 1, dtype=torch.int32)
    return table.index_select(0, id_map.flatten()).view(id_map.shape)
