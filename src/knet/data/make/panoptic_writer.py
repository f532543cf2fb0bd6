"""Writes a data set in the COCO panoptic form, all of it or nothing."""

from __future__ import annotations

import glob
import json as jsonlib
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from knet.errors import DataError, OutputError
from knet.files import alone_in, exists, hidden_folder, hidden_start


class SegmentRow(NamedTuple):
    """A segment to write: its value in the id map, its category id, whether it is a crowd."""

    id: int
    category: int
    crowd: bool = False


class PanopticWriter:
    """Collects images, then puts a JSON and a folder of PNGs in place at once, in `finish`.

    Until then everything lies in a hidden folder beside `masks`, which leaving the `with` block removes: an interrupted
    run leaves nothing behind.

    Args:
        inputs: files and folders that are read, which are never overwritten.

    Raises:
        DataError: `json` or `masks` exists and `overwrite` is off, or an input would be overwritten.
        OutputError: no permission, no space.
    """

    def __init__(
        self, json: str | Path, masks: str | Path, overwrite: bool = False, inputs: Sequence[str | Path | None] = ()
    ):
        self.json, self.masks = Path(json), Path(masks)
        for path in (Path(path) for path in inputs if path is not None):
            real = Path(os.path.realpath(path))
            if real.is_relative_to(os.path.realpath(self.masks)) or os.path.realpath(self.json) == str(real):
                raise DataError(f"{path} is read, and would be overwritten; choose another output.")
        self._overwrite = overwrite
        self._refuse_existing()
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._stack = ExitStack()

    def _refuse_existing(self) -> None:
        existing = [path for path in (self.json, self.masks) if os.path.lexists(path)]
        # A run that was killed in `finish` has put the PNGs in place, and not the JSON, which still lies where it was.
        hidden = f"{glob.escape(hidden_start(self.masks))}*/panoptic.json"
        killed = bool(existing) and not exists(self.json) and any(self.masks.parent.glob(hidden))
        if existing and not self._overwrite and not killed:
            raise DataError(f"{existing[0]} exists already; remove it, allow overwriting or choose another output.")

    def __enter__(self) -> PanopticWriter:
        try:
            self._partial = self._stack.enter_context(hidden_folder(self.masks))
            (self._partial / "masks").mkdir()
            if self.json.parent != self.masks:  # Mapillary's JSON lies among its PNGs: the folder comes with them
                self.json.parent.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise self._unwritable(fault) from fault
        return self

    def __exit__(self, *fault: object) -> None:
        self._stack.close()

    def add(self, image: dict[str, Any], mask: str, id_map: np.ndarray, segments: Sequence[SegmentRow]) -> None:
        """Adds an image. Areas, boxes (x, y, width, height) and the image's size come from the id map.

        Args:
            image: its row of the JSON (id, file_name).
            mask: the name of its PNG.
            id_map, segments: (H,W) int, with the ids of all segments, and no others but 0.
        """
        numbers = np.zeros(max((row.id for row in segments), default=0) + 1, np.int32)
        numbers[[row.id for row in segments]] = np.arange(1, len(segments) + 1)
        numbered = numbers[id_map]
        areas = np.bincount(numbered.ravel(), minlength=len(segments) + 1)
        rows = []
        for row, area, (ys, xs) in zip(segments, areas[1:].tolist(), ndimage.find_objects(numbered), strict=True):
            box = [xs.start, ys.start, xs.stop - xs.start, ys.stop - ys.start]
            rows.append(
                {"id": row.id, "category_id": row.category, "area": area, "bbox": box, "iscrowd": int(row.crowd)}
            )
        height, width = id_map.shape
        self._images.append({**image, "height": height, "width": width})
        self._annotations.append({"image_id": image["id"], "file_name": mask, "segments_info": rows})
        path = self._partial / "masks" / mask
        rgb = np.stack([id_map & 255, id_map >> 8 & 255, id_map >> 16 & 255], -1).astype(np.uint8)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rgb).save(path)
        except OSError as fault:
            raise self._unwritable(fault) from fault

    def finish(self, categories: Sequence[dict[str, Any]], info: dict[str, Any] | None = None) -> None:
        """Puts everything in place; the JSON comes last, so where it is, all PNGs are."""
        content: dict[str, Any] = {} if info is None else {"info": info}
        content |= {"images": self._images, "annotations": self._annotations, "categories": list(categories)}
        try:
            (self._partial / "panoptic.json").write_text(jsonlib.dumps(content), "utf-8")
            with alone_in(self.masks.parent):
                self._refuse_existing()  # also what another process has made meanwhile
                self.json.unlink(missing_ok=True)
                if self.masks.is_dir() and not self.masks.is_symlink():
                    shutil.rmtree(self.masks)
                else:
                    self.masks.unlink(missing_ok=True)
                (self._partial / "masks").rename(self.masks)
                (self._partial / "panoptic.json").replace(self.json)
        except OSError as fault:
            raise self._unwritable(fault) from fault

    def _unwritable(self, fault: OSError) -> OutputError:
        return OutputError(f"{self.json} and {self.masks} cannot be written ({fault}); choose another output.")
