"""Resizing of images and of maps of ids, whole or only the part in a window."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


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


def resize_image(image: Tensor, size: tuple[int, int], window: Window | None = None, antialias: bool = True) -> Tensor:
    """Bilinear, smoothed when it shrinks, as PIL resizes; or never smoothed, as OpenCV. (3,H,W) uint8 -> (3,h,w) uint8

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
    part = F.interpolate(part, scale_factor=factors, mode="bilinear", antialias=antialias)[0]
    top, left = window.top - rows.skipped, window.left - columns.skipped
    return part[:, top : top + window.bottom - window.top, left : left + window.right - window.left]


def resize_ids(id_map: Tensor, size: tuple[int, int], window: Window | None = None) -> Tensor:
    """Each pixel takes the id of the one it falls on: row floor(y H / h), likewise columns. (...,H,W) -> (...,h,w)

    Of the map at `size` only the part in `window` is made.
    """
    window = window or Window(0, 0, *size)
    if tuple(id_map.shape[-2:]) == size:
        return id_map[..., window.top : window.bottom, window.left : window.right]
    rows, columns = (nearest_places(before, after) for before, after in zip(id_map.shape[-2:], size, strict=True))
    rows, columns = rows[window.top : window.bottom], columns[window.left : window.right]
    first, last = int(rows[0]), int(rows[-1])
    # Whole rows last: they are copied in one piece.
    return id_map[..., first : last + 1, :].index_select(-1, columns).index_select(-2, rows - first)


def nearest_places(before: int, after: int) -> Tensor:
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
