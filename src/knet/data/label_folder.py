"""Reads images with label PNGs: one number a pixel says the class; nothing tells instances apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from knet.data.categories import CategoryTable, as_table
from knet.data.files import list_images, name_some, read_image, read_image_size, read_labels, values_in, without_ending
from knet.errors import DataError
from knet.structures import Category, Sample, SegmentInfo


class LabelFolder:
    """Images and label PNGs (8-bit index or 16-bit) of equal relative path but for the ending.

    categories: a table, its name or file; plain rows mean that the pixels hold category ids · void: pixel value(s)
    that mean void, beside those that the table names. Every sample has one segment a class, id = label + 1.

    Raises:
        DataError: a folder is missing or empty, or images and labels do not pair up.
    """

    def __init__(
        self,
        images: str | Path,
        labels: str | Path,
        categories: str | Path | CategoryTable | Sequence[Category],
        void: int | Sequence[int] | None = None,
    ):
        self._images, self._labels = Path(images), Path(labels)
        table = as_table(categories)
        self.categories = table.categories
        given = () if void is None else (void,) if isinstance(void, int) else tuple(void)
        self._to_label = self._lookup(table, table.void_values | set(given))
        self._pairs = self._pair()

    def __len__(self) -> int:
        return len(self._pairs)

    def name(self, index: int) -> str:
        """The image's relative path without its ending; unique in the data set."""
        return self._pairs[index][0]

    def image_name(self, index: int) -> str:
        """The image's path relative to the images folder."""
        return self._pairs[index][1]

    def read(self, index: int) -> Sample:
        """Image number `index` with one segment for each class in it.

        Raises:
            DataError: a file cannot be read, sizes differ, or a pixel value is neither a class nor void.
        """
        name, image_name, _ = self._pairs[index]
        label_map = self.read_label_map(index)
        image = read_image(self._images / image_name)
        id_map = label_map + 1
        segments = [SegmentInfo(id_, id_ - 1) for id_ in values_in(id_map).tolist() if id_ > 0]
        return Sample(name, image, id_map, segments)

    def read_label_map(self, index: int) -> np.ndarray:
        """(H,W) int32 labels 0 .. K-1, -1 = void, of the same size as the image.

        Raises:
            DataError: a file cannot be read, sizes differ, or a pixel value is neither a class nor void.
        """
        _, image_name, label_name = self._pairs[index]
        path = self._labels / label_name
        values = read_labels(path)
        size = read_image_size(self._images / image_name)
        if values.shape != size:
            raise DataError(
                f"{path} is {values.shape[1]}x{values.shape[0]} pixels but its image {self._images / image_name} is "
                f"{size[1]}x{size[0]}; they must be of equal size."
            )
        present = values_in(values).tolist()
        unknown = [v for v in present if not 0 <= v < len(self._to_label) or self._to_label[v] == _UNKNOWN]
        if unknown:
            raise DataError(
                f"{path} has the pixel value {name_some(unknown)}, which is neither a class of the table nor void; "
                "choose the table that belongs to these labels or say which values are void."
            )
        return self._to_label[values]

    def _lookup(self, table: CategoryTable, void: set[int] | frozenset[int]) -> np.ndarray:
        both = sorted(void & set(table.label_values))
        if both:
            name = table.categories[table.label_values.index(both[0])].name
            raise DataError(
                f"The pixel value {both[0]} cannot mean void in {self._labels}: the class table has it for {name!r}."
            )
        to_label = np.full(max(*table.label_values, *void, 255) + 1, _UNKNOWN, np.int32)
        to_label[list(void)] = -1
        to_label[list(table.label_values)] = np.arange(len(table.label_values))
        return to_label

    def _pair(self) -> list[tuple[str, str, str]]:
        images, labels = _by_path(self._images), _by_path(self._labels)
        lonely = sorted(images.keys() ^ labels.keys())
        if lonely:
            in_images = lonely[0] in images
            has, lacks = (self._images, self._labels) if in_images else (self._labels, self._images)
            same = [name for name in lonely if (name in images) == in_images]
            raise DataError(f"{has} has {name_some(same)} but {lacks} has no file of that name; add or remove them.")
        if not images:
            raise DataError(f"The folder {self._images} holds no images.")
        return [(name, images[name], labels[name]) for name in sorted(images)]


_UNKNOWN = -2


def _by_path(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in list_images(folder):
        other = found.setdefault(without_ending(name), name)
        if other != name:
            raise DataError(f"{folder} has both {other} and {name}; keep one file of each name.")
    return found
