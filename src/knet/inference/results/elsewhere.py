"""A result in the forms of other packages. None of them is needed for anything else, so each is imported here only."""

from __future__ import annotations

import io
from importlib import import_module
from numbers import Integral
from typing import Any, Literal, Protocol, get_args

import numpy as np
from PIL import Image

from knet.data.categories import rows_for_json
from knet.data.files.masks import Rle
from knet.data.files.outlines import polygons
from knet.errors import ConfigError, require, shown
from knet.inference.results.encoding import Labelled, rle_text
from knet.structures import Segment

Outline = Literal["rle", "polygons"]
_THUMBNAIL = 1024  # pixels; the longest side of a picture in a notebook


class Result(Labelled, Protocol):
    """What of a `Segmentation` is used here."""

    tracked: bool

    def mask(self, segment: Segment) -> np.ndarray:
        """(H,W) bool"""
        ...

    def rle(self, segment: Segment) -> Rle:
        """COCO's packed RLE."""
        ...


def coco(result: Result, image_id: int = 1, form: Outline = "rle") -> dict[str, Any]:
    """See `Segmentation.to_coco`."""
    require(Integral, "a number", image_id=image_id)
    if not isinstance(form, str) or form not in get_args(Outline):
        raise ConfigError(f"The option form cannot be {shown(form)}; give {' or '.join(get_args(Outline))}.")
    height, width = result.id_map.shape
    rows: list[dict[str, Any]] = []
    for number, segment in enumerate(result.segments, start=1):
        left, top, right, bottom = segment.box
        row = {
            "id": number,
            "image_id": image_id,
            "category_id": int(segment.category),
            "segmentation": rle_text(result.rle(segment)) if form == "rle" else polygons(result.mask(segment)),
            "area": int(segment.area),
            "bbox": [int(left), int(top), int(right - left), int(bottom - top)],
            "iscrowd": 0,
            "score": float(segment.score),
        }
        rows.append(row if segment.track is None else row | {"track_id": int(segment.track)})
    image = {"id": image_id, "file_name": result.name, "height": int(height), "width": int(width)}
    return {"images": [image], "annotations": rows, "categories": rows_for_json(result.categories)}


def dataframe(result: Result) -> Any:
    """See `Segmentation.to_dataframe`."""
    pandas = _package("pandas", "to_dataframe()")
    columns = ("image", "id", "category", "name", "thing", "score", "area", "left", "top", "right", "bottom", "track")
    rows = [(result.name, s.id, s.category, s.name, s.thing, s.score, s.area, *s.box, s.track) for s in result.segments]
    return pandas.DataFrame(rows, columns=list(columns)).astype({"track": "Int64"})


def fiftyone(result: Result) -> Any:
    """See `Segmentation.to_fiftyone`."""
    package = _package("fiftyone", "to_fiftyone()")
    height, width = result.id_map.shape
    found = []
    for segment in result.segments:
        left, top, right, bottom = segment.box
        box = [left / width, top / height, (right - left) / width, (bottom - top) / height]
        mask = result.mask(segment)[top:bottom, left:right]
        more = {} if segment.track is None else {"index": segment.track}
        found.append(
            package.Detection(label=segment.name, bounding_box=box, mask=mask, confidence=segment.score, **more)
        )
    return package.Detections(detections=found)


def supervision(result: Result) -> Any:
    """See `Segmentation.to_supervision`."""
    package = _package("supervision", "to_supervision()")
    segments = result.segments
    tracks = [-1 if s.track is None else s.track for s in segments]
    tracked = result.tracked or any(track >= 0 for track in tracks)
    masks = np.zeros((len(segments), *result.id_map.shape), bool)
    for mask, segment in zip(masks, segments, strict=True):
        mask[:] = result.mask(segment)
    return package.Detections(
        xyxy=np.array([s.box for s in segments], np.float32).reshape(-1, 4),
        mask=masks,
        class_id=np.array([s.category for s in segments], np.int64),
        confidence=np.array([s.score for s in segments], np.float32),
        tracker_id=np.array(tracks, np.int64) if tracked else None,
        data={"class_name": np.array([s.name for s in segments], dtype=str)},
    )


def png(picture: np.ndarray) -> bytes:
    """A picture as a PNG for a notebook, shrunk if it is large. (H,W,3) uint8"""
    image = Image.fromarray(picture)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _package(name: str, asked: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(f"{asked} needs the package '{name}', which is not installed: pip install {name}.") from error
