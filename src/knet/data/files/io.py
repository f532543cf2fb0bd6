"""Opens the files of a data set; every failure becomes a `DataError` of one sentence that names the file."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from knet.data.files.kinds import UNPACK, kind_of
from knet.data.files.pictures import IMAGE_SUFFIXES, decode_picture, open_picture, refuse_size
from knet.data.files.png import exif_after_pixels, read_png_ids, read_png_rgb
from knet.data.files.walk import walk
from knet.errors import DataError
from knet.files import atomic_path, exists, is_dir, is_file, open_plain
from knet.parse import LARGEST_JSON, parse_json, read_bounded

IMAGE_ENDINGS = frozenset(IMAGE_SUFFIXES)

_MODES = {"L": "a grey picture", "P": "a picture with a palette", "1": "a picture of two colours"}
_MODES |= {"LA": "a grey picture with alpha", "I;16": "a 16-bit grey picture", "CMYK": "a picture in CMYK"}
_EXIF_ORIENTATION = 274
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_SIDEWAYS = frozenset({5, 6, 7, 8})


def read_image(path: Path) -> np.ndarray:
    """Reads an image as `decode_picture` does. -> (H,W,3) uint8 RGB"""
    try:
        plain = read_png_rgb(path)
        if plain is not None:
            return plain
        with open_plain(path) as file:
            return decode_picture(file, f"The image {path} cannot be read: it")
    except (OSError, ValueError) as fault:
        raise _unreadable(path, "image", fault) from fault


def read_image_size(path: Path) -> tuple[int, int]:
    """Reads (height, width) of an image that `read_image` gives, from the file's head alone."""
    with _opened(path, "image") as file:
        # Newer versions of Pillow give the size of a TIFF as it is when turned, so its own is what it has stored.
        stored = getattr(file, "tag_v2", {}) if file.format == "TIFF" else {}
        width, height = stored.get(_TIFF_WIDTH, file.size[0]), stored.get(_TIFF_HEIGHT, file.size[1])
        if file.format == "PNG" and _has_late_exif(path):
            file.load()
        # Asking a PNG without EXIF for it would decode the whole picture.
        noted, sideways = "exif" in file.info or file.format == "TIFF", False
        with suppress(Exception):  # a photo whose EXIF data is unreadable is taken as it is stored
            sideways = noted and file.getexif().get(_EXIF_ORIENTATION) in _SIDEWAYS
    return (width, height) if sideways else (height, width)


def _has_late_exif(path: Path) -> bool:
    with path.open("rb") as file:
        return exif_after_pixels(file)


def read_ids(path: Path, encoding: str = "id = R + 256 G + 65536 B") -> np.ndarray:
    """Reads the segment ids of a COCO panoptic PNG. -> (H,W) int32 R + 256 G + 65536 B, 0 = void; alpha is ignored

    `encoding` says what the channels mean where another format is read; it appears in errors.
    """
    try:
        plain = read_png_ids(path)
    except ValueError as fault:
        raise _unreadable(path, "panoptic PNG", fault) from fault
    if plain is not None:
        return plain
    with _opened(path, "panoptic PNG") as file:
        refuse_deep_colors(file, path)
        mode, (width, height) = file.mode, file.size
        # Pillow keeps four bytes a pixel; read as one number they are the id and, in the highest, no part of it.
        packed = file.tobytes("raw", "RGBX" if mode == "RGB" else mode)
    if mode not in ("RGB", "RGBA"):
        channels = _MODES.get(mode, f"of the colour mode {mode}")
        raise DataError(f"{path} is {channels}; it must be an RGB PNG, in which {encoding}.")
    return np.frombuffer(packed, "<i4").reshape(height, width) & np.int32(0xFFFFFF)


def read_labels(path: Path) -> np.ndarray:
    """Reads the pixel values of a label PNG: 8-bit index or palette, or 16-bit. -> (H,W) int32"""
    values = read_labels_or_colors(path)
    if values.ndim == 3:
        raise DataError(f"{path} is a colour picture; a label PNG must have one channel with a number per pixel.")
    return values


def read_labels_or_colors(path: Path) -> np.ndarray:
    """Reads a label PNG as `read_labels`, or one in RGB without its alpha. -> (H,W) int32 or (H,W,3) uint8"""
    with _opened(path, "label PNG") as file:
        mode = file.mode
        if mode in {"RGB", "RGBA"}:
            refuse_deep_colors(file, path)
            return np.array(file)[..., :3]
        values = np.asarray(file) if mode in {"L", "P", "1"} or mode.startswith("I") else None
    if values is None:
        raise DataError(
            f"{path} has the colour mode {mode}; a label PNG must have one channel with a number per pixel, or RGB."
        )
    return values.astype(np.int32)


def read_gray(path: Path) -> np.ndarray:
    """(H,W) uint8 grey levels of a picture in any mode, as Pillow converts it to "L"."""
    with _opened(path, "image") as file:
        return np.asarray(file.convert("L"))


def refuse_deep_colors(file: Image.Image, path: Path) -> None:
    """Refuses an open picture, not yet decoded, with 16 bits a channel: Pillow keeps only the upper half of each."""
    if any(";16" in str(tile[3]) for tile in getattr(file, "tile", ()) if file.mode in {"RGB", "RGBA"}):
        raise DataError(
            f"{path} has 16 bits a channel; ids are made of three channels of 8 bits: write it anew in RGB."
        )


def read_json(path: Path) -> Any:
    """Reads a JSON file, in UTF-8 or UTF-16, with or without a byte order mark."""
    try:
        return load_json(path)
    except (OSError, ValueError) as fault:
        raise _unreadable(path, "JSON file", fault) from fault


def load_json(path: Path) -> Any:
    """`read_json` for callers with words of their own: raises `OSError` and `ValueError`."""
    data = read_bounded(path, LARGEST_JSON)
    if not data.strip():
        raise ValueError("it is empty")
    if kind := kind_of(data):
        holding = " and give the JSON that it holds" if kind.advice == UNPACK else ""
        raise ValueError(f"it is {kind.name}: {kind.advice}{holding}")
    return parse_json(data)


def save_png(path: str | Path, pixels: np.ndarray) -> None:
    """Writes a PNG: (H,W) uint8 or uint16, or (H,W,3) uint8 RGB."""
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary)


def list_images(folder: Path) -> list[str]:
    """Lists all images below a folder: paths relative to it, with forward slashes, sorted. Links are followed.

    On a network disk, one walk over the folder is much cheaper than asking for each file of a large data set.
    """
    if is_file(folder):
        raise DataError(f"{folder} is a file, where a folder of images is wanted; unpack it if it is an archive.")
    if not is_dir(folder):
        raise DataError(f"The folder {folder} does not exist; give the folder that holds the images.")
    found = []
    for place, names in walk(folder):
        below = place.relative_to(folder).as_posix()
        prefix = "" if below == "." else below + "/"
        found += [prefix + name for name in names if os.path.splitext(name)[1].lower() in IMAGE_ENDINGS]  # noqa: PTH122
    return sorted(found)


def name_some(names: Iterable[object], most: int = 3) -> str:
    """The first `most` names for an error message, and how many more there are."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def without_ending(name: str) -> str:
    """Takes the ending off a relative path: "aachen/a.png" -> "aachen/a"."""
    return PurePosixPath(name).with_suffix("").as_posix()


def values_in(map_: np.ndarray) -> np.ndarray:
    """The distinct values of an (H,W) integer map, ascending.

    Only one value of each run of equal neighbours is sorted. Label maps have long runs, so this is several times faster
    than sorting all pixels.
    """
    flat = map_.ravel()
    if flat.size == 0:
        return flat
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    return np.unique(np.append(flat[starts], flat[0]))


def areas_in(map_: np.ndarray) -> dict[int, int]:
    """The distinct values of an (H,W) integer map, ascending, with their numbers of pixels; from runs, as above."""
    flat = map_.ravel()
    if flat.size == 0:
        return {}
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(np.append(starts, flat.size))
    values, number = np.unique(flat[starts], return_inverse=True)
    areas = np.bincount(number, lengths).astype(np.int64)
    return dict(zip(values.tolist(), areas.tolist(), strict=True))


@contextmanager
def _opened(path: Path, what: str) -> Iterator[Image.Image]:
    """A picture that is open and not yet decoded; whatever fails becomes a `DataError` about the file."""
    try:
        with open_plain(path) as file, open_picture(file) as picture:
            refuse_size(picture, f"The {what} {path} cannot be read: it")
            yield picture
    except DataError:
        raise
    except Exception as fault:  # Pillow's readers raise errors of many types on damaged files
        raise _unreadable(path, what, fault) from fault


def _unreadable(path: Path, what: str, fault: BaseException) -> DataError:
    if not exists(path):
        return DataError(f"The {what} {path} does not exist.")
    problem = " ".join(str(fault).split()) or type(fault).__name__
    return DataError(f"The {what} {path} cannot be read ({problem}); copy or create the file again.")
