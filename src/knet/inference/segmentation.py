"""One image's result: which pixel belongs to which segment, and what each segment is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from knet.data.files.masks import Rle, pack_mask, unpack_mask
from knet.errors import ConfigError, OutputError
from knet.inference.draw import map_ids, overlay
from knet.inference.sources import load_image
from knet.structures import Category, Segment

SHOWN = 0.3  # of objects that may overlap, the least score in pictures; most of a model's hundred are guesses


@dataclass(slots=True)
class Segmentation:
    """The result for one image.

    `id_map` (H,W) int32, pixels of the original image, 0 = void, other values are the `id` of one of `segments` ·
    `categories` the class table of the model · `name` what the image is called: a file's name without its ending,
    for frames of a video with the frame's number behind it · `image` the (H,W,3) uint8 RGB image itself, if whoever
    made the result kept it; `overlay` and `save` draw on it unless they are given another · `masks` the packed mask
    of each segment by its id, where segments may overlap (instance segmentation), else None. In the id map a pixel then
    belongs to the segment with the best score; areas and boxes are those of the whole masks.
    """

    id_map: np.ndarray
    segments: list[Segment]
    categories: tuple[Category, ...]
    name: str = "image"
    image: np.ndarray | None = field(default=None, repr=False, compare=False)
    masks: dict[int, Rle] | None = field(default=None, repr=False)

    def mask(self, segment: Segment) -> np.ndarray:
        """Where the segment is, with what others hide of it. -> (H,W) bool"""
        return self.id_map == segment.id if self.masks is None else unpack_mask(self.masks[segment.id])

    def rle(self, segment: Segment) -> Rle:
        """The mask as COCO's packed RLE, {"size": [H, W], "counts": bytes}."""
        return pack_mask(self.mask(segment)) if self.masks is None else self.masks[segment.id]

    def overlay(self, image: Any = None, *, alpha: float = 0.5, names: bool = True, legend: bool = False) -> np.ndarray:
        """The result drawn over its image: class colours, borders of things, class names. -> (H,W,3) uint8 RGB

        Of objects that may overlap, those with a score below 0.3 are not drawn.

        image: anything that `load_image` takes; default: the kept image, and without one the colours alone.
        alpha: share of the colours, 0 .. 1. names: write class names. legend: add a panel of the classes.

        Raises:
            DataError: the image cannot be read or has another size than the result.
        """
        if image is None:
            image = self.image
        if image is None:
            image, alpha = np.zeros((*self.id_map.shape, 3), np.uint8), 1.0
        pixels = load_image(image)
        shown = [s for s in self.segments if self.masks is None or s.score >= SHOWN]
        return overlay(pixels, self.id_map, shown, self.categories, alpha=alpha, names=names, legend=legend)

    def save(
        self,
        folder: str | Path,
        formats: Sequence[str] = ("overlay", "panoptic"),
        image: Any = None,
        name: str | None = None,
    ) -> list[Path]:
        """Writes the result to a folder, which is made if needed; the files written, each whole or not there.

        formats: any of overlay (`<name>_overlay.jpg`), panoptic (`<name>_panoptic.png` and, in COCO's format,
            `<name>_panoptic.json`), instances, semantic (PNG), json (`<name>_segments.json`); see `writers`.
        image: for the overlay, as there. name: default `self.name`. Files of the same name are replaced.

        Raises:
            ConfigError: an unknown format, or one that cannot hold this class table.
            DataError: the image does not fit the result.
            OutputError: the folder cannot be written, or the disk is full.
        """
        from knet.inference.writers import save_one  # writers need this file

        return save_one(self, Path(folder), formats, image, self.name if name is None else name)

    def semantic_map(self) -> np.ndarray:
        """The category id of every pixel, -1 where void. -> (H,W) int32"""
        ids = [segment.id for segment in self.segments]
        return map_ids(self.id_map, ids, np.array([s.category for s in self.segments], np.int32), -1)

    def to_dict(self) -> dict[str, Any]:
        """Name, size and segments as plain numbers, strings, lists and dictionaries, ready for JSON.

        No pixels, but for segments that may overlap their masks as COCO's RLE (`segmentation`).
        """
        height, width = self.id_map.shape
        segments: list[dict[str, Any]] = [
            {
                "id": int(s.id),
                "category": int(s.category),
                "name": s.name,
                "thing": bool(s.thing),
                "score": float(s.score),
                "area": int(s.area),
                "box": [int(edge) for edge in s.box],
                "track": None if s.track is None else int(s.track),
            }
            for s in self.segments
        ]
        if self.masks is not None:
            for row in segments:
                row["segmentation"] = rle_text(self.masks[row["id"]])
        return {"name": self.name, "height": int(height), "width": int(width), "segments": segments}

    def to_supervision(self) -> Any:
        """The segments as `supervision.Detections`: boxes, (N,H,W) masks, class ids, scores, names, tracks.

        `class_id` is the data set's category id; `tracker_id` is set if any segment has a track, -1 for the others.

        Raises:
            ConfigError: the package `supervision` is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ConfigError(
                "to_supervision() needs the package 'supervision', which is not installed: pip install supervision."
            ) from error
        tracks = [-1 if s.track is None else s.track for s in self.segments]
        masks = np.zeros((len(self.segments), *self.id_map.shape), bool)
        for mask, segment in zip(masks, self.segments, strict=True):
            mask[:] = self.mask(segment)
        return supervision.Detections(
            xyxy=np.array([s.box for s in self.segments], np.float32).reshape(-1, 4),
            mask=masks,
            class_id=np.array([s.category for s in self.segments], np.int64),
            confidence=np.array([s.score for s in self.segments], np.float32),
            tracker_id=np.array(tracks, np.int64) if any(track >= 0 for track in tracks) else None,
            data={"class_name": np.array([s.name for s in self.segments], dtype=str)},
        )


def rle_text(rle: Rle) -> dict[str, Any]:
    """Packed RLE with its counts as text, ready for JSON: {"size": [H, W], "counts": "..."}."""
    return {"size": [int(edge) for edge in rle["size"]], "counts": rle["counts"].decode("ascii")}


def panoptic_rgb(segmentation: Segmentation) -> np.ndarray:
    """Segment ids as colours, id = R + 256 G + 65536 B, void and ids without a segment black. -> (H,W,3) uint8

    Raises:
        OutputError: an id outside 1 .. 2^24 - 1.
    """
    ids = [s.id for s in segmentation.segments]
    if any(not 0 < i < 1 << 24 for i in ids):
        raise OutputError(f"Segment ids of '{segmentation.name}' must lie in 1 .. 16777215; number them from 1.")
    flat = map_ids(segmentation.id_map, ids, np.array(ids, np.uint32), 0)
    return np.stack([flat & 255, flat >> 8 & 255, flat >> 16], axis=-1).astype(np.uint8)


def semantic_ids(segmentation: Segmentation) -> np.ndarray:
    """The category id of every pixel; void as `knet.inference.writers` says. -> (H,W) uint8 or uint16"""
    known = {c.id for c in segmentation.categories} | {s.category for s in segmentation.segments}
    small = max(known, default=0) <= (254 if 0 in known else 255)
    dtype: type[np.unsignedinteger] = np.uint8 if small else np.uint16
    void = int(np.iinfo(dtype).max) if 0 in known else 0
    values = np.array([s.category for s in segmentation.segments], dtype)
    return map_ids(segmentation.id_map, [s.id for s in segmentation.segments], values, void)


def instance_ids(segmentation: Segmentation) -> np.ndarray:
    """Things category id * 1000 + n (n = 0, 1, ... in each class), stuff category id. -> (H,W) uint16

    Raises:
        OutputError: more objects of a class than numbers for them.
    """
    counted: dict[int, int] = {}
    values: list[int] = []
    for s in segmentation.segments:
        n = counted.get(s.category, 0)
        counted[s.category] = n + 1
        values.append(s.category * 1000 + n if s.thing else s.category)
        if s.thing and (n > 999 or values[-1] > 65534):
            raise OutputError(
                f"'{segmentation.name}' has more than {n} segments '{s.name}', too many for the format 'instances'; "
                "use 'panoptic' instead."
            )
    void = 65535 if any(c.id == 0 for c in segmentation.categories) else 0
    return map_ids(segmentation.id_map, [s.id for s in segmentation.segments], np.array(values, np.uint16), void)


def panoptic_entries(
    segmentation: Segmentation, image_id: int | str, image_file: str, png_file: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The image's entries under `images` and `annotations` in COCO's panoptic format, with scores and tracks.

    Areas are counted in the id map, and segments without pixels left out, as the official evaluation demands.
    """
    ids = [s.id for s in segmentation.segments]
    position = map_ids(segmentation.id_map, ids, np.arange(1, len(ids) + 1, dtype=np.int32), 0)
    areas = np.bincount(position.ravel(), minlength=len(ids) + 1)[1:]
    rows: list[dict[str, Any]] = []
    for s, area in zip(segmentation.segments, areas, strict=True):
        if area:
            left, top, right, bottom = map(int, s.box)
            row: dict[str, Any] = {"id": int(s.id), "category_id": int(s.category), "isthing": int(s.thing)}
            row |= {"area": int(area), "bbox": [left, top, right - left, bottom - top], "iscrowd": 0}
            row["score"] = float(s.score)
            rows.append(row if s.track is None else row | {"track": int(s.track)})
    height, width = segmentation.id_map.shape
    image = {"id": image_id, "file_name": image_file, "height": int(height), "width": int(width)}
    return image, {"image_id": image_id, "file_name": png_file, "segments_info": rows}


def panoptic_categories(categories: Sequence[Category]) -> list[dict[str, Any]]:
    """The class table as in COCO's panoptic format."""
    return [{"id": c.id, "name": c.name, "isthing": int(c.thing), "color": list(c.color)} for c in categories]
