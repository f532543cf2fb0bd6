"""The JSON of a COCO panoptic data set: its images with their segments, and all that is wrong with it.

`CocoPanoptic` refuses a data set at the first fault, `knet data check` goes on and counts them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from knet.data.categories import categories_from_rows
from knet.data.class_order import OtherClassesError, labels_of_ids
from knet.data.files.io import name_some, read_json
from knet.data.files.numbers import flag, id_key, whole
from knet.data.readers.find_images import ImageFinder, plain_name
from knet.data.readers.reader import unknown_category
from knet.errors import DataError, shown
from knet.structures import Category, SegmentInfo

LARGEST_ID = 256**3 - 1


class Fault(NamedTuple):
    """Something wrong with a data set: a kind of `check.findings.KINDS`, and what a reader says of it.

    `examples` are what a check shows, one for each time that it is wrong.
    """

    kind: str
    examples: Sequence[object]
    sentence: str


@dataclass(slots=True)
class Entry:
    """An image of the JSON with its annotation.

    Attributes:
        image: path relative to the folder of images, None where it was not found or not looked for.
        mask: path relative to the folder of PNGs.
        size: (height, width), None where the JSON gives none.
        segments: their labels are -1 where the class table lacks the category.
        rows: the segments as the JSON has them; they take several times the memory.
    """

    name: str
    image: str | None
    mask: str
    size: tuple[int, int] | None
    segments: list[SegmentInfo]
    rows: list[dict[str, Any]]


class PanopticJson:
    """An open COCO panoptic JSON. `categories` are the classes in label order; None takes those of the file."""

    def __init__(self, path: Path, categories: Sequence[Category] | None):
        self.path, self.content = path, read_json(path)
        if not isinstance(self.content, dict):
            raise DataError(f"{path} is no COCO panoptic JSON: it must be an object with images and annotations.")
        if categories is None:
            categories, _ = categories_from_rows(self.content.get("categories"), str(path), DataError)
        self.categories = tuple(categories)
        self._other_classes = ""
        try:
            self._labels = labels_of_ids(self.content.get("categories"), self.categories, str(path))
        except OtherClassesError as fault:
            self._other_classes, self._labels = str(fault), fault.labels

    def walk(self, find: ImageFinder | None, folder: Path, masks: set[str]) -> Iterator[Entry | Fault]:
        """The images that have an annotation; before each the faults of its own, and first those of the whole file.

        Args:
            find: looks for the images; None leaves them alone.
            folder, masks: the folder of the PNGs, and the paths of those that are there, relative to it.
        """
        if self._other_classes:
            yield Fault(
                "other classes", [self._other_classes.partition(": ")[2].partition(". ")[0]], self._other_classes
            )
        by_id: dict[str, dict[object, dict[str, Any]]] = {}
        listed = self.content.get("images")
        same = id_key(row.get("id") for row in listed if isinstance(row, dict)) if isinstance(listed, list) else whole
        for key, name in (("images", "id"), ("annotations", "image_id")):
            listed, by_id[key] = self.content.get(key), {}
            if not isinstance(listed, list):
                what = f"{self.path} has no list '{key}'; a COCO panoptic JSON needs images and annotations"
                yield Fault("json", [what], f"{what}.")
                return
            yield from self._index(listed, key, name, same, by_id[key])
        images, annotations = by_id["images"], by_id["annotations"]
        for kind, what, other, rows, others in (
            ("no annotation", "image", "annotation", images, annotations),
            ("no image row", "annotation", "image", annotations, images),
        ):
            if alone := [id_ for id_ in rows if id_ not in others]:
                what = f"{self.path} has no {other} for the {what} {name_some(alone)}; add it or remove the row."
                yield Fault(kind, alone, what)
        for id_, row in images.items():
            if id_ in annotations:
                yield from self._entry(row, annotations[id_], find, folder, masks)

    def _index(
        self, listed: list[Any], key: str, name: str, same: Callable[[Any], Any], rows: dict[object, dict[str, Any]]
    ) -> Iterator[Fault]:
        """Puts the rows of a list under their image ids, of which `same` says how they are compared."""
        for row in listed:
            id_ = same(row.get(name)) if isinstance(row, dict) else None
            if id_ is None or not isinstance(row.get("file_name"), str):
                what = f"{self.path} has a row in '{key}' without {name} or file_name: {str(row)[:80]}."
                yield Fault("row", [f"{key}: {str(row)[:60]}"], what)
            elif id_ in rows:
                what = f"{self.path} lists the image id {shown(id_)} twice in '{key}'; ids must be unique."
                yield Fault("image id twice", [f"{id_} in '{key}'"], what)
            else:
                rows[id_] = row

    def _entry(
        self, row: dict[str, Any], annotation: dict[str, Any], find: ImageFinder | None, folder: Path, masks: set[str]
    ) -> Iterator[Entry | Fault]:
        name, image, where = str(row["id"]), None, f"{self.path}: image {shown(row['id'])}"
        mask = plain_name(annotation["file_name"], masks)
        if mask not in masks and f"{mask}.png" in masks:
            mask = f"{mask}.png"
        if mask not in masks:
            what = f"The panoptic PNG {folder / mask} of image {name} ({self.path}) does not exist."
            yield Fault("mask missing", [mask], what)
        if find is not None:
            try:
                image = find(row["file_name"])
            except DataError as fault:
                kind = "image ambiguous" if find.candidates(row["file_name"]) else "image missing"
                yield Fault(kind, [row["file_name"]], str(fault))
        height, width = row.get("height"), row.get("width")
        size: Any = None if height is None and width is None else (whole(height), whole(width))
        if size is not None and not all(edge is not None and edge > 0 for edge in size):
            what = f"{where} has height {shown(height)} and width {shown(width)}."
            yield Fault("json size", [f"{mask}, JSON {shown(width)}x{shown(height)}"], what)
            size = None
        rows: dict[int, dict[str, Any]] = {}
        yield from self._index_segments(annotation.get("segments_info"), name, where, rows)
        segments = []
        for id_, segment in rows.items():
            category, crowd = segment.get("category_id"), flag(segment.get("iscrowd") or 0)
            label = self._labels.get(-1 if (number := whole(category)) is None else number)
            if label is None:
                what = unknown_category(where, category, self._labels)
                yield Fault("unknown category", [f"{shown(category)} of {id_} in {name}"], what)
            if crowd is None:
                what = f"{where} has iscrowd {shown(segment['iscrowd'])} for the segment {id_}; give 0 or 1."
                yield Fault("segment row", [f"{id_} in {name} (iscrowd {shown(segment['iscrowd'])})"], what)
            segments.append(SegmentInfo(id_, -1 if label is None else label, bool(crowd)))
        yield Entry(name, image, mask, size, segments, list(rows.values()))

    def _index_segments(self, listed: Any, name: str, where: str, rows: dict[int, dict[str, Any]]) -> Iterator[Fault]:
        """Puts the segments of an image under their ids."""
        if not isinstance(listed, list):
            from_coco = "if this is a COCO *instances* file, `knet data from-coco` makes a panoptic one of it"
            what = f"{where} has no list 'segments_info'; {from_coco}."
            yield Fault("no segments_info", [name], what)
            return
        for row in listed:
            given = row.get("id") if isinstance(row, dict) else None
            id_ = whole(given)
            if id_ is None or not 1 <= id_ <= LARGEST_ID:
                what = f"{where} has a segment with the id {shown(given)}; ids go from 1 to {LARGEST_ID}."
                yield Fault("segment row", [f"{shown(given)} in {name}"], what)
            elif id_ in rows:
                what = f"{where} lists the segment {id_} twice; segment ids must be unique in an image."
                yield Fault("segment twice", [f"{id_} in {name}"], what)
            else:
                rows[id_] = row | {"id": id_} if row["id"] != id_ else row
