"""Training augmentation: random size, crop, colours, flip.

Functions take the values that `TrainAugmentation` draws, so each can be checked by itself. Images are (3,H,W) uint8 RGB
tensors, id maps (H,W) int32 tensors with 0 = void, or (L,H,W), layers of segments that overlap. Source: RT-K-Net
(Schoen et al., IV 2023, sections III-C, IV-B) and its official code, whose crop looks for objects; where they differ
the code is followed, and a comment says so. K-Net's code takes whole images for things, and for semantic segmentation
crops that no class fills.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from knet.data.samples.camera import random_camera
from knet.data.samples.color import random_color
from knet.errors import ConfigError
from knet.preprocess import Window, nearest_places, resize_ids, resize_image, resized_size
from knet.structures import Sample, SegmentInfo, Target

CROP_TRIES = 10
MINIMUM_PIXELS = 2
GREY = (128, 128, 128)


def choose_window(
    id_map: Tensor,
    size: tuple[int, int],
    crop: tuple[int, int],
    thing_ids: Sequence[int],
    windows: Sequence[tuple[int, int]],
) -> int:
    """The number of the first window that holds an object's centre, else of the last (RT-K-Net, section III-C).

    A window holds an object if it holds the mean position of the object's pixels over the WHOLE resized id map, rounded
    half to even, and at least one of its pixels: the centre of a ring may lie in a window that shows none of it. The
    paper ends in a random window where none fits; the code takes the last one tried, and so does this.

    Args:
        id_map: (H,W) or (L,H,W) int32, before resizing.
        size, crop: (height, width) that it is resized to, and of the windows.
        thing_ids: ids of the things that count.
        windows: corners (top, left) to try.
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


def choose_mixed_window(
    id_map: Tensor,
    size: tuple[int, int],
    crop: tuple[int, int],
    segments: Sequence[SegmentInfo],
    windows: Sequence[tuple[int, int]],
    largest: float,
) -> int:
    """The number of the first window that shows several classes, none on a share of `largest` (0 to 1) or more.

    Void does not count. The last window is not looked at: it is taken where no other fits. Else as `choose_window`.
    """
    labels = sorted({segment.label for segment in segments})
    column = torch.zeros(len(segments) + 1, dtype=torch.int64)
    column[1:] = torch.tensor([labels.index(segment.label) + 1 for segment in segments])
    for number, corner in enumerate(windows[:-1]):
        ids = resize_ids(id_map, size, window_at(corner, crop, size))
        numbers = _number_ids(ids, [segment.id for segment in segments])
        areas = torch.zeros(len(labels) + 1, dtype=torch.int64)
        areas.index_add_(0, column, torch.bincount(numbers.flatten(), minlength=len(column)))
        if (areas[1:] > 0).sum() > 1 and areas[1:].max() < largest * areas[1:].sum():
            return number
    return len(windows) - 1


def draw_windows(
    size: tuple[int, int], crop: tuple[int, int], rng: np.random.Generator, tries: int = CROP_TRIES
) -> list[tuple[int, int]]:
    """Draws corners (top, left) of windows that lie in an image of `size`."""
    limits = [max(whole - edge, 0) + 1 for whole, edge in zip(size, crop, strict=True)]
    return [(int(top), int(left)) for top, left in rng.integers(0, limits, (tries, 2))]


def window_at(corner: tuple[int, int], crop: tuple[int, int], size: tuple[int, int]) -> Window:
    """The window of `crop` (height, width) at a corner (top, left), cut to an image of `size`."""
    return Window(*corner, *(min(low + edge, whole) for low, edge, whole in zip(corner, crop, size, strict=True)))


def flip_horizontally(image: Tensor, id_map: Tensor) -> tuple[Tensor, Tensor]:
    """Swaps left and right."""
    return image.flip(-1), id_map.flip(-1)


def pad_to_size(
    image: Tensor, id_map: Tensor, size: tuple[int, int], color: tuple[int, int, int] = GREY
) -> tuple[Tensor, Tensor]:
    """Pads to at least `size` at the right and bottom, with a colour and void. (3,H,W) uint8, (...,H,W) -> the same"""
    height, width = id_map.shape[-2:]
    margins = (0, max(size[1] - width, 0), 0, max(size[0] - height, 0))
    if not any(margins):
        return image, id_map
    padded = torch.tensor(color, dtype=torch.uint8)[:, None, None].repeat(1, height + margins[3], width + margins[1])
    padded[:, :height, :width] = image
    return padded, F.pad(id_map, margins, value=0)


def make_target(id_map: Tensor, sample: Sample, flip_labels: Sequence[int] | None = None) -> Target:
    """Makes a target of what is left of the sample's segments. (H,W) or (L,H,W) int32, cut out of the sample's id map

    Segments that are no crowd and have at least 2 pixels become 1, 2, ... in the order of the sample; what the sample
    says is ignored becomes -1; the rest is void. `flip_labels` has the label that each label becomes; None keeps them.
    """
    return _make_target(id_map, sample, flip_labels)[0]


def _make_target(
    id_map: Tensor, sample: Sample, flip_labels: Sequence[int] | None
) -> tuple[Target, tuple[SegmentInfo, ...]]:
    """The target, and the sample's segments that its values 1, 2, ... stand for."""
    listed = [segment.id for segment in sample.segments]
    ids = [*listed, *sorted(sample.ignored.difference(listed))]
    numbers = _number_ids(id_map, ids)
    areas = torch.bincount(numbers.flatten(), minlength=len(ids) + 1)[1:].tolist()
    kept = [
        index for index, segment in enumerate(sample.segments) if not segment.crowd and areas[index] >= MINIMUM_PIXELS
    ]
    value_of = torch.tensor([0, *(-1 if id_ in sample.ignored else 0 for id_ in ids)], dtype=torch.int32)
    value_of[[index + 1 for index in kept]] = torch.arange(1, len(kept) + 1, dtype=torch.int32)
    labels = [sample.segments[index].label for index in kept]
    if flip_labels is not None:
        labels = [flip_labels[label] for label in labels]
    numbered = value_of.index_select(0, numbers.flatten()).view(numbers.shape)
    target = Target(numbered, torch.tensor(labels, dtype=torch.int64), sample.unlabelled)
    return target, tuple(sample.segments[index] for index in kept)


class Augmented(NamedTuple):
    """An augmented sample: (3,h,w) uint8 RGB, its target, and the sample's segments that are in it, in order."""

    image: Tensor
    target: Target
    segments: tuple[SegmentInfo, ...]


class TrainAugmentation:
    """Draws an augmentation for each sample: resize, crop with an instance, colours, flip, padding, in this order.

    The window is chosen first, from the runs of equal ids in the source; only what it shows is resized.

    Args:
        short_edges: one is drawn for each image.
        max_size: limit of the longer edge.
        crop: (height, width) of the window, which is cut to the image; None takes the whole image.
        flip, color: whether to draw them (a flip has probability 1/2).
        pad: (height, width) that smaller results are padded to (Mapillary: the crop size); None leaves them alone.
        instance_crop: whether the window should show an instance; False takes a random one.
        flip_labels: the label that each label becomes in a mirror image; None keeps them.
        between: whether every whole number from the first to the last short edge may be drawn.
        ratio: range of a factor of short edge and limit.
        antialias: see `resize_image`.
        largest_class: share of a crop that no class should have, see `choose_mixed_window`; replaces `instance_crop`.
        pad_color: RGB of the padding.
        camera: the chance of each of `random_camera`'s faults.

    Raises:
        ConfigError: a number is out of its range.
    """

    def __init__(
        self,
        short_edges: Sequence[int],
        max_size: int,
        crop: tuple[int, int] | None,
        flip: bool = True,
        color: bool = True,
        pad: tuple[int, int] | None = None,
        instance_crop: bool = True,
        flip_labels: Sequence[int] | None = None,
        between: bool = False,
        ratio: tuple[float, float] = (1.0, 1.0),
        antialias: bool = True,
        largest_class: float | None = None,
        pad_color: tuple[int, int, int] = GREY,
        camera: float = 0.0,
    ):
        if not short_edges or min(*short_edges, max_size, *(crop or ())) < 1:
            raise ConfigError(
                f"short_edges {list(short_edges)}, max_size {max_size} and crop {crop} must be 1 pixel or more; "
                "give at least one short edge."
            )
        if not 0 < ratio[0] <= ratio[1] or (between and short_edges[0] > short_edges[-1]):
            raise ConfigError(
                f"The range of sizes (short_edges {list(short_edges)}, ratio {ratio}) must go from a smaller number "
                "above 0 to a larger one."
            )
        if largest_class is not None and not 0 < largest_class <= 1:
            raise ConfigError(f"largest_class {largest_class} is a share: give a number above 0, and 1 at most.")
        if not all(0 <= value <= 255 for value in pad_color):
            raise ConfigError(f"The pad_color {pad_color} is no colour: give red, green and blue from 0 to 255.")
        if flip_labels is not None and any(
            not 0 <= other < len(flip_labels) or flip_labels[other] != label for label, other in enumerate(flip_labels)
        ):
            raise ConfigError(f"flip_labels {list(flip_labels)} must swap labels in pairs or leave them alone.")
        self.short_edges, self.max_size, self.crop = tuple(short_edges), max_size, crop
        self.flip, self.color, self.pad, self.pad_color = flip, color, pad, pad_color
        self.between, self.ratio, self.antialias = between, ratio, antialias
        self.instance_crop, self.largest_class, self.camera = instance_crop, largest_class, camera
        self.flip_labels = None if flip_labels is None else tuple(flip_labels)

    def __call__(self, sample: Sample, things: Sequence[bool], rng: np.random.Generator) -> tuple[Tensor, Target]:
        """Augments a sample. -> (3,h,w) uint8 RGB and its target

        The same sample and an equal `rng` give the same result. What is drawn depends on the sizes alone. Crowds never
        attract a crop, nor does a label that `things` says is stuff.
        """
        (augmented,) = self.apply_to_all([sample], things, rng)
        return augmented.image, augmented.target

    def apply_to_all(
        self, samples: Sequence[Sample], things: Sequence[bool], rng: np.random.Generator
    ) -> list[Augmented]:
        """Augments several samples of equal size alike, the frames of a clip; the first decides on the window."""
        height, width = samples[0].id_map.shape[-2:]
        size = self._draw_size((height, width), rng)
        window = Window(0, 0, *size)
        if self.crop is not None:
            window = self._draw_window(self.crop, size, samples[0], things, rng)
        images = [torch.from_numpy(sample.image).permute(2, 0, 1) for sample in samples]
        images = [resize_image(image, size, window, self.antialias).contiguous() for image in images]
        luck = rng.bit_generator.state
        for number, image in enumerate(images):
            rng.bit_generator.state = luck  # each image draws the same
            image = random_color(image, rng) if self.color else image
            images[number] = random_camera(image, self.camera, rng) if self.camera else image
        flipped = self.flip and rng.random() < 0.5
        results = []
        for sample, image in zip(samples, images, strict=True):
            id_map = resize_ids(torch.from_numpy(sample.id_map), size, window)
            if flipped:
                image, id_map = flip_horizontally(image, id_map)
            if self.pad is not None:
                image, id_map = pad_to_size(image, id_map, self.pad, self.pad_color)
            target, segments = _make_target(id_map, sample, self.flip_labels if flipped else None)
            results.append(Augmented(image.contiguous(), target, segments))
        return results

    def _draw_size(self, before: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
        if self.between:
            short_edge = int(rng.integers(self.short_edges[0], self.short_edges[-1] + 1))
        else:
            short_edge = self.short_edges[int(rng.integers(len(self.short_edges)))]
        longest = self.max_size
        if self.ratio != (1.0, 1.0):
            factor = float(rng.uniform(*self.ratio))
            short_edge, longest = int(short_edge * factor), int(longest * factor)  # as mmcv
        return resized_size(before, max(short_edge, 1), max(longest, 1))

    def _draw_window(
        self,
        crop: tuple[int, int],
        size: tuple[int, int],
        sample: Sample,
        things: Sequence[bool],
        rng: np.random.Generator,
    ) -> Window:
        id_map = torch.from_numpy(sample.id_map)
        number = 0
        if self.largest_class is not None:
            corners = draw_windows(size, crop, rng, CROP_TRIES + 1)
            number = choose_mixed_window(id_map, size, crop, sample.segments, corners, self.largest_class)
            return window_at(corners[number], crop, size)
        corners = draw_windows(size, crop, rng)
        if self.instance_crop:
            thing_ids = [segment.id for segment in sample.segments if things[segment.label] and not segment.crowd]
            number = choose_window(id_map, size, crop, thing_ids, corners)
        return window_at(corners[number], crop, size)


class _Pieces(NamedTuple):
    """Things in a resized id map as rectangles: thing 0, 1, ... and edges in pixels, bottom and right exclusive."""

    thing: np.ndarray
    top: np.ndarray
    bottom: np.ndarray
    left: np.ndarray
    right: np.ndarray


def _pieces(id_map: Tensor, size: tuple[int, int], thing_ids: Sequence[int]) -> _Pieces:
    """The rectangles that the runs of each thing in the rows of a map become when the map is resized to `size`.

    The map is (H,W), or (L,H,W) where each thing lies in one layer. Its some 10 000 runs stand for millions of pixels,
    and the resized map is not made.
    """
    height, width = id_map.shape[-2:]
    ids = id_map.numpy().ravel()
    starting = np.empty(ids.size, bool)
    np.not_equal(ids[1:], ids[:-1], out=starting[1:])
    starting[::width] = True
    starts = np.flatnonzero(starting)
    lengths = np.diff(starts, append=ids.size)
    numbers = _number_ids(torch.from_numpy(ids[starts]), thing_ids).numpy()
    chosen = np.flatnonzero(numbers)
    row, column = np.divmod(starts[chosen], width)
    row %= height
    # Entry i: the first resized row (column) that lies on source row (column) i or a later one.
    row_edges, column_edges = (
        np.searchsorted(nearest_places(before, after).numpy(), np.arange(before + 1))
        for before, after in zip((height, width), size, strict=True)
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
