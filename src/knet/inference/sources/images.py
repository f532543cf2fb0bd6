"""Reads one image from a file, bytes, an array, a tensor or a Pillow image.

The result is always (H,W,3) uint8 RGB, turned upright as the camera noted (EXIF).
"""

import os
import re
import threading
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from knet.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

# What an image may come as, see `load_image`, and several.
Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | np.ndarray | Tensor"
Sources: TypeAlias = list[Any] | tuple[Any, ...]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2", ".avif")

MAX_PIXELS = 400_000_000

_pillow_limit = threading.Lock()


def load_image(source: Source) -> np.ndarray:
    """Reads an image. -> (H,W,3) uint8 RGB, contiguous; an array that is so already is not copied

    Sixteen bits are divided by 257, an alpha channel is dropped, and of several pages the first is read.

    Args:
        source: a path; the bytes of an image file; a Pillow image; a numpy array (H,W) or (H,W,1|3|4), grey, RGB or
            RGBA; or a torch tensor (H,W) or (1|3|4,H,W). Arrays and tensors are uint8, uint16 or float from 0 to 1.

    Raises:
        DataError: the source is missing, empty, damaged, cut off or not an image, has more than 400 million pixels, or
            an array has a wrong shape or type.
    """
    if isinstance(source, str | os.PathLike):
        path = existing_file(Path(source).expanduser())
        try:
            with path.open("rb") as file:
                return _decode(file, f"'{path}'")
        except OSError as error:
            raise DataError(f"Cannot open '{path}': {why_not(error)}.") from error
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        if not data:
            raise DataError("The image given as bytes is empty; pass the whole content of an image file.")
        return _decode(BytesIO(data), f"The image given as {len(data)} bytes")
    if isinstance(source, Image.Image):
        return _decode(source, "The Pillow image")
    if hasattr(source, "detach") and hasattr(source, "cpu"):  # a torch tensor, recognised without importing torch
        tensor = source.detach().cpu()
        values = np.asarray(tensor.float() if tensor.is_floating_point() else tensor)
        if values.ndim > 3:
            raise DataError(f"The tensor has shape {values.shape}; pass one image (3,H,W), or a list for a batch.")
        return _from_array(np.moveaxis(values, 0, -1) if values.ndim == 3 else values, "tensor", values.shape)
    if hasattr(source, "__array__"):
        return _from_array(np.asarray(source), "array", np.shape(source))
    allowed = "a path, bytes, a Pillow image, an (H,W,3) uint8 array or a (3,H,W) tensor"
    raise DataError(f"Cannot take an image from a {type(source).__name__}; pass {allowed}.")


def existing_file(path: Path) -> Path:
    """The path, if it is that of a file with content. Raises `DataError` for others."""
    try:
        if path.is_file():
            if path.stat().st_size:
                return path
            raise DataError(f"'{path}' is empty (0 bytes); copy or download it again.")
        if path.exists():
            raise DataError(f"'{path}' is {'a folder; name a file in it' if path.is_dir() else 'no regular file'}.")
    except OSError as error:
        raise DataError(f"Cannot open '{path}': {why_not(error)}.") from error
    raise DataError(no_such_path(path))


def why_not(error: Exception) -> str:
    """The system's reason for not opening a file."""
    return str(getattr(error, "strerror", None) or error)


def no_such_path(path: Path) -> str:
    """The error message for a path that does not exist, with the most similar name that does."""
    text = str(path)
    if re.match(r"^[a-z]{2,}:/", text):
        return f"'{text}' looks like a web address, which is not fetched; download the file and pass its path."
    with suppress(OSError):
        names, otherwise = [p.name for p in path.parent.iterdir()], f"look in the folder '{path.parent.resolve()}'."
        hint = did_you_mean(path.name, names, otherwise, shown=path.parent.joinpath)
        return f"There is no '{path}'; {hint}"
    return f"There is no '{path}', nor its folder; paths count from the current folder '{Path.cwd()}'."


def _open_picture(file: IO[bytes]) -> Image.Image:
    with _pillow_limit:  # Pillow's global limit would refuse large photos; the lock guards it among our threads
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _decode(source: IO[bytes] | Image.Image, what: str) -> np.ndarray:
    """Decodes an open file or a picture. -> (H,W,3) uint8 RGB. Any failure becomes a DataError about `what`."""
    try:
        picture = source if isinstance(source, Image.Image) else _open_picture(source)
        width, height = picture.size
        if not width * height:
            raise DataError(f"{what} has no pixels ({width} x {height}).")
        if width * height > MAX_PIXELS:
            limit = f"at most {MAX_PIXELS // 10**6} million are read: cut it into tiles or make it smaller"
            raise DataError(f"{what} has {width} x {height} = {width * height / 1e6:.0f} million pixels; {limit}.")
        picture.load()
        # A photo whose EXIF data is unreadable is taken as it is stored.
        with suppress(Exception):
            picture = ImageOps.exif_transpose(picture)
        return _to_rgb(picture, what)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{what} is not an image in a known format ({' '.join(IMAGE_SUFFIXES)}).") from error
    except MemoryError as error:
        raise DataError(f"{what} does not fit into memory; make it smaller.") from error
    except Exception as error:  # Pillow's readers raise errors of many types on damaged files
        raise DataError(f"{what} is damaged or cut off ({error}); copy or download it again.") from error


def _to_rgb(picture: Image.Image, what: str) -> np.ndarray:
    """Converts a decoded picture of any mode. -> (H,W,3) uint8 RGB"""
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture)
        if picture.mode == "I" and values.min() >= 0 and values.max() <= 65535:
            values = values.astype(np.uint16)  # older versions of Pillow read 16 bits as 32
        return _from_array(values, what, values.shape)
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _from_array(values: np.ndarray, what: str, shape: tuple[int, ...]) -> np.ndarray:
    """(H,W) or (H,W,1|3|4) uint8, uint16 or float 0..1 -> (H,W,3) uint8 RGB. `shape` is what the caller passed."""
    subject = f"The image given as {what} of shape {shape}" if what in ("array", "tensor") else what
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4):
        want = "(3,H,W) or (H,W)" if what == "tensor" else "(H,W,3) or (H,W)"
        raise DataError(f"{subject} does not have the shape {want}; reorder its axes, and pass a batch as a list.")
    if not values.size:
        raise DataError(f"{subject} has no pixels.")
    values = values[..., :3]  # without an alpha channel
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        values = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # written so that NaN is refused, too
            hint = "floating-point images go from 0 to 1 (divide by 255, undo any normalisation)"
            raise DataError(f"{subject} has values from {low:.4g} to {high:.4g}; {hint}.")
        values = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    elif values.dtype != np.uint8:
        raise DataError(f"{subject} holds {values.dtype}; allowed are uint8, uint16 and float from 0 to 1.")
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))
