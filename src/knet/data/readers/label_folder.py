"""Reads images with label PNGs, whose pixels name classes by number or colour; a second PNG may tell objects apart."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from knet.data.categories import CategoryTable, as_table
from knet.data.files.channels import BLUE_FIRST, is_blue_first, pack_colors
from knet.data.files.io import (
    list_images,
    name_some,
    read_image,
    read_image_size,
    read_labels_or_colors,
    values_in,
    without_ending,
)
from knet.data.readers.reader import size_text
from knet.errors import DataError, shown
from knet.structures import Category, Sample, SegmentInfo

_UNKNOWN = -2
_LOSSY = frozenset({".jpg", ".jpeg", ".jfif", ".webp", ".jp2", ".avif"})


class _Files(NamedTuple):
    """One image's files, relative to their folders, and its name: their common path without an ending."""

    name: str
    image: str
    labels: str
    instances: str | None


class LabelFolder:
    """Images with label PNGs, and instance PNGs, of the same relative path but for the ending.

    A label PNG has one channel (8-bit index or palette, 16-bit) with the table's label values, or is RGB in the
    table's colours, where black means void unless a class is black. The values of an instance PNG (one channel, or
    RGB: each colour is a number) tell the objects of an image apart. Every sample has one segment a class, whose id is
    label + 1.

    Args:
        images, labels: folders.
        categories: a class table, its name or its file; with plain rows the pixels hold category ids.
        instances: a third folder, None where there is none.
    """

    def __init__(
        self,
        images: str | Path,
        labels: str | Path,
        categories: str | Path | CategoryTable | Sequence[Category],
        instances: str | Path | None = None,
    ):
        self._images, self._labels = Path(images), Path(labels)
        self._instances = None if instances is None else Path(instances)
        table = as_table(categories)
        self.categories = table.categories
        self._to_label = np.full(max(*table.label_values, *table.void_values, 255) + 1, _UNKNOWN, np.int32)
        self._to_label[list(table.void_values)] = -1
        self._to_label[list(table.label_values)] = np.arange(len(table.label_values))
        self._color_labels: dict[int, int] | None = None  # made for the first label PNG in colours
        self._files = self._match()

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        """The image's relative path without its ending; unique in the data set."""
        return self._files[index].name

    def image_name(self, index: int) -> str:
        """The image's path relative to the images folder."""
        return self._files[index].image

    def read(self, index: int) -> Sample:
        """Reads image number `index` with one segment for each class in it."""
        label_map = self.read_label_map(index)
        image = read_image(self._images / self._files[index].image)
        id_map = label_map + 1
        segments = [SegmentInfo(id_, id_ - 1) for id_ in values_in(id_map).tolist() if id_ > 0]
        return Sample(self._files[index].name, image, id_map, segments)

    def read_label_map(self, index: int) -> np.ndarray:
        """Reads the labels of an image. -> (H,W) int32 0 .. K-1, -1 = void, of the image's size"""
        path = self._labels / self._files[index].labels
        values = read_labels_or_colors(path)
        self._compare_sizes(values, path, index)
        if values.ndim == 3:
            return self._labels_of_colors(pack_colors(values), path)
        present = values_in(values).tolist()
        unknown = [v for v in present if not 0 <= v < len(self._to_label) or self._to_label[v] == _UNKNOWN]
        if unknown:
            raise DataError(
                f"{path} has the pixel value {name_some(unknown)}, which is neither a class of the table nor void; "
                "choose the table that belongs to these labels, or add the value to its void_id."
            )
        return self._to_label[values]

    def read_instance_map(self, index: int) -> np.ndarray | None:
        """Reads the objects' numbers. -> (H,W) int32, 0 = not told apart, of the image's size; None without such PNGs

        Colours count as R * 65536 + G * 256 + B.
        """
        name = self._files[index].instances
        if self._instances is None or name is None:
            return None
        values = read_labels_or_colors(self._instances / name)
        self._compare_sizes(values, self._instances / name, index)
        return pack_colors(values) if values.ndim == 3 else values

    def _compare_sizes(self, values: np.ndarray, path: Path, index: int) -> None:
        image = self._images / self._files[index].image
        size = read_image_size(image)
        if values.shape[:2] != size:
            raise DataError(
                f"{path} is {size_text(values.shape)} pixels but its image {image} is "
                f"{size_text(size)}; they must be of equal size."
            )

    def _labels_of_colors(self, colors: np.ndarray, path: Path) -> np.ndarray:
        """Labels of a map of packed colours, each looked up exactly."""
        if self._color_labels is None:
            self._color_labels = self._color_lookup()
        present = values_in(colors)
        labels = np.array([self._color_labels.get(color, _UNKNOWN) for color in present.tolist()], np.int32)
        unknown = [f"({c >> 16}, {c >> 8 & 255}, {c & 255})" for c in present[labels == _UNKNOWN].tolist()]
        if is_blue_first(present.tolist(), self._color_labels):
            raise DataError(f"{path} has colours that the class table lacks: {BLUE_FIRST}.")
        if unknown:
            raise DataError(
                f"{path} has the colour {name_some(unknown, 1)}, which is neither a class's nor black (void); give the "
                "table's classes the colours of these labels, and export labels without smoothing."
            )
        return labels[np.searchsorted(present, colors)]

    def _color_lookup(self) -> dict[int, int]:
        """Label of each packed colour; black is void unless it is a class's."""
        labels: dict[int, int] = {}
        for label, category in enumerate(self.categories):
            red, green, blue = category.color
            other = labels.setdefault(red << 16 | green << 8 | blue, label)
            if other != label:
                raise DataError(
                    f"{self._labels} has labels in colours, but the class table has the colour {category.color} for "
                    f"{shown(self.categories[other].name)} and for {shown(category.name)}; give each class its own."
                )
        labels.setdefault(0, -1)
        return labels

    def _match(self) -> list[_Files]:
        images = _by_path(self._images)
        labels = self._partners(images, self._labels)
        instances = {} if self._instances is None else self._partners(images, self._instances)
        if not images:
            raise DataError(f"The folder {self._images} holds no images.")
        return [_Files(name, images[name], labels[name], instances.get(name)) for name in sorted(images)]

    def _partners(self, images: dict[str, str], folder: Path) -> dict[str, str]:
        """The files of `folder` by their names without endings: one for each image, none in a lossy format."""
        files = _by_path(folder)
        lossy = [name for name in files.values() if PurePosixPath(name).suffix.lower() in _LOSSY]
        if lossy:
            raise DataError(
                f"{folder} has {name_some(sorted(lossy))}, in a format that changes pixel values; export PNGs."
            )
        lonely = sorted(images.keys() ^ files.keys())
        if lonely:
            in_images = lonely[0] in images
            has, lacks = (self._images, folder) if in_images else (folder, self._images)
            same = [name for name in lonely if (name in images) == in_images]
            raise DataError(f"{has} has {name_some(same)} but {lacks} has no file of that name; add or remove them.")
        return files


def _by_path(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in list_images(folder):
        other = found.setdefault(without_ending(name), name)
        if other != name:
            raise DataError(f"{folder} has both {other} and {name}; keep one file of each name.")
    return found
