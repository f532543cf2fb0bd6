"""The JSON of a COCO instances data set: its images with their objects, all that is wrong, and what is left out.

`CocoInstances` refuses a data set at the first fault, `knet data check` goes on and counts them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from json import dumps
from pathlib import Path
from typing import Any, NamedTuple

from knet.data.categories import things_from_rows
from knet.data.class_order import labels_of_ids
from knet.data.files.io import read_json
from knet.data.files.masks import flat_polygons, mask_area, read_mask
from knet.data.files.numbers import flag, id_key, whole
from knet.data.files.pictures import MAX_PIXELS
from knet.data.readers.find_images import ImageFinder
from knet.data.readers.panoptic_json import Fault
from knet.data.readers.reader import unknown_category
from knet.errors import DataError, shown
from knet.structures import Category

DROPPED = {
    "no mask": "without a mask (neither RLE nor a polygon of three corners)",
    "mask empty": "whose mask has no pixel (too thin, or outside the image)",
    "mask fractions": "whose polygons go from 0 to 1 (COCO counts pixels)",
}
"""Why objects are left out: kinds of `check.findings.KINDS`, and how a sentence says it."""


class Oddity(NamedTuple):
    """An object that is left out (`DROPPED`), or whose area or box (kind "extent") does not fit its mask."""

    kind: str
    example: str


@dataclass(slots=True)
class Object:
    """One annotation; its mask is kept as the JSON's text, which takes a fraction of the memory."""

    number: int
    label: int
    crowd: bool
    segmentation: bytes


@dataclass(slots=True)
class Entry:
    """One image of the JSON. `size` is (height, width); `image` is its path in the folder, None if it was not found."""

    id: int | str
    file_name: str
    size: tuple[int, int]
    image: str | None = None
    objects: list[Object] = field(default_factory=list)


class InstancesJson:
    """An open COCO instances JSON. `categories` are the classes in label order; None takes those of the file.

    `content` is what it holds where somebody has read, and mended, it already.
    """

    def __init__(self, path: Path, categories: Sequence[Category] | None, content: Any = None):
        self.path, self.content = path, read_json(path) if content is None else content
        lists = ("images", "annotations")
        if not isinstance(self.content, dict) or not all(isinstance(self.content.get(key), list) for key in lists):
            raise DataError(f"{path} is no COCO instances JSON: it must hold lists 'images' and 'annotations'.")
        if categories is None:
            categories = things_from_rows(self.content.get("categories"), str(path))
        self.categories = tuple(categories)
        self.labels = labels_of_ids(self.content.get("categories"), self.categories, str(path), kinds=False)

    def walk(self, find: ImageFinder | None) -> Iterator[Entry | Fault | Oddity]:
        """The images with their objects, after all that is wrong with rows; `find` looks for the files."""
        same = id_key(row.get("id") for row in self.content["images"] if isinstance(row, dict))
        entries: dict[Any, Entry] = {}
        for row in self.content["images"]:
            yield from self._image(row, same, entries)
        for number, row in enumerate(self.content["annotations"], 1):
            yield from self._object(row, same, entries, number)
        for entry in entries.values():
            try:
                entry.image = None if find is None else find(entry.file_name)
            except DataError as fault:
                found = find is not None and find.candidates(entry.file_name)
                yield Fault("image ambiguous" if found else "image missing", [entry.file_name], str(fault))
            yield entry

    def _image(self, row: Any, same: Callable[[Any], Any], entries: dict[Any, Entry]) -> Iterator[Fault]:
        known: Any = row if isinstance(row, dict) else {}
        id_, name = same(known.get("id")), known.get("file_name")
        height, width = whole(known.get("height")) or 0, whole(known.get("width")) or 0
        if id_ is None or not isinstance(name, str) or height < 1 or width < 1 or height * width > MAX_PIXELS:
            what = f"{self.path}: an image needs id, file_name, height and width (of pixels), not {str(row)[:80]}."
            yield Fault("row", [f"images: {str(row)[:60]}"], what)
        elif id_ in entries:
            what = f"{self.path} lists the image id {shown(row['id'])} twice; ids must be unique."
            yield Fault("image id twice", [row["id"]], what)
        else:
            entries[id_] = Entry(row["id"], name, (height, width))

    def _object(
        self, row: Any, same: Callable[[Any], Any], entries: dict[Any, Entry], number: int
    ) -> Iterator[Fault | Oddity]:
        """Adds the object of an annotation to its image, unless it is one of those that are left out."""
        where = f"{self.path}: annotation {number}"
        if not isinstance(row, dict) or "segments_info" in row:
            what = f"{where} is {str(row)[:80]}; it must hold image_id, category_id and segmentation."
            yield Fault("row", [f"annotations: {str(row)[:60]}"], what)
            return
        entry, category = entries.get(same(row.get("image_id"))), row.get("category_id")
        label = self.labels.get(-1 if (id_ := whole(category)) is None else id_)
        crowd = flag(row.get("iscrowd") or 0)
        if entry is None:
            of = shown(row.get("image_id"))
            what = f"{where} is of the image {of}, which the file does not list; add it, or remove the annotation."
            yield Fault("no image row", [f"{shown(row.get('image_id'))} of annotation {number}"], what)
        elif label is None:
            what = unknown_category(where, category, self.labels)
            yield Fault("unknown category", [f"{shown(category)} of annotation {number}"], what)
        elif crowd is None:
            what = f"{where} has iscrowd {shown(row['iscrowd'])}; give 0 or 1."
            yield Fault("row", [f"annotation {number} (iscrowd {shown(row['iscrowd'])})"], what)
        else:
            try:
                odd = _oddity(row, entry.size, where)
            except DataError as fault:
                yield Fault("mask damaged", [str(fault).removeprefix(f"{self.path}: ").rstrip(".")], str(fault))
                return
            if odd is not None:
                yield Oddity(odd, f"annotation {number} of {entry.file_name}")
            if odd not in DROPPED:
                text = dumps(row["segmentation"]).encode()
                entry.objects.append(Object(number, label, crowd, text))


def _oddity(row: dict[str, Any], size: tuple[int, int], where: str) -> str | None:
    """The kind of oddity of an annotation. The mask decides; it is drawn only where other fields raise a doubt."""
    given = row.get("segmentation")
    given = flat_polygons(given) if isinstance(given, list) else given
    if not given or (isinstance(given, list) and all(isinstance(one, list) and len(one) in (0, 2, 4) for one in given)):
        return "no mask"
    if _in_fractions(given):
        return "mask fractions"
    if "bbox" in row and _has_extent(row, size):
        return None
    if not mask_area(read_mask(given, size, where)):
        return "mask empty"
    return None if _has_extent(row, size) else "extent"


def _in_fractions(given: Any) -> bool:
    """Whether the corners of polygons lie between 0 and 1, not all at the corners of the first pixel."""
    if not isinstance(given, list) or not all(isinstance(polygon, list) for polygon in given):
        return False
    corners = [number for polygon in given for number in polygon]
    inside = all(isinstance(number, int | float) and 0 <= number <= 1 for number in corners)  # ends at the first beyond
    return inside and any(number not in (0, 1) for number in corners)


def _has_extent(row: dict[str, Any], size: tuple[int, int]) -> bool:
    """Whether the annotation's area and box, where it has them, amount to at least a pixel in the image."""
    area, box = row.get("area", 1), row.get("bbox", (0, 0, *reversed(size)))
    numbers = [area, *box] if isinstance(box, list | tuple) else []
    if len(numbers) != 5 or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        return False
    left, top, width, height = box
    inside = left < size[1] and top < size[0] and left + width > 0 and top + height > 0
    return area > 0 and width >= 1 and height >= 1 and inside
