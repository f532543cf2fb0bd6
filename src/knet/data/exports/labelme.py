"""labelme: a JSON for each image, beside it, with its shapes and often the image itself."""

import base64
import binascii
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from knet.data.exports.export import Export, Look, Picture, Reading, Shape, files_below, split_of
from knet.data.files.io import read_json
from knet.data.files.masks import pack_mask
from knet.data.files.numbers import whole
from knet.data.files.pictures import decode_picture, open_picture
from knet.errors import DataError
from knet.files import is_file

_CIRCLE = 36  # corners
_LINES = ("point", "points", "line", "linestrip")


def find_labelme(root: Path) -> Path | None:
    """The first JSON file of an export that holds shapes."""
    return next((path for path in files_below(root, ".json") if _content(path)), None)


def read_labelme(reading: Reading) -> Export:
    """Reads every JSON; shapes of one label and one group id are one object."""
    pictures, names = [], dict[str, Look]()
    for path in files_below(reading.root, ".json"):
        content = _content(path)
        if content is None:
            reading.remarks.left_out("JSON files that cannot be read or hold no shapes", path.name)
            continue
        picture = _picture(content, path, reading)
        if picture is None:
            continue
        groups: dict[tuple[str, int | str], list[Any]] = {}
        rows = content["shapes"] if isinstance(content["shapes"], list) else []
        for number, row in enumerate(rows):
            if not isinstance(row, dict) or not str(row.get("label") or "").strip():
                reading.remarks.left_out("shapes without a label", f"shape {number + 1} of {path.name}")
                continue
            group, label = row.get("group_id"), str(row["label"])
            key = (label, number if group is None else f"group {group}")
            groups.setdefault(key, []).append(row)
        for (label, _), members in groups.items():
            names.setdefault(label, Look())
            mask = _mask_of(members, picture, path, reading)
            if mask is not None:
                picture.shapes.append(Shape(label, mask))
        pictures.append(picture)
    reading.say_unnamed()
    return Export("labelme", pictures, names)


def _content(path: Path) -> dict[str, Any] | None:
    """What a JSON of labelme holds; None for any other file."""
    try:
        content = read_json(path)
    except DataError:
        return None
    held = isinstance(content, dict) and "shapes" in content and ("imagePath" in content or "imageData" in content)
    return content if held else None


def _picture(content: dict[str, Any], path: Path, reading: Reading) -> Picture | None:
    """The image that a JSON names, or the one that it holds."""
    name = content.get("imagePath")
    name = name if isinstance(name, str) and name else path.stem
    height, width = whole(content.get("imageHeight")), whole(content.get("imageWidth"))
    told = (height, width) if height and width else None
    split = split_of(path.parent.relative_to(reading.root))
    beside = path.parent / name.replace("\\", "/")
    if is_file(beside) and beside.resolve().is_relative_to(reading.root.resolve()):
        return reading.open(beside.resolve(), told, split)
    data = content.get("imageData")
    if reading.finder().candidates(name) or not isinstance(data, str):
        return reading.picture(name, None, told, split)
    try:
        held = base64.b64decode(data)
        size = decode_picture(io.BytesIO(held), f"The image in {path}").shape[:2]
    except (binascii.Error, OSError, ValueError, SyntaxError, DataError):
        reading.remarks.left_out("images that their JSON holds and that cannot be read", path.name)
        return None
    stem = path.relative_to(reading.root).with_suffix(Path(name.replace("\\", "/")).suffix or ".png")
    return Picture(held, stem.as_posix(), (size[0], size[1]), split)


def _mask_of(rows: list[Any], picture: Picture, path: Path, reading: Reading) -> Any:
    """All shapes of an object as polygons, or as RLE if one of them is a mask; None if none has an area."""
    polygons, masks = [], []
    for row in rows:
        kind, points = row.get("shape_type") or "polygon", _points(row.get("points"))
        if points is None:
            reading.remarks.left_out("shapes whose points are no numbers", f"{row['label']} of {path.name}")
        elif kind == "mask":
            mask = _mask(row.get("mask"), points, picture.size)
            if mask is None:
                reading.remarks.left_out("masks that cannot be read", f"{row['label']} of {path.name}")
            else:
                masks.append(mask)
        elif kind in ("rectangle", "circle") and len(points) == 2:
            reading.remarks.note("rectangles and circles count as the object's mask", f"{row['label']} of {path.name}")
            polygons.append(_outline(kind, *points))
        elif kind not in (*_LINES, "circle") and len(points) >= 3:  # other programs write "rotation" and more
            polygons.append([value for point in points for value in point])
        else:
            what = "shapes that cover no area (points, lines and polygons of two corners)"
            reading.remarks.left_out(what, f"{kind} {row['label']} of {path.name}")
    if not masks:
        return polygons or None
    if polygons:
        reading.remarks.left_out("polygons of objects that have a mask as well", path.name)
    return pack_mask(np.any(masks, axis=0))


def _points(given: Any) -> list[tuple[float, float]] | None:
    try:
        points = [(float(x), float(y)) for x, y in given]
    except (TypeError, ValueError):
        return None
    return points if all(math.isfinite(value) for point in points for value in point) else None


def _outline(kind: str, one: tuple[float, float], other: tuple[float, float]) -> list[float]:
    if kind == "rectangle":
        (left, top), (right, bottom) = one, other
        return [left, top, right, top, right, bottom, left, bottom]
    radius, corners = math.dist(one, other), []
    for number in range(_CIRCLE):
        angle = 2 * math.pi * number / _CIRCLE
        corners += [one[0] + radius * math.cos(angle), one[1] + radius * math.sin(angle)]
    return corners


def _mask(data: Any, points: list[tuple[float, float]], size: tuple[int, int]) -> np.ndarray | None:
    """A mask that a JSON holds as a PNG of its box. -> (H,W) bool"""
    try:
        with open_picture(io.BytesIO(base64.b64decode(data))) as file:
            if file.width * file.height > size[0] * size[1] + size[0] + size[1] + 1:
                return None
            inside = np.asarray(file.convert("L")) > 0
        left, top = (max(round(value), 0) for value in points[0])
    except (TypeError, ValueError, IndexError, OSError, SyntaxError):
        return None
    whole_mask = np.zeros(size, bool)
    place = whole_mask[top : top + inside.shape[0], left : left + inside.shape[1]]
    place[...] = inside[: place.shape[0], : place.shape[1]]
    return whole_mask
