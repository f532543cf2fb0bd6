"""Reads one image from a file, bytes, an array, a tensor or a Pillow image.

The result is always (H,W,3) uint8 RGB, turned upright as the camera noted (EXIF).
"""

import os
import re
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image

from knet.data.files.pictures import decode_picture, rgb_from_array
from knet.errors import DataError, did_you_mean
from knet.files import from_home

if TYPE_CHECKING:
    from torch import Tensor

# What an image may come as, see `load_image`, and several.
Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | np.ndarray | Tensor"
Sources: TypeAlias = list[Any] | tuple[Any, ...]


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
        path = existing_file(from_home(source))
        try:
            with path.open("rb") as file:
                return decode_picture(file, f"'{path}'")
        except OSError as error:
            raise DataError(f"Cannot open '{path}': {why_not(error)}.") from error
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        if not data:
            raise DataError("The image given as bytes is empty; pass the whole content of an image file.")
        return decode_picture(BytesIO(data), f"The image given as {len(data)} bytes")
    if isinstance(source, Image.Image):
        return decode_picture(source, "The Pillow image")
    if hasattr(source, "detach") and hasattr(source, "cpu"):  # a torch tensor, recognised without importing torch
        values = _values(source)
        if values.ndim > 3:
            raise DataError(f"The tensor has shape {values.shape}; pass one image (3,H,W), or a list for a batch.")
        return rgb_from_array(np.moveaxis(values, 0, -1) if values.ndim == 3 else values, "tensor", values.shape)
    if hasattr(source, "__array__"):
        values = _values(source)
        return rgb_from_array(values, "array", values.shape)
    allowed = "a path, bytes, a Pillow image, an (H,W,3) uint8 array or a (3,H,W) tensor"
    raise DataError(f"Cannot take an image from a {type(source).__name__}; pass {allowed}.")


def _values(source: Any) -> np.ndarray:
    """What a tensor or an array holds. `DataError` for those that are sparse, quantised, or hold nothing ("meta")."""
    try:
        if hasattr(source, "detach"):
            source = source.detach().cpu()
            source = source.float() if source.is_floating_point() else source
        return np.asarray(source)
    except Exception as error:  # what others' arrays raise has no common class
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(
            f"The image given as {type(source).__name__} has no pixels that can be read ({reason}); pass a dense "
            "tensor or array of uint8, or of float from 0 to 1."
        ) from error


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
    if (address := re.match(r"^file:/{1,3}", text, re.IGNORECASE)) is not None:
        return f"'{text}' is the address of a file; give its path alone, '/{text[address.end() :]}'."
    if re.match(r"^[a-z][a-z0-9+.-]+:/", text, re.IGNORECASE):
        return f"'{text}' looks like a web address; pass it as text, with an image's ending, or the path of a file."
    if path.is_symlink():
        return f"'{path}' is a link to what is not there; give the file itself."
    with suppress(OSError):
        names, otherwise = [p.name for p in path.parent.iterdir()], f"look in the folder '{path.parent.resolve()}'."
        hint = did_you_mean(path.name, names, otherwise, shown=path.parent.joinpath)
        return f"There is no '{path}'; {hint}"
    return f"There is no '{path}', nor its folder; paths count from the current folder '{Path.cwd()}'."
