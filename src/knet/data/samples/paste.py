"""Copy-paste of objects for training (Ghiasi et al., CVPR 2021): those of one image in another, with exact ids.

Where objects stand on known classes, such as road and pavement, they are placed as a camera at eye height sees them:
an object as tall as the camera stands high reaches from its foot to the horizon, and most of what moves in streets is
about as tall. The horizon is where these classes begin.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from knet.data.readers.reader import Reader
from knet.structures import Sample, SegmentInfo

LEAST = 20  # pixels that an object measures at least, in its own image, along its longer side
TALL = (0.8, 1.3)  # its height over that from its foot to the horizon
FREE = (0.5, 1.5)  # its scale where nothing is known about the place
LARGEST = 2.0  # scale: more shows the pixels
SOFT = 1.0  # pixels over which borders are softened


class Donor(NamedTuple):
    """An object that may be pasted: the image that it is in, its id and its label."""

    image: int
    id: int
    label: int


class ObjectPaste:
    """Pastes objects of some images of a data set into samples.

    Args:
        reader: the data set; `indices` are the images whose objects are taken, if they are whole.
        onto: labels of the classes that objects stand on; without any they come anywhere, in about their own size.
        count: most objects for a sample. How many is drawn, and first the class of each, so that rare ones are seen.
    """

    def __init__(self, reader: Reader, indices: Sequence[int], onto: Sequence[int], count: int):
        self._reader, self._indices, self._onto, self._count = reader, tuple(indices), frozenset(onto), count
        self._donors: dict[int, list[Donor]] | None = None  # found at the first use, in each loader process

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The sample with up to `count` more objects; those that it had are hidden where they lie behind.

        Raises:
            DataError: an image that objects come from cannot be read.
        """
        if self._donors is None:
            self._donors = self._find()
        for _ in range(int(rng.integers(self._count + 1))):
            labels = sorted(self._donors)
            if not labels:
                break
            of_class = self._donors[labels[int(rng.integers(len(labels)))]]
            donor = of_class[int(rng.integers(len(of_class)))]
            source = self._reader.read(donor.image)
            object_, mask = cut_out(source, donor.id)
            if rng.random() < 0.5:
                object_, mask = object_[:, ::-1], mask[:, ::-1]
            place = self._place(sample, mask.shape, rng)
            if place is not None:
                sample = paste(sample, object_, mask, donor.label, *place)
        return sample

    def _find(self) -> dict[int, list[Donor]]:
        """The whole objects of the images by label: no crowds, none cut off by the image, none too small."""
        found: dict[int, list[Donor]] = {}
        read = getattr(self._reader, "read_truth", self._reader.read)
        for image in self._indices:
            truth = read(image)
            for segment in truth.segments:
                if not self._reader.categories[segment.label].thing or segment.crowd:
                    continue
                ids = truth.id_map if truth.id_map.ndim == 2 else (truth.id_map == segment.id).max(0) * segment.id
                top, bottom, left, right = bounds(ids == segment.id)
                cut = top == 0 or left == 0 or bottom == ids.shape[0] or right == ids.shape[1]
                if not cut and max(bottom - top, right - left) >= LEAST:
                    found.setdefault(segment.label, []).append(Donor(image, segment.id, segment.label))
        return found

    def _place(
        self, sample: Sample, size: tuple[int, ...], rng: np.random.Generator
    ) -> tuple[float, tuple[int, int]] | None:
        """Scale and foot (row, column) of an object of `size`, None where it has no place."""
        ids = sample.id_map if sample.id_map.ndim == 2 else sample.id_map[0]
        if not self._onto:
            foot = (int(rng.integers(1, ids.shape[0] + 1)), int(rng.integers(ids.shape[1])))
            return float(rng.uniform(*FREE)), foot
        ground = np.isin(ids, [segment.id for segment in sample.segments if segment.label in self._onto])
        rows = np.flatnonzero(ground.any(1))
        tall, where = float(rng.uniform(*TALL)), float(rng.random())
        if not len(rows):
            return None
        row = int(rows[int(where * len(rows))])  # a row first, or nearly all would stand near the camera
        columns = np.flatnonzero(ground[row])
        scale = tall * (row - int(rows[0])) / size[0]
        if scale * max(size) < LEAST / 2 or scale > LARGEST:
            return None
        return scale, (row + 1, int(columns[int(rng.integers(len(columns)))]))


def bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Top, bottom, left and right (exclusive) of a mask; zeros where it is empty. (H,W) bool"""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def cut_out(sample: Sample, id_: int) -> tuple[np.ndarray, np.ndarray]:
    """The smallest rectangle around a segment. -> (h,w,3) uint8 RGB, (h,w) bool"""
    mask = sample.id_map == id_
    mask = mask if mask.ndim == 2 else mask.any(0)
    top, bottom, left, right = bounds(mask)
    return sample.image[top:bottom, left:right], mask[top:bottom, left:right]


def paste(
    sample: Sample, object_: np.ndarray, mask: np.ndarray, label: int, scale: float, foot: tuple[int, int]
) -> Sample:
    """A new sample with an object in front of everything, as a segment of its own.

    Its id map is exact: the object's pixels have the new id, all others their old one, and segments of which nothing is
    left are gone. Only the colours are softened at the border.

    Args:
        object_, mask: (h,w,3) uint8 RGB and (h,w) bool.
        label: of the new segment.
        scale: of the object.
        foot: (row, column) of the middle of its lower edge, the row exclusive; it may lie partly outside.
    """
    height, width = (max(1, round(side * scale)) for side in mask.shape)
    picture = Image.fromarray(np.ascontiguousarray(object_)).resize((width, height), Image.Resampling.BILINEAR)
    share = Image.fromarray(mask.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BILINEAR)
    top, left = foot[0] - height, foot[1] - width // 2
    rows = slice(max(top, 0), min(foot[0], sample.id_map.shape[-2]))
    columns = slice(max(left, 0), min(left + width, sample.id_map.shape[-1]))
    inside = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    solid = np.asarray(share)[inside] > 127
    if rows.stop <= rows.start or columns.stop <= columns.start or not solid.any():
        return sample
    # Blurred and cut at a half it would reach outside, where the object's image shows something else.
    soft = np.asarray(share.filter(ImageFilter.GaussianBlur(SOFT)), np.float32)[inside] / 255
    soft = np.where(solid, np.maximum(2 * soft - 1, 0.3), 0)[..., None]
    image, id_map = sample.image.copy(), sample.id_map.copy()
    image[rows, columns] = (soft * np.asarray(picture)[inside] + (1 - soft) * image[rows, columns]).round()
    new = max([0, *(segment.id for segment in sample.segments), int(id_map.max())]) + 1
    id_map[..., rows, columns][..., solid] = 0
    (id_map if id_map.ndim == 2 else id_map[0])[rows, columns][solid] = new
    left_over = set(np.unique(id_map).tolist())
    segments = [segment for segment in sample.segments if segment.id in left_over]
    return Sample(sample.name, image, id_map, [*segments, SegmentInfo(new, label)], sample.ignored, sample.unlabelled)
