"""Looks through a whole data set before a long training does: reads every file, and reports all that is wrong at once.

`CocoPanoptic` refuses a broken data set at its first mistake; a check goes on and counts them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from knet.data.categories import categories_from_rows, load_table
from knet.data.check.findings import CheckReport, ClassCount, Notes
from knet.data.files.io import areas_in, list_images, read_ids, read_image, read_json
from knet.data.readers.coco_panoptic import LARGEST_ID, ImageFinder
from knet.data.readers.roots import (
    CITYSCAPES_SPLITS,
    MAPILLARY_SPLITS,
    RootSplit,
    find_cityscapes,
    find_mapillary,
    label_stems,
    unpaired_files,
)
from knet.errors import ConfigError, DataError
from knet.structures import Category

ROOTS = ("cityscapes", "mapillary")


def check_panoptic(
    images: str | Path,
    json: str | Path,
    masks: str | Path,
    categories: Sequence[Category] | None = None,
    *,
    name: str | None = None,
    progress: bool = True,
) -> CheckReport:
    """Checks a data set in the COCO panoptic form, file by file.

    categories: the classes in label order, None takes those of the JSON · name: what the report is called, by default
    the JSON's path. Memory does not grow with the number of pixels, only with the JSON.

    Raises:
        DataError: a folder does not exist. All else that is wrong is in the report.
    """
    files = RootSplit(name or str(json), Path(images), Path(), Path(json), Path(masks), "", "")
    return _Check(files, categories, {}).run(progress)


def check_root(
    layout: str,
    root: str | Path,
    splits: Sequence[str] | None = None,
    *,
    version: str | None = None,
    progress: bool = True,
) -> list[CheckReport]:
    """Checks the splits of a prepared Cityscapes or Mapillary Vistas folder, and that no raw label was forgotten.

    version: of Mapillary Vistas, as in `find_mapillary`.

    Raises:
        ConfigError: an unknown layout.
        DataError: a folder is missing, or a split is not prepared yet.
    """
    if layout not in ROOTS:
        raise ConfigError(f"There is no data set layout {layout!r} to check; choose from {', '.join(ROOTS)}.")
    checks = []
    digests: dict[bytes, str] = {}  # one for all splits: a picture of train in val spoils the figures
    for split, categories in _prepared(layout, Path(root), splits, version):
        check = _Check(split, categories, digests)
        check.compare_labels()
        checks.append(check)
    return [check.run(progress) for check in checks]


def _prepared(
    layout: str, root: Path, splits: Sequence[str] | None, version: str | None
) -> Iterator[tuple[RootSplit, Sequence[Category] | None]]:
    categories: Sequence[Category] | None
    if layout == "cityscapes":
        found = find_cityscapes(root, splits or CITYSCAPES_SPLITS)
        with_train_ids = find_cityscapes(root, splits or CITYSCAPES_SPLITS, train_ids=True)
        categories = load_table("cityscapes").categories
    else:
        vistas = find_mapillary(root, splits or MAPILLARY_SPLITS, version)
        found = with_train_ids = vistas.splits
        categories = load_table(vistas.table).categories if vistas.table.is_file() else None
    for split, other in zip(found, with_train_ids, strict=True):
        if split.json.is_file():
            yield split, categories
        elif other.json.is_file():
            yield other, None
        else:
            raise DataError(f"{split.json} does not exist; run `knet data prepare {layout} {root}` first.")


@dataclass(slots=True)
class _Counts:
    """Numbers of one class; the fields are those of `ClassCount`."""

    images: int = 0
    segments: int = 0
    crowds: int = 0
    pixels: int = 0


@dataclass(slots=True)
class _Entry:
    """An image of the JSON and its annotation, as far as they make sense. `segments`: id -> row."""

    name: str
    row: dict[str, Any]
    mask: str
    segments: dict[int, dict[str, Any]] = field(default_factory=dict)


class _Check:
    """One run over one data set. `digests` of the images' bytes -> path, shared by checks that belong together."""

    def __init__(self, files: RootSplit, categories: Sequence[Category] | None, digests: dict[bytes, str]):
        self._files, self._categories, self._digests = files, categories, digests
        self._notes = Notes()
        self._counts: dict[int, _Counts] = {}
        self._pixels = self._void = self._images = 0
        self._ids: list[int] = []
        self._sizes: list[tuple[int, int]] = []
        self._used: set[str] = set()

    def compare_labels(self) -> None:
        """Notes raw labels that have no image or are not in the JSON."""
        lonely, _ = unpaired_files(self._files)
        for label in lonely:
            self._notes.add("label without image", label)
        with suppress(DataError):  # a broken JSON is noted in `run`
            content = read_json(self._files.json)
            listed = content.get("images") if isinstance(content, dict) else None
            rows = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
            self._compare_ids({str(row.get("id")) for row in rows})

    def _compare_ids(self, ids: set[str]) -> None:
        for stem in label_stems(self._files):
            if stem not in ids:
                self._notes.add("label not prepared", stem)

    def run(self, progress: bool) -> CheckReport:
        """Reads everything and reports."""
        find = ImageFinder(self._files.images, self._files.json)
        masks = set(list_images(self._files.masks))
        entries = self._entries()
        self._counts = {category.id: _Counts() for category in self._categories or ()}
        self._images = len(entries)
        shown = f"checking {Path(self._files.name).name}"
        for entry in tqdm(entries, desc=shown, unit="image", disable=None if progress else True):
            self._segments(entry)
            image_size = self._image(entry, find)
            if entry.mask in masks:
                self._mask(entry, image_size)
            else:
                self._notes.add("mask missing", entry.mask)
        for name in sorted(set(list_images(self._files.images)) - self._used):
            self._notes.add("image unused", name)
        for name in sorted(masks - {entry.mask for entry in entries}):
            self._notes.add("mask unused", name)
        return self._report()

    def _entries(self) -> list[_Entry]:
        """The images of the JSON that have an annotation; sets the categories."""
        try:
            content = read_json(self._files.json)
            if not isinstance(content, dict):
                raise DataError(f"{self._files.json} is no object with images and annotations")
            self._compare_categories(content.get("categories"))
            images = self._rows(content, "images", "id")
            annotations = self._rows(content, "annotations", "image_id")
        except DataError as fault:
            self._notes.add("json", str(fault).rstrip("."))
            return []
        for id_ in annotations.keys() - images.keys():
            self._notes.add("no image row", id_)
        entries = []
        for id_, row in images.items():
            if id_ not in annotations:
                self._notes.add("no annotation", id_)
                continue
            entry = _Entry(str(id_), row, PurePosixPath(annotations[id_]["file_name"]).as_posix())
            self._list_segments(entry, annotations[id_].get("segments_info"))
            entries.append(entry)
        return entries

    def _compare_categories(self, rows: object) -> None:
        if self._categories is None:
            self._categories, _ = categories_from_rows(rows, str(self._files.json), DataError)
        elif isinstance(rows, list):
            thing = {str(row.get("id")): row.get("isthing") for row in rows if isinstance(row, dict)}
            for category in self._categories:
                if thing.get(str(category.id)) == int(not category.thing):
                    self._notes.add("thing differs", category.name)

    def _rows(self, content: dict[str, Any], key: str, id_key: str) -> dict[object, dict[str, Any]]:
        listed = content.get(key)
        if not isinstance(listed, list):
            raise DataError(f"{self._files.json} has no list '{key}'")
        rows: dict[object, dict[str, Any]] = {}
        for row in listed:
            id_ = row.get(id_key) if isinstance(row, dict) else None
            if isinstance(id_, bool) or not isinstance(id_, int | str) or not isinstance(row.get("file_name"), str):
                self._notes.add("row", f"{key}: {str(row)[:60]}")
            elif id_ in rows:
                self._notes.add("image id twice", f"{id_} in '{key}'")
            else:
                rows[id_] = row
        return rows

    def _list_segments(self, entry: _Entry, rows: object) -> None:
        if not isinstance(rows, list):
            self._notes.add("no segments_info", entry.name)
            return
        for row in rows:
            id_ = row.get("id") if isinstance(row, dict) else None
            if isinstance(id_, bool) or not isinstance(id_, int) or not 1 <= id_ <= LARGEST_ID:
                self._notes.add("segment row", f"{id_!r} in {entry.name}")
            elif id_ in entry.segments:
                self._notes.add("segment twice", f"{id_} in {entry.name}")
            else:
                entry.segments[id_] = row

    def _segments(self, entry: _Entry) -> None:
        """Counts the segments of one image."""
        if entry.segments:
            self._ids = [min([*entry.segments, *self._ids]), max([*entry.segments, *self._ids])]
        classes = set()
        for id_, row in entry.segments.items():
            counts = self._counts_of(row)
            if counts is None:
                self._notes.add("unknown category", f"{row.get('category_id')!r} of {id_} in {entry.name}")
            elif row.get("iscrowd", 0):
                counts.crowds += 1
            else:
                counts.segments += 1
                classes.add(row["category_id"])
        for category in classes:
            self._counts[category].images += 1
        if not classes:
            self._notes.add("nothing to learn", entry.name)

    def _counts_of(self, row: dict[str, Any]) -> _Counts | None:
        category = row.get("category_id")
        return self._counts.get(category) if isinstance(category, int) else None

    def _image(self, entry: _Entry, find: ImageFinder) -> tuple[int, int] | None:
        """(height, width) of the image, None if it cannot be read."""
        found = find.candidates(entry.row["file_name"])
        if len(found) != 1:
            self._notes.add("image ambiguous" if found else "image missing", entry.row["file_name"])
            return None
        name, path = found[0], self._files.images / found[0]
        if name in self._used:
            self._notes.add("same file twice", name)
            return None
        self._used.add(name)
        try:
            height, width = read_image(path).shape[:2]
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
        except (DataError, OSError):
            self._notes.add("image unreadable", name)
            return None
        other = self._digests.setdefault(digest, str(path))
        if other != str(path):
            self._notes.add("same picture", f"{other} = {path}")
        self._sizes = sorted({*self._sizes, (height, width)}, key=lambda size: size[0] * size[1])
        self._sizes = [self._sizes[0], self._sizes[-1]]
        return height, width

    def _mask(self, entry: _Entry, image_size: tuple[int, int] | None) -> None:
        """Compares a panoptic PNG with the JSON and with the image."""
        try:
            id_map = read_ids(self._files.masks / entry.mask)
        except DataError:
            self._notes.add("mask unreadable", entry.mask)
            return
        size = id_map.shape[0], id_map.shape[1]
        stated = entry.row.get("height", size[0]), entry.row.get("width", size[1])
        if stated != size:
            self._notes.add("json size", f"{entry.mask} {_size(size)}, JSON {_size(stated)}")
        if image_size is not None and image_size != size:
            self._notes.add("image size", f"{entry.mask} {_size(size)}, image {_size(image_size)}")
        areas = areas_in(id_map)
        self._pixels += id_map.size
        self._void += areas.pop(0, 0)
        for id_, area in areas.items():
            row = entry.segments.get(id_)
            if row is None:
                self._notes.add("not in json", f"{id_} in {entry.mask}")
                continue
            counts = self._counts_of(row)
            if counts is not None:
                counts.pixels += area
            if row.get("area", area) != area:
                self._notes.add("area", f"{id_} in {entry.mask}: {area} pixels, JSON {row['area']}")
        for id_ in sorted(entry.segments.keys() - areas.keys()):
            self._notes.add("not in png", f"{id_} in {entry.mask}")

    def _report(self) -> CheckReport:
        labelled = max(self._pixels - self._void, 1)
        classes = []
        for category in self._categories or ():
            counts = self._counts[category.id]
            if self._images and not counts.segments + counts.crowds:
                self._notes.add("class absent", category.name)
            numbers = counts.images, counts.segments, counts.crowds, counts.pixels, counts.pixels / labelled
            classes.append(ClassCount(category.id, category.name, category.thing, *numbers))
        ids = [row.id for row in classes]
        return CheckReport(
            name=self._files.name,
            images=self._images,
            findings=self._notes.findings(),
            classes=classes,
            void_share=self._void / max(self._pixels, 1),
            segment_ids=(self._ids[0], self._ids[1]) if self._ids else None,
            category_ids=(min(ids), max(ids)) if ids else None,
            sizes=(self._sizes[0], self._sizes[-1]) if self._sizes else None,
        )


def _size(size: Sequence[object]) -> str:
    return f"{size[1]}x{size[0]}"
