"""Reads a data set in the COCO panoptic form: a JSON that lists images and segments, and one RGB PNG of ids an image.

Cityscapes (after the official conversion), Mapillary Vistas and COCO itself all come in this form.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from knet.data.categories import categories_from_rows
from knet.data.files.id_cache import IdCache
from knet.data.files.io import list_images, name_some, read_ids, read_image, read_json, values_in, without_ending
from knet.errors import DataError
from knet.structures import Category, Sample, SegmentInfo

LARGEST_ID = 256**3 - 1


@dataclass(frozen=True, slots=True)
class _Entry:
    """One image of the JSON with its annotation. `size` is (height, width), None where the JSON gives none."""

    name: str
    image: str | None
    mask: str
    size: tuple[int, int] | None
    segments: list[SegmentInfo]


class CocoPanoptic:
    """Any data set in the COCO panoptic form.

    images: folder of the images; None reads ground truth only · json: the panoptic JSON · masks: folder of its PNGs ·
    categories: the classes in label order; None takes those of the JSON, in its order · cache: folder that keeps the
    PNGs' content in a form that is read faster (`IdCache`); None decodes them each time.

    An image is looked for under the JSON's file_name, then anywhere below the folder under the same name with another
    ending, then under the real name of a Cityscapes image (the official conversion writes "..._gtFine_leftImg8bit").
    What can be checked without opening a picture is checked at once, for all images.

    Raises:
        DataError: a missing or broken file, or a JSON that contradicts itself, its folders or the categories.
    """

    def __init__(
        self,
        images: str | Path | None,
        json: str | Path,
        masks: str | Path,
        categories: Sequence[Category] | None = None,
        cache: str | Path | None = None,
    ):
        self._images = None if images is None else Path(images)
        self._json = Path(json)
        self._masks = Path(masks)
        self._read_ids = read_ids if cache is None else IdCache(Path(cache)).read
        content = read_json(self._json)
        if not isinstance(content, dict):
            raise DataError(f"{self._json} is no COCO panoptic JSON: it must be an object with images and annotations.")
        if categories is None:
            categories, _ = categories_from_rows(content.get("categories"), str(self._json), DataError)
        self.categories = tuple(categories)
        self._labels = {category.id: label for label, category in enumerate(self.categories)}
        self._entries = self._pair(self._rows(content, "images", "id"), self._rows(content, "annotations", "image_id"))

    def __len__(self) -> int:
        return len(self._entries)

    def name(self, index: int) -> str:
        """The image id of the JSON as text; unique in the data set."""
        return self._entries[index].name

    def read(self, index: int) -> Sample:
        """Image number `index` with its id map and segments.

        Raises:
            DataError: a file cannot be read, or PNG, image and JSON disagree on sizes or segments.
        """
        image_name = self._entries[index].image
        if self._images is None or image_name is None:
            raise DataError(f"{self._json} was opened without a folder of images; give one to read images.")
        path = self._images / image_name
        sample = self._read_map(index, read_image(path))
        if sample.image.shape[:2] != sample.id_map.shape:
            raise DataError(
                f"{path} is {_size(sample.image.shape)} but its ground truth "
                f"{self._masks / self._entries[index].mask} is {_size(sample.id_map.shape)}; they must be equal."
            )
        return sample

    def read_truth(self, index: int) -> Sample:
        """Like `read`, with an empty image (0,0,3): evaluation needs no pixels.

        Raises:
            DataError: the PNG cannot be read, or it and the JSON disagree.
        """
        return self._read_map(index, np.zeros((0, 0, 3), np.uint8))

    def _read_map(self, index: int, image: np.ndarray) -> Sample:
        entry = self._entries[index]
        path = self._masks / entry.mask
        id_map = self._read_ids(path)
        if entry.size is not None and id_map.shape != entry.size:
            raise DataError(
                f"{path} is {_size(id_map.shape)} but {self._json} says {_size(entry.size)} for image {entry.name}; "
                "use the PNGs that belong to this JSON."
            )
        in_map = set(values_in(id_map).tolist()) - {0}
        in_json = {segment.id for segment in entry.segments}
        if in_map != in_json:
            extra, lacking = sorted(in_map - in_json), sorted(in_json - in_map)
            what = f"has the ids {name_some(extra)} that" if extra else f"lacks the ids {name_some(lacking)} that"
            verb = "does not list" if extra else "lists"
            raise DataError(
                f"{path} {what} {self._json} {verb} for image {entry.name}; use the PNGs that belong to this JSON."
            )
        return Sample(entry.name, image, id_map, list(entry.segments))

    def _rows(self, content: dict[str, Any], key: str, id_key: str) -> dict[object, dict[str, Any]]:
        """The rows of one list of the JSON by image id."""
        listed = content.get(key)
        if not isinstance(listed, list):
            raise DataError(f"{self._json} has no list '{key}'; a COCO panoptic JSON needs images and annotations.")
        rows: dict[object, dict[str, Any]] = {}
        for row in listed:
            id_ = row.get(id_key) if isinstance(row, dict) else None
            if isinstance(id_, bool) or not isinstance(id_, int | str) or not isinstance(row.get("file_name"), str):
                raise DataError(f"{self._json} has a row in '{key}' without {id_key} or file_name: {str(row)[:80]}.")
            if id_ in rows:
                raise DataError(f"{self._json} lists the image id {id_!r} twice in '{key}'; ids must be unique.")
            rows[id_] = row
        return rows

    def _pair(self, images: dict[object, dict[str, Any]], annotations: dict[object, dict[str, Any]]) -> list[_Entry]:
        if images.keys() != annotations.keys():
            alone = [id_ for id_ in images if id_ not in annotations]
            kind, other = ("image", "annotation") if alone else ("annotation", "image")
            alone = alone or [id_ for id_ in annotations if id_ not in images]
            raise DataError(f"{self._json} has no {other} for the {kind} {name_some(alone)}; add it or remove the row.")
        find_image = None if self._images is None else ImageFinder(self._images, self._json)
        masks = set(list_images(self._masks))
        entries = []
        for id_, row in images.items():
            annotation = annotations[id_]
            mask = PurePosixPath(annotation["file_name"]).as_posix()
            if mask not in masks:
                raise DataError(f"The panoptic PNG {self._masks / mask} of image {id_} ({self._json}) does not exist.")
            image = None if find_image is None else find_image(row["file_name"])
            entries.append(_Entry(str(id_), image, mask, self._size_of(row), self._segments(annotation)))
        return entries

    def _size_of(self, row: dict[str, Any]) -> tuple[int, int] | None:
        height, width = row.get("height"), row.get("width")
        if height is None and width is None:
            return None
        if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
            raise DataError(f"{self._json}: image {row['id']!r} has height {height!r} and width {width!r}.")
        return height, width

    def _segments(self, annotation: dict[str, Any]) -> list[SegmentInfo]:
        where = f"{self._json}: image {annotation['image_id']!r}"
        rows = annotation.get("segments_info")
        if not isinstance(rows, list):
            raise DataError(f"{where} has no list 'segments_info'; is this a COCO *instances* file?")
        segments: dict[int, SegmentInfo] = {}
        for row in rows:
            id_, category = (row.get("id"), row.get("category_id")) if isinstance(row, dict) else (None, None)
            if isinstance(id_, bool) or not isinstance(id_, int) or not 1 <= id_ <= LARGEST_ID:
                raise DataError(f"{where} has a segment with the id {id_!r}; ids go from 1 to {LARGEST_ID}.")
            if id_ in segments:
                raise DataError(f"{where} lists the segment {id_} twice; segment ids must be unique in an image.")
            label = self._labels.get(category) if isinstance(category, int) else None
            if label is None:
                known = name_some(sorted(self._labels))
                raise DataError(
                    f"{where} has a segment of category {category!r}, which the class table lacks (it has {known}); "
                    "choose the table that belongs to this data set."
                )
            segments[id_] = SegmentInfo(id_, label, bool(row.get("iscrowd", 0)))
        return list(segments.values())


class ImageFinder:
    """Finds images below a folder by the file_name of a JSON (see `CocoPanoptic` for the rules)."""

    def __init__(self, folder: Path, json: Path):
        self._folder, self._json = folder, json
        self._names = set(list_images(folder))
        self._by_path: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for name in sorted(self._names):
            self._by_path.setdefault(without_ending(name), []).append(name)
            self._by_stem.setdefault(PurePosixPath(name).stem, []).append(name)

    def candidates(self, file_name: str) -> list[str]:
        """The paths relative to the folder that a file_name may mean: one, if all is well."""
        name = PurePosixPath(file_name).as_posix()
        if name in self._names:
            return [name]
        stem = PurePosixPath(name).stem
        if not stem:
            return []
        original = re.sub(r"_gtFine_leftImg8bit$", "_leftImg8bit", stem)  # see the class's docstring
        return self._by_path.get(without_ending(name)) or self._by_stem.get(stem) or self._by_stem.get(original) or []

    def __call__(self, file_name: str) -> str:
        """The path relative to the folder.

        Raises:
            DataError: no such image, or several that could be meant.
        """
        found = self.candidates(file_name)
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(f"{self._json}: image {file_name} could be any of {name_some(found)} in {self._folder}.")
        raise DataError(
            f"The image {self._folder / file_name} ({self._json}) does not exist; is this the right folder?"
        )


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]} pixels"
