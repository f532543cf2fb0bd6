"""Reads and writes Cityscapes-VPS: six labelled frames, five apart, of each of 500 street videos.

`panoptic_inst` holds 16-bit PNGs: train id of the class, or train id * 1000 + object, 255 is void; an object keeps its
number throughout a video. The validation set for the official metric comes as `panoptic_video`, RGB ids that stay the
same throughout a video, with a JSON in the COCO panoptic form. Source: mcahny/vps.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from knet.data.categories import CategoryTable, as_table, load_categories
from knet.data.class_order import labels_of_ids
from knet.data.files.io import list_images, read_ids, read_json
from knet.data.files.numbers import flag, whole
from knet.data.readers.clips import ClipReader, FrameFiles, look_up, make_id_map, refuse_lonely
from knet.data.readers.find_images import plain_name
from knet.data.readers.numbered_png import NumberedPng
from knet.errors import DataError
from knet.structures import Category, SegmentInfo

_MASKS = NumberedPng("Cityscapes-VPS mask", objects=1000, shift=0, void=(255,))
VPS_OBJECTS = _MASKS.objects  # of a class, in a video
write_vps_png = _MASKS.write
_IMAGE_ENDINGS = ("_newImg8bit.png", "_leftImg8bit.png")
_TRUTH_ENDINGS = ("_final_mask.png", "_gtFine_color.png")


class CityscapesVps(ClipReader):
    """A split of Cityscapes-VPS.

    The names of its files begin with the video and the number of the frame in it. In `panoptic_inst` a thing's class
    without an object is a crowd; of `panoptic_video`, objects are numbered in the order of the JSON.

    Args:
        root: holds `<split>/img` and `<split>/panoptic_inst`, or `<split>/panoptic_video` and
            `panoptic_gt_<split>_city_vps.json`.
        split: train or val.
        categories: the classes in label order, whose ids, or a table's label values, are train ids; None takes the
            table cityscapes_vps. Those of the JSON are found by name.
    """

    def __init__(self, root: str | Path, split: str, categories: CategoryTable | Sequence[Category] | None = None):
        root = Path(root)
        table = as_table(load_categories("cityscapes_vps") if categories is None else categories)
        self._ids = table.label_values
        folder = root / split
        self._plain = (folder / "panoptic_inst").is_dir()
        masks = folder / ("panoptic_inst" if self._plain else "panoptic_video")
        of_masks = {frame_stem(name): name for name in list_images(masks)}
        images = folder / "img"
        of_images = {frame_stem(name): name for name in list_images(images)} if images.is_dir() else {}
        if of_images:
            refuse_lonely(images, of_images, masks, of_masks)
        frames = []
        for stem, mask in of_masks.items():
            video, _, rest = stem.partition("_")
            number = rest.partition("_")[0]
            if not number.isdecimal():
                raise DataError(
                    f"{masks / mask} is not named <video>_<frame>_<city>_..., as Cityscapes-VPS's files are."
                )
            image = images / of_images[stem] if of_images else None
            frames.append(FrameFiles(video, int(number), image, masks / mask))
        super().__init__(frames, table.categories, str(masks))
        self._segments: dict[str, list[tuple[int, int, int]]] = {}
        if not self._plain:
            self._read_json(root / f"panoptic_gt_{split}_city_vps.json")

    def _decode(self, frame: FrameFiles, truth: Path) -> tuple[np.ndarray, list[SegmentInfo]]:
        if self._plain:
            return _MASKS.read(truth, self._ids, self.categories)
        rows = self._segments.get(frame_stem(truth.name))
        if rows is None:
            raise DataError(f"{truth} is not in the panoptic JSON; use the PNGs that belong to it.")
        ids = read_ids(truth)
        labels = look_up(ids, {0: -1} | {id_: label for id_, label, _ in rows}, truth)
        numbers = look_up(ids, {0: 0} | {id_: number for id_, _, number in rows}, truth)
        return make_id_map(labels, numbers, self.categories)

    def _read_json(self, path: Path) -> None:
        """(id, label, number) of each frame's segments; an object's number is the same all over its video."""
        content = read_json(path)
        rows: Any = content.get("annotations") if isinstance(content, dict) else None
        if not isinstance(rows, list):
            raise DataError(f"{path} has no list 'annotations'; it must be a COCO panoptic JSON.")
        labels = labels_of_ids(content.get("categories"), self.categories, str(path))
        numbers: dict[tuple[str, int], int] = {}
        counted: dict[str, int] = {}
        for row in rows:
            try:
                stem = frame_stem(plain_name(row["file_name"]))
                infos = [_read_segment(segment) for segment in row["segments_info"]]
            except (AttributeError, TypeError, KeyError, ValueError) as fault:
                raise DataError(f"{path} has an annotation without file_name or segments: {str(row)[:80]}.") from fault
            video = stem.partition("_")[0]
            found = []
            for id_, category, crowd in infos:
                if category not in labels:
                    raise DataError(f"{path} has the category {category} in {stem}, which the class table lacks.")
                if (video, id_) not in numbers:
                    counted[video] = numbers[video, id_] = counted.get(video, 0) + 1
                found.append((id_, labels[category], 0 if crowd else numbers[video, id_]))
            self._segments[stem] = found


def _read_segment(row: Any) -> tuple[int, int, bool]:
    """Id, category and crowd of a segment of the JSON. Raises `ValueError` if they are none."""
    id_, category, crowd = whole(row["id"]), whole(row["category_id"]), flag(row.get("iscrowd") or 0)
    if id_ is None or category is None or crowd is None:
        raise ValueError(row)
    return id_, category, crowd


def frame_stem(name: str) -> str:
    """The name that a frame's image and masks share: the file's name without the ending that tells them apart."""
    file = PurePosixPath(name)
    for ending in (*_IMAGE_ENDINGS, *_TRUTH_ENDINGS):
        if file.name.endswith(ending):
            return file.name.removesuffix(ending)
    return file.stem
