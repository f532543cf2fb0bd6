"""COCO panoptic files as the metric reads them: a JSON file, and for each image a PNG whose colours are ids."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from knet.data.files.io import read_ids
from knet.errors import DataError
from knet.structures import Category, Segment, SegmentInfo

SegmentLike = Mapping[str, Any] | SegmentInfo | Segment
"""A row of `segments_info` (`id`, `category_id`, optional `iscrowd` and `area`), or one of this package's segments."""

Labelled = tuple[np.ndarray, Sequence[SegmentLike]]
"""An image's id map (H,W) and its segments."""

Annotation = tuple[Path, list[Any]]
"""Where an image's mask lies, and its segments."""

Source = TypeVar("Source")
Content = TypeVar("Content")

ID_LIMIT = 1 << 24  # an RGB mask holds three bytes

_AHEAD = 2  # images that are read while another is counted: decoding runs in threads, on other cores


def read_json(path: Path) -> dict[str, Any]:
    """The content of a COCO panoptic file, which has a list `annotations`. Raises: DataError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a COCO panoptic JSON file: {error}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise DataError(f"{path} has no list of `annotations`; give a JSON file in the COCO panoptic format.")
    return content


def read_categories(content: Mapping[str, Any], path: Path) -> list[Category]:
    """Its class table. Raises: DataError."""
    try:
        return [
            Category(row["id"], str(row["name"]), bool(row["isthing"]), tuple(row.get("color", (0, 0, 0))))
            for row in content["categories"]
        ]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} needs `categories` with id, name and isthing; the truth carries them.") from error


def read_annotations(
    content: Mapping[str, Any], path: Path, folder: str | PathLike[str] | None
) -> dict[Any, Annotation]:
    """{image_id: (its mask's path, its segments)}; the folder is the first of the usual ones that holds a mask."""
    rows: dict[Any, tuple[str, list[Any]]] = {}
    for row in content["annotations"]:
        try:
            image, name, segments = row["image_id"], row["file_name"], row["segments_info"]
            rows[_image_key(image)] = (name, segments)
            sound = isinstance(name, str) and isinstance(segments, list)
        except (KeyError, TypeError):
            sound = False
        if not sound:
            raise DataError(f"{path}: an annotation needs image_id, file_name and segments_info, not {row!r:.200}.")
    beside = [path.with_suffix(""), path.with_name(re.sub(r"[_-]?\d+$", "", path.stem) or path.stem), path.parent]
    holding = (place for place in beside if any((place / name).is_file() for name, _ in rows.values()))
    masks = Path(folder) if folder is not None else next(holding, beside[0])
    return {image: (masks / name, segments) for image, (name, segments) in rows.items()}


def _image_key(image: Any) -> Any:
    """Image ids as they are compared: tools disagree on whether a numeric id is a number or text ("000285")."""
    return int(image) if isinstance(image, str) and image.isdecimal() else image


def read_pairs(
    truth: Mapping[Any, Annotation], predictions: Mapping[Any, Annotation]
) -> Iterator[tuple[str, Labelled, Labelled]]:
    """(name, truth, prediction) of each image of the truth, read ahead in threads. Raises: DataError."""
    missing = [image for image in truth if image not in predictions]
    if missing:
        raise DataError(f"There is no prediction for image_id {some(missing)}; every image of the truth needs one.")
    masks = [path for image in truth for path in (truth[image][0], predictions[image][0])]
    ids = read_ahead(read_mask, masks)
    for image in truth:
        yield f"image {image}", (next(ids), truth[image][1]), (next(ids), predictions[image][1])


def read_ahead(read: Callable[[Source], Content], sources: Sequence[Source]) -> Iterator[Content]:
    """What `read` gives for each source, in order; the next few are read in threads meanwhile."""
    with ThreadPoolExecutor(2 * _AHEAD) as pool:
        reading = deque(pool.submit(read, source) for source in sources[: 2 * _AHEAD])
        for following in range(2 * _AHEAD, 2 * _AHEAD + len(sources)):
            content = reading.popleft().result()
            reading.extend(pool.submit(read, source) for source in sources[following : following + 1])
            yield content


def read_mask(path: Path) -> np.ndarray:
    """A panoptic PNG's ids: (H,W) int32, R + 256 G + 65536 B. Raises: DataError."""
    if not path.is_file():
        raise DataError(f"The mask {path} cannot be read: there is no such file; name the folder of the masks.")
    return read_ids(path)


def some(values: Iterable[Any]) -> str:
    """The first ten values, for a message."""
    values = list(values)
    return ", ".join(map(str, values[:10])) + (f" and {len(values) - 10} more" if len(values) > 10 else "")
