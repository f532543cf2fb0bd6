"""Supervisely: meta.json names the classes; each data set has a folder img, and in ann a JSON for each image."""

import base64
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from knet.data.exports.export import Export, Look, Picture, Reading, Shape, files_below, split_of
from knet.data.files.io import read_json
from knet.data.files.masks import FARTHEST, pack_mask, read_mask, unpack_mask
from knet.data.files.numbers import whole
from knet.data.files.pictures import open_picture
from knet.errors import DataError

_BITMAPS = ("bitmap", "alpha_mask")
_MOST = 2**28  # bytes of an unpacked mask
_FAULTS = (
    *(KeyError, IndexError, TypeError, ValueError, AttributeError, OSError, SyntaxError),
    *(zlib.error, DataError),
)


def find_supervisely(root: Path) -> Path | None:
    """The meta.json of a project with data sets below it."""
    for path in files_below(root, "meta.json"):
        content = _json(path)
        if isinstance(content, dict) and isinstance(content.get("classes"), list) and _folders(path.parent):
            return path
    return None


def read_supervisely(reading: Reading) -> Export:
    """Reads all data sets of a project."""
    meta = find_supervisely(reading.root)
    assert meta is not None
    rows = [row for row in _json(meta)["classes"] if isinstance(row, dict) and isinstance(row.get("title"), str)]
    classes = {row["title"]: Look(color=_color(row.get("color"))) for row in rows}
    pictures = []
    for folder in _folders(meta.parent):
        for path in files_below(folder / "ann", ".json"):
            content = _json(path)
            if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
                reading.remarks.left_out("JSON files that cannot be read or list no objects", path.name)
                continue
            said = content.get("size")
            told = said if isinstance(said, dict) else {}
            height, width = whole(told.get("height")), whole(told.get("width"))
            size = (height, width) if height and width else None
            split = split_of(folder.relative_to(reading.root))
            name = path.relative_to(folder / "ann").as_posix().removesuffix(".json")
            picture = reading.picture(name, folder / "img", size, split)
            if picture is not None:
                _add_shapes(picture, content["objects"], classes, path, reading)
                pictures.append(picture)
    reading.say_unnamed()
    return Export("Supervisely", pictures, classes)


def _folders(root: Path) -> list[Path]:
    """The data sets of a project: folders that hold ann and img."""
    found = {path.parent.parent for path in files_below(root, ".json") if path.parent.name == "ann"}
    if found and not any((folder / "img").is_dir() for folder in found):
        raise DataError(f"{root} has annotations (ann) but no images (img); export the project with its images.")
    return sorted(folder for folder in found if (folder / "img").is_dir())


def _add_shapes(picture: Picture, rows: list[Any], classes: dict[str, Look], path: Path, reading: Reading) -> None:
    for number, row in enumerate(rows, 1):
        where = f"object {number} of {path.name}"
        title = row.get("classTitle") if isinstance(row, dict) else None
        if not isinstance(title, str) or title not in classes:
            reading.remarks.left_out("objects of a class that meta.json does not list", where)
            continue
        kind = row.get("geometryType", row.get("shape"))
        if kind not in ("polygon", "rectangle", *_BITMAPS):
            reading.remarks.left_out("objects that are no polygon, bitmap or rectangle", f"{where} ({str(kind)[:20]})")
            continue
        try:
            mask = _bitmap(row["bitmap"], picture.size) if kind in _BITMAPS else _polygon(row["points"], picture.size)
        except _FAULTS:
            reading.remarks.left_out("objects whose mask cannot be read", where)
            continue
        if kind == "rectangle":
            reading.remarks.note("rectangles count as the object's mask", where)
        picture.shapes.append(Shape(title, mask))


def _polygon(points: dict[str, Any], size: tuple[int, int]) -> Any:
    """A polygon, or a rectangle of two corners, in COCO's form; with holes as RLE."""
    outside, *holes = [_corners(ring) for ring in (points["exterior"], *(points.get("interior") or ()))]
    if len(outside) == 2:
        (left, top), (right, bottom) = outside
        outside = [(left, top), (right, top), (right, bottom), (left, bottom)]
    flat = [value for corner in outside for value in corner]
    if not holes:
        return [flat]
    canvas = Image.fromarray(unpack_mask(read_mask([flat], size, "a polygon")))
    for hole in holes:
        if len(hole) >= 3:
            ImageDraw.Draw(canvas).polygon(hole, fill=0)
    return pack_mask(np.asarray(canvas, bool))


def _corners(ring: Any) -> list[tuple[float, float]]:
    corners = [(float(x), float(y)) for x, y in ring]
    if not all(abs(value) < FARTHEST for corner in corners for value in corner):
        raise ValueError("corners far outside")
    return corners


def _bitmap(bitmap: dict[str, Any], size: tuple[int, int]) -> Any:
    """A packed PNG of the object's box, whose alpha or grey is the mask, as RLE."""
    data = zlib.decompressobj().decompress(base64.b64decode(bitmap["data"]), _MOST)
    with open_picture(io.BytesIO(data)) as file:
        if file.width > size[1] or file.height > size[0]:
            raise ValueError("larger than the image")
        inside = np.asarray(file.getchannel("A") if "A" in file.getbands() else file.convert("L")) > 0
    left, top = (max(int(value), 0) for value in bitmap["origin"])
    mask = np.zeros(size, bool)
    place = mask[top : top + inside.shape[0], left : left + inside.shape[1]]
    place[...] = inside[: place.shape[0], : place.shape[1]]
    return pack_mask(mask)


def _color(given: Any) -> tuple[int, int, int] | None:
    """A colour written as #RRGGBB."""
    try:
        number = int(str(given).removeprefix("#"), 16)
    except ValueError:
        return None
    return (number >> 16 & 255, number >> 8 & 255, number & 255)


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except DataError:
        return None
