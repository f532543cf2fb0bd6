"""RT-K-Net's training augmentation: random size, crop around an object, colours, flip.

Functions take the values that are drawn, so each can be checked by itself; `TrainAugmentation` draws them. Images are
(3,H,W) uint8 RGB tensors, id maps (H,W) int32 tensors with 0 = void. Source: RT-K-Net (Schoen et al., IV 2023,
sections III-C, IV-B) and its official code; where they differ the code is followed and the place says so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

from knet.data.color import random_color
from knet.errors import ConfigError
from knet.structures import Sample, Target

CROP_TRIES = 10
MINIMUM_PIXELS = 2
PAD_VALUE = 128


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


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, smoothed when it shrinks, as PIL resizes. (3,H,W) uint8 -> (3,h,w) uint8"""
    if tuple(image.shape[-2:]) == size:
        return image
    return tv.resize(image, list(size), interpolation=tv.InterpolationMode.BILINEAR, antialias=True)


def resize_ids(id_map: Tensor, size: tuple[int, int]) -> Tensor:
    """Each pixel takes the id of the one it falls on: row floor(y H / h), likewise columns. (H,W) -> (h,w)"""
    if tuple(id_map.shape) == size:
        return id_map
    rows, columns = (_nearest(before, after) for before, after in zip(id_map.shape, size, strict=True))
    return id_map.index_select(1, columns).index_select(0, rows)  # whole rows last: they are copied in one piece


def resize_shortest_edge(image: Tensor, id_map: Tensor, short_edge: int, max_size: int) -> tuple[Tensor, Tensor]:
    """Image and ids at the size of `resized_size`. (3,H,W) uint8, (H,W) int32 -> (3,h,w), (h,w)"""
    size = resized_size((id_map.shape[0], id_map.shape[1]), short_edge, max_size)
    return resize_image(image, size), resize_ids(id_map, size)


def choose_window(
    id_map: Tensor, crop: tuple[int, int], thing_ids: Sequence[int], windows: Sequence[tuple[int, int]]
) -> int:
    """Number of the first window that holds an object's centre, else of the last (RT-K-Net, section III-C).

    (H,W) int32 ids, (height, width) of the crop, ids of the things that count, corners (top, left) to try. A window
    holds an object if the mean position of the object's pixels over the WHOLE id map, rounded half to even, lies in
    it and at least one of its pixels does too: the centre of a ring may lie in a window that shows none of it.
    The paper ends in a random window where none fits; the code takes the last one tried, and so does this.
    """
    height, width = (min(edge, whole) for edge, whole in zip(crop, id_map.shape, strict=True))
    if not thing_ids:
        return len(windows) - 1
    things = _number_ids(id_map, thing_ids)
    center_y, center_x = _centers(things, len(thing_ids))
    for number, (top, left) in enumerate(windows):
        inside = (center_y >= top) & (center_y < top + height) & (center_x >= left) & (center_x < left + width)
        if inside.any():
            visible = np.bincount(things[top : top + height, left : left + width].ravel(), minlength=len(thing_ids) + 1)
            if (visible[1:][inside] > 0).any():
                return number
    return len(windows) - 1


def crop_with_instance(
    image: Tensor, id_map: Tensor, crop: tuple[int, int], thing_ids: Sequence[int], windows: Sequence[tuple[int, int]]
) -> tuple[Tensor, Tensor]:
    """The part of image and ids under the window of `choose_window`; a crop larger than the image is cut to it."""
    top, left = windows[choose_window(id_map, crop, thing_ids, windows)]
    bottom, right = top + crop[0], left + crop[1]
    return image[:, top:bottom, left:right], id_map[top:bottom, left:right]


def draw_windows(size: tuple[int, int], crop: tuple[int, int], rng: np.random.Generator) -> list[tuple[int, int]]:
    """Ten random corners (top, left) of windows that lie in an image of `size`."""
    limits = [max(whole - edge, 0) + 1 for whole, edge in zip(size, crop, strict=True)]
    return [(int(top), int(left)) for top, left in rng.integers(0, limits, (CROP_TRIES, 2))]


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


def make_target(id_map: Tensor, sample: Sample) -> Target:
    """What is left of the sample's segments in an id map cut out of its own. (H,W) int32

    Segments that are no crowd and have at least 2 pixels become 1, 2, ... in the order of the sample; the rest is void.
    """
    ids = [segment.id for segment in sample.segments]
    numbers = _number_ids(id_map, ids)
    areas = np.bincount(numbers.ravel(), minlength=len(ids) + 1)[1:]
    kept = [
        index for index, segment in enumerate(sample.segments) if not segment.crowd and areas[index] >= MINIMUM_PIXELS
    ]
    value_of = np.zeros(len(ids) + 1, np.int32)
    value_of[[index + 1 for index in kept]] = np.arange(1, len(kept) + 1)
    labels = torch.tensor([sample.segments[index].label for index in kept], dtype=torch.int64)
    return Target(torch.from_numpy(value_of.take(numbers)), labels)


class TrainAugmentation:
    """Draws an augmentation for each sample: resize, crop with an instance, colours, flip, padding, in this order.

    short_edges: one is drawn for each image · max_size: limit of the longer edge · crop: (height, width) of the
    window, cut to the image · flip, color: whether to draw them (a flip has probability 1/2) · pad: (height, width)
    that smaller results are padded to, None = not (Mapillary: the crop size).
    """

    def __init__(
        self,
        short_edges: Sequence[int],
        max_size: int,
        crop: tuple[int, int],
        flip: bool = True,
        color: bool = True,
        pad: tuple[int, int] | None = None,
    ):
        if not short_edges or min(short_edges) < 1 or max_size < 1 or min(crop) < 1:
            raise ConfigError(
                f"short_edges {list(short_edges)}, max_size {max_size} and crop {tuple(crop)} must be 1 pixel or more; "
                "give at least one short edge."
            )
        self.short_edges, self.max_size, self.crop = tuple(short_edges), max_size, (crop[0], crop[1])
        self.flip, self.color, self.pad = flip, color, pad

    def __call__(self, sample: Sample, things: Sequence[bool], rng: np.random.Generator) -> tuple[Tensor, Target]:
        """(3,h,w) uint8 RGB and its target (h,w). `things[label]` tells things from stuff; crowds never attract a crop.

        The same sample and an equal `rng` give the same result.
        """
        image = torch.from_numpy(sample.image).permute(2, 0, 1)
        id_map = torch.from_numpy(sample.id_map)
        short_edge = self.short_edges[int(rng.integers(len(self.short_edges)))]
        image, id_map = resize_shortest_edge(image, id_map, short_edge, self.max_size)
        thing_ids = [segment.id for segment in sample.segments if things[segment.label] and not segment.crowd]
        windows = draw_windows((id_map.shape[0], id_map.shape[1]), self.crop, rng)
        image, id_map = crop_with_instance(image, id_map, self.crop, thing_ids, windows)
        if self.color:
            image = random_color(image, rng)
        if self.flip and rng.random() < 0.5:
            image, id_map = flip_horizontally(image, id_map)
        if self.pad is not None:
            image, id_map = pad_to_size(image, id_map, self.pad)
        return image.contiguous(), make_target(id_map, sample)


def _nearest(before: int, after: int) -> Tensor:
    """Index of the source pixel of each of `after` pixels; torch's own rule, its float32 rounding included."""
    return F.interpolate(torch.arange(before).float()[None, None], size=after, mode="nearest")[0, 0].long()


def _centers(things: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rounded mean row and column of things 1 .. count in an (H,W) map; a thing without pixels has its centre at -1."""
    places = np.flatnonzero(things != 0)
    numbers = things.ravel()[places]
    areas = np.bincount(numbers, minlength=count + 1)[1:]
    centers = []
    for coordinates in np.divmod(places, things.shape[1]):
        sums = np.bincount(numbers, coordinates, minlength=count + 1)[1:]
        centers.append(np.where(areas > 0, np.rint(sums / np.maximum(areas, 1)), -1))
    return centers[0], centers[1]


def _number_ids(id_map: Tensor, ids: Sequence[int]) -> np.ndarray:
    """(H,W) uint8 or int32 map with 1, 2, ... where `id_map` has the ids, in their order, and 0 elsewhere."""
    # numpy's zeros are not written to memory until touched, so a table up to ids of 24 bits costs next to nothing.
    kind = np.uint8 if len(ids) < 256 else np.int32
    table = torch.from_numpy(np.zeros(max(int(id_map.max()), *ids, 0) + 1, kind))
    table[list(ids)] = torch.arange(1, len(ids) + 1, dtype=table.dtype)
    return table.index_select(0, id_map.flatten()).view(id_map.shape).numpy()
