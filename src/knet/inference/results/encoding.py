"""Pixels and segments of a result, encoded as common file formats hold them: arrays of numbers, and rows for JSON."""

from typing import Any, Protocol

import numpy as np

from knet.data.files.masks import Rle
from knet.errors import OutputError
from knet.inference.results.draw import map_ids
from knet.inference.results.pixels import extents
from knet.structures import Category, Segment


class Labelled(Protocol):
    """The fields of a `Segmentation` that are encoded."""

    id_map: np.ndarray
    segments: list[Segment]
    categories: tuple[Category, ...]
    name: str


def rle_text(rle: Rle) -> dict[str, Any]:
    """A packed mask with its counts as text, ready for JSON: {"size": [H, W], "counts": "..."}."""
    return {"size": [int(edge) for edge in rle["size"]], "counts": rle["counts"].decode("ascii")}


def panoptic_rgb(result: Labelled) -> np.ndarray:
    """Segment ids (1..2^24 - 1) as colours, id = R + 256 G + 65536 B; black without a segment. -> (H,W,3) uint8"""
    ids = [s.id for s in result.segments]
    if any(not 0 < i < 1 << 24 for i in ids):
        raise OutputError(f"Segment ids of '{result.name}' must lie in 1 .. 16777215; number them from 1.")
    flat = map_ids(result.id_map, ids, np.array(ids, np.uint32), 0)
    return np.stack([flat & 255, flat >> 8 & 255, flat >> 16], axis=-1).astype(np.uint8)


def semantic_ids(result: Labelled) -> np.ndarray:
    """The category id of every pixel; for void see `knet.inference.results.writers`. -> (H,W) uint8 or uint16"""
    known = {c.id for c in result.categories} | {s.category for s in result.segments}
    small = max(known, default=0) <= (254 if 0 in known else 255)
    dtype: type[np.unsignedinteger] = np.uint8 if small else np.uint16
    void = int(np.iinfo(dtype).max) if 0 in known else 0
    values = np.array([s.category for s in result.segments], dtype)
    return map_ids(result.id_map, [s.id for s in result.segments], values, void)


def instance_ids(result: Labelled) -> np.ndarray:
    """Category id * 1000 + n for things (n = 0, 1, ... in each class), the category id for stuff. -> (H,W) uint16"""
    counted: dict[int, int] = {}
    values: list[int] = []
    for s in result.segments:
        n = counted.get(s.category, 0)
        counted[s.category] = n + 1
        values.append(s.category * 1000 + n if s.thing else s.category)
        if s.thing and (n > 999 or values[-1] > 65534):
            raise OutputError(
                f"'{result.name}' has more than {n} segments '{s.name}', too many for the format 'instances'; "
                "use 'panoptic' instead."
            )
    void = 65535 if any(c.id == 0 for c in result.categories) else 0
    return map_ids(result.id_map, [s.id for s in result.segments], np.array(values, np.uint16), void)


def panoptic_entries(
    result: Labelled, image_id: int | str, image_file: str, png_file: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """An image's rows of `images` and `annotations` in COCO's panoptic format, with scores and tracks.

    Areas and boxes are those of the id map. Segments without pixels are left out, as the official evaluation demands.
    """
    ids = [s.id for s in result.segments]
    position = map_ids(result.id_map, ids, np.arange(1, len(ids) + 1, dtype=np.int32), 0)
    areas, boxes = (values[1:].tolist() for values in extents(position, len(ids)))
    rows: list[dict[str, Any]] = []
    for s, area, (left, top, right, bottom) in zip(result.segments, areas, boxes, strict=True):
        if area:
            row: dict[str, Any] = {"id": int(s.id), "category_id": int(s.category), "isthing": int(s.thing)}
            row |= {"area": area, "bbox": [left, top, right - left, bottom - top], "iscrowd": 0}
            row["score"] = float(s.score)
            rows.append(row if s.track is None else row | {"track": int(s.track)})
    height, width = result.id_map.shape
    image = {"id": image_id, "file_name": image_file, "height": int(height), "width": int(width)}
    return image, {"image_id": image_id, "file_name": png_file, "segments_info": rows}
