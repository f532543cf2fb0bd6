"""Reads a data set in the COCO instances form: a JSON of images and of objects with polygons or RLE.

Objects may overlap, which a single id map cannot hold. So a sample has a stack of maps, its layers: each object lies in
the first layer where it covers no earlier object. COCO's images need one to four. Whatever treats an id map pixel by
pixel (nearest resizing, crop, flip, padding) works on layers as well.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from json import loads
from pathlib import Path
from typing import Any

import numpy as np

from knet.data.files.io import read_image
from knet.data.files.masks import Rle, mask_area, mask_box, read_mask, unpack_mask
from knet.data.readers.find_images import ImageFinder
from knet.data.readers.instances_json import DROPPED, Entry, InstancesJson
from knet.data.readers.panoptic_json import Fault
from knet.data.readers.reader import size_text, without_image
from knet.errors import DataError
from knet.structures import Category, Sample, SegmentInfo

_logger = logging.getLogger("knet")

SMALLEST_EDGE = 32  # pixels of an image's shorter edge in training


class CocoInstances:
    """Any data set in the COCO instances form.

    Left out of every sample are annotations whose mask has no pixel: polygons of fewer than three corners, too thin, or
    beyond the edge of the image. The mask decides, not the fields `area` and `bbox`, which may be missing or wrong. All
    that is left out is counted and said. Crowds stay, marked, behind the other objects.

    What can be checked without opening a picture or drawing a polygon is checked at once, for all images.

    Args:
        images: folder of the images, see `ImageFinder`; None reads the ground truth only.
        json: the instances JSON.
        categories: the classes in label order; None takes those of the JSON, in its order.
        training: whether to leave out images without an object to learn (none at all, or crowds only) and those whose
            shorter edge is below 32 pixels.
        content: what is taken for the content of the JSON, in other classes; None reads it.

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
        content: dict[str, Any] | None = None,
    ):
        self._images = None if images is None else Path(images)
        self.json = Path(json)
        # What evaluation reads whole: with areas, and with what training leaves out.
        self.truth: Path | dict[str, Any] = self.json if content is None else content
        document = InstancesJson(self.json, categories, content)
        self.categories = document.categories
        self.category_ids = {label: id_ for id_, label in document.labels.items()}  # the JSON's own, by label
        find = None if self._images is None else ImageFinder(self._images, self.json)
        self._entries: list[Entry] = []
        dropped: Counter[str] = Counter()
        for found in document.walk(find):
            if isinstance(found, Fault):
                raise DataError(found.sentence)
            if isinstance(found, Entry):
                self._entries.append(found)
            elif found.kind in DROPPED:
                dropped[found.kind] += 1
        if not self._entries:
            raise DataError(f"{self.json} has no images; give another file.")
        if find is not None:
            find.say_oddities()
        whys = [f"{count} {DROPPED[kind]}" for kind, count in dropped.items()]
        self.left_out = f"objects are left out: {', '.join(whys)}" if whys else ""
        if self.left_out:
            _logger.warning(f"{self.json}: {self.left_out}.")
        if training:
            self._entries = self._worth_learning()

    def __len__(self) -> int:
        return len(self._entries)

    def name(self, index: int) -> str:
        """The image id of the JSON as text; unique in the data set."""
        return str(self._entries[index].id)

    def image_id(self, index: int) -> int | str:
        """The image id as the JSON has it."""
        return self._entries[index].id

    def segments(self, index: int) -> list[SegmentInfo]:
        """The objects of an image, as far as they are known without drawing masks."""
        return [SegmentInfo(thing.number, thing.label, thing.crowd) for thing in self._entries[index].objects]

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

    def _worth_learning(self) -> list[Entry]:
        """The images to train on; says how many are left out. Raises `DataError` if none is left."""
        left_out = Counter(_why_useless(entry) for entry in self._entries)
        useful = left_out.pop("", 0)
        whys = [f"{count} {why}" for why, count in left_out.items()]
        if not useful:
            whys += [self.left_out] if self.left_out else []
            raise DataError(f"{self.json} has nothing to learn; its images are: {'; '.join(whys)}.")
        if whys:
            _logger.info(f"{self.json}: training leaves images out: {', '.join(whys)}.")
        return [entry for entry in self._entries if not _why_useless(entry)]


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


def _why_useless(entry: Entry) -> str:
    """Why there is nothing to learn from an image; "" if there is."""
    if min(entry.size) < SMALLEST_EDGE:
        return f"with an edge below {SMALLEST_EDGE} pixels"
    if all(thing.crowd for thing in entry.objects):
        return "with crowds only (iscrowd 1)" if entry.objects else "without an object"
    return ""
