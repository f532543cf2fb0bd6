"""Reads a data set in the COCO instances form: a JSON of images and of objects with polygons or RLE.

Objects may overlap, which a single id map cannot hold. So a sample has a stack of maps, its layers: each object lies in
the first layer where it covers no earlier object. COCO's images need one to four. Whatever treats an id map pixel by
pixel (nearest resizing, crop, flip, padding) works on layers as well.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from json import dumps, loads
from pathlib import Path
from typing import Any

import numpy as np

from knet.data.categories import things_from_rows
from knet.data.files.io import read_image, read_json
from knet.data.files.masks import Rle, mask_area, mask_box, read_mask, unpack_mask
from knet.data.readers.find_images import ImageFinder
from knet.data.readers.reader import size_text, unknown_category, without_image
from knet.errors import DataError
from knet.structures import Category, Sample, SegmentInfo

SMALLEST_EDGE = 32  # pixels of an image's shorter edge in training


@dataclass(slots=True)
class _Object:
    """One annotation; its mask is kept as the JSON's text, which takes a fraction of the memory."""

    number: int
    label: int
    crowd: bool
    segmentation: bytes


@dataclass(slots=True)
class _Entry:
    """One image of the JSON. `size` is (height, width)."""

    id: int | str
    file_name: str
    size: tuple[int, int]
    image: str | None = None
    objects: list[_Object] = field(default_factory=list)


class CocoInstances:
    """Any data set in the COCO instances form.

    Left out of every sample, as in K-Net's training, are annotations with a field `area` of 0, with a `bbox` that is
    less than a pixel wide or high or lies outside the image, and those whose mask has no pixel: polygons of fewer than
    three corners, too thin, or beyond the edge of the image. Crowds stay, marked, behind the other objects.

    What can be checked without opening a picture or drawing a polygon is checked at once, for all images.

    Args:
        images: folder of the images, see `ImageFinder`; None reads the ground truth only.
        json: the instances JSON.
        categories: the classes in label order; None takes those of the JSON, in its order.
        training: whether to leave out images without an object to learn (none at all, or crowds only) and those whose
            shorter edge is below 32 pixels.

    Raises:
        DataError: a missing or broken file, a JSON that contradicts itself, its folder or the categories, or nothing to
            train on.
    """

    def __init__(
        self,
        images: str | Path | None,
        json: str | Path,
        categories: Sequence[Category] | None = None,
        training: bool = False,
    ):
        self._images = None if images is None else Path(images)
        self.json = Path(json)  # evaluation reads it whole: with areas, and with what training leaves out
        content = read_json(self.json)
        if not isinstance(content, dict) or not all(
            isinstance(content.get(k), list) for k in ("images", "annotations")
        ):
            raise DataError(f"{self.json} is no COCO instances JSON: it must hold lists 'images' and 'annotations'.")
        if categories is None:
            categories = things_from_rows(content.get("categories"), str(self.json))
        self.categories = tuple(categories)
        self._labels = {category.id: label for label, category in enumerate(self.categories)}
        entries = self._read_images(content["images"])
        for number, row in enumerate(content["annotations"], 1):
            self._read_annotation(row, entries, number)
        if training:
            entries = {id_: entry for id_, entry in entries.items() if _worth_learning(entry)}
        if not entries:
            what = f"images of {SMALLEST_EDGE} pixels or more with an object that is no crowd" if training else "images"
            raise DataError(f"{self.json} has no {what}; give another file.")
        find_image = None if self._images is None else ImageFinder(self._images, self.json)
        for entry in entries.values():
            entry.image = None if find_image is None else find_image(entry.file_name)
        if find_image is not None:
            find_image.say_elsewhere()
        self._entries = list(entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def name(self, index: int) -> str:
        """The image id of the JSON as text; unique in the data set."""
        return str(self._entries[index].id)

    def image_id(self, index: int) -> int | str:
        """The image id as the JSON has it."""
        return self._entries[index].id

    def read(self, index: int) -> Sample:
        """Reads image number `index` with its objects; `id_map` is (L,H,W) int32, the layers, L >= 1."""
        return replace(self.read_truth(index), image=self.read_image(index))

    def read_image(self, index: int) -> np.ndarray:
        """Reads image number `index` alone. -> (H,W,3) uint8 RGB"""
        entry = self._entries[index]
        if self._images is None or entry.image is None:
            raise DataError(f"{self.json} was opened without a folder of images; give one to read images.")
        path = self._images / entry.image
        image = read_image(path)
        if image.shape[:2] != entry.size:
            told = f"is {size_text(image.shape)} pixels but {self.json} says {size_text(entry.size)}"
            raise DataError(f"{path} {told}; use the images that belong to this JSON.")
        return image

    def read_truth(self, index: int) -> Sample:
        """Like `read`, with an empty image (0,0,3)."""
        entry = self._entries[index]
        kept = []
        for thing in sorted(entry.objects, key=lambda thing: thing.crowd):
            rle = read_mask(loads(thing.segmentation), entry.size, f"{self.json}: annotation {thing.number}")
            if mask_area(rle):
                kept.append((thing, rle))
        segments = [SegmentInfo(id_, thing.label, thing.crowd) for id_, (thing, _) in enumerate(kept, 1)]
        return without_image(str(entry.id), stack_layers([rle for _, rle in kept], entry.size), segments)

    def _read_images(self, rows: Sequence[Any]) -> dict[int | str, _Entry]:
        entries: dict[int | str, _Entry] = {}
        for row in rows:
            known: Any = row if isinstance(row, dict) else {}
            id_, name, height, width = (known.get(key) for key in ("id", "file_name", "height", "width"))
            sized = all(type(edge) is int and edge > 0 for edge in (height, width))
            if type(id_) not in (int, str) or not isinstance(name, str) or not sized:
                raise DataError(f"{self.json}: an image needs id, file_name, height and width, not {str(row)[:80]}.")
            if id_ in entries:
                raise DataError(f"{self.json} lists the image id {id_!r} twice; ids must be unique.")
            entries[id_] = _Entry(id_, name, (height, width))
        return entries

    def _read_annotation(self, row: Any, entries: dict[Any, _Entry], number: int) -> None:
        """Adds the object to its image, unless it is one of those that are left out."""
        where = f"{self.json}: annotation {number}"
        if not isinstance(row, dict) or row.get("segmentation") is None:
            raise DataError(f"{where} is {str(row)[:80]}; it must hold image_id, category_id and segmentation.")
        image, category = row.get("image_id"), row.get("category_id")
        entry = entries.get(image) if type(image) in (int, str) else None
        if entry is None:
            raise DataError(f"{where} is of the image {image!r}, which the file does not list.")
        label = self._labels.get(category) if type(category) is int else None
        if label is None:
            raise DataError(unknown_category(where, category, self._labels))
        if _has_extent(row, entry.size, where):
            text = dumps(row["segmentation"]).encode()
            entry.objects.append(_Object(number, label, bool(row.get("iscrowd", 0)), text))


def stack_layers(rles: Iterable[Rle], size: tuple[int, int]) -> np.ndarray:
    """Puts masks that may overlap into a stack of id maps. Packed RLE of (H,W) masks -> (L,H,W) int32, L >= 1

    Mask t has the value t + 1 in the first layer where it covers no other; 0 is nothing.
    """
    layers = [np.zeros(size, np.int32)]
    for value, rle in enumerate(rles, 1):
        left, top, width, height = map(int, mask_box(rle))
        place = slice(top, top + height), slice(left, left + width)
        mask = unpack_mask(rle)[place]
        layer = next((layer for layer in layers if not layer[place][mask].any()), None)
        if layer is None:
            layer = np.zeros(size, np.int32)
            layers.append(layer)
        layer[place][mask] = value
    return np.stack(layers)


def _has_extent(row: dict[str, Any], size: tuple[int, int], where: str) -> bool:
    """Whether the annotation's area and box, where it has them, amount to at least a pixel in the image."""
    area, box = row.get("area", 1), row.get("bbox", (0, 0, *reversed(size)))
    numbers = [area, *box] if isinstance(box, list | tuple) else []
    if len(numbers) != 5 or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        raise DataError(f"{where} has the area {area!r:.40} and the box {box!r:.60}; give numbers: [x, y, w, h].")
    left, top, width, height = box
    inside = left < size[1] and top < size[0] and left + width > 0 and top + height > 0
    return area > 0 and width >= 1 and height >= 1 and inside


def _worth_learning(entry: _Entry) -> bool:
    return min(entry.size) >= SMALLEST_EDGE and any(not thing.crowd for thing in entry.objects)
