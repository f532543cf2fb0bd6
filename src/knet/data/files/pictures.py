"""Decodes pictures of any mode and depth, the same for training, evaluation and prediction. -> (H,W,3) uint8 RGB"""

import io
import threading
from contextlib import suppress
from typing import IO, Any, cast

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from knet.data.files.kinds import LOOKED_AT, Kind, kind_of
from knet.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2", ".avif")

# Pillow knows thirty more, some by running other programs (EPS by Ghostscript), others by decoders that few use.
_FORMATS = frozenset(
    {"JPEG", "MPO", "PNG", "BMP", "DIB", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF", "HEIF", "GIF", "TGA", "ICO"}
)

MAX_PIXELS = 400_000_000

_ICON = b"\0\0\1\0"
LARGEST = 2**31  # bytes of a file that is read as a whole
_SINGLE = 2**20  # bytes that are read one by one, as in the search for the next part of a JPEG, which zeros lack

_pillow_limit = threading.Lock()


class _Within:
    """A file of which no more is asked than it holds: Python reserves all that a damaged head asks for, gigabytes."""

    def __init__(self, file: IO[bytes]):
        self._file, self._size, self._single = file, file.seek(0, io.SEEK_END), 0

    def read(self, count: int | None = -1) -> bytes:
        if (count is None or count < 0) and self._size > LARGEST:
            raise ValueError(f"it has {self._size:,} bytes, more than a picture of its kind can")
        self._single += count == 1
        if self._single > _SINGLE:
            raise ValueError("a million bytes where its pixels should begin mean nothing")
        return self._file.read(-1 if count is None else min(count, self._size))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def open_picture(file: IO[bytes]) -> Image.Image:
    """Opens a picture of any size; its pixels are not decoded yet. UnidentifiedImageError for other formats."""
    with _pillow_limit:  # Pillow's global limit would refuse large photos; the lock guards it among our threads
        # Icons are decoded when they are opened.
        icon = file.read(4) == _ICON
        file.seek(0)
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MAX_PIXELS // 16 if icon else None
        try:
            picture = Image.open(cast(IO[bytes], _Within(file)))
        finally:
            Image.MAX_IMAGE_PIXELS = before
    if picture.format not in _FORMATS:
        raise UnidentifiedImageError(f"the format {picture.format} is not read here")
    return picture


def decode_picture(source: IO[bytes] | Image.Image, what: str) -> np.ndarray:
    """Decodes an open file or a picture, upright where the camera noted an orientation (EXIF). -> (H,W,3) uint8 RGB

    Sixteen bits are divided by 257, floating-point values go from 0 to 1, and an alpha channel is dropped.

    Raises:
        DataError: for any failure, with a sentence that begins with `what`.
    """
    pixels = ""
    try:
        picture = source if isinstance(source, Image.Image) else open_picture(source)
        pixels = " with its {} x {} pixels".format(*picture.size)
        refuse_size(picture, what)
        picture.load()
        # A photo whose EXIF data is unreadable is taken as it is stored.
        with suppress(Exception):
            picture = ImageOps.exif_transpose(picture)
        return _to_rgb(picture, what)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        if kind := None if isinstance(source, Image.Image) else _kind(source):
            raise DataError(f"{what} is {kind.name}, no image that can be read; {kind.advice}.") from error
        raise DataError(f"{what} is not an image in a known format ({' '.join(IMAGE_SUFFIXES)}).") from error
    except MemoryError as error:
        raise DataError(f"{what} does not fit into memory{pixels}; make it smaller.") from error
    except Exception as error:  # Pillow's readers raise errors of many types on damaged files
        raise DataError(f"{what} is damaged or cut off ({error}); copy or download it again.") from error


def _kind(file: IO[bytes]) -> Kind | None:
    file.seek(0)
    return kind_of(file.read(LOOKED_AT))


def refuse_size(picture: Image.Image, what: str) -> None:
    """Refuses an open picture without pixels or of more than 400 million; `what` begins the sentence."""
    width, height = picture.size
    if not width * height:
        raise DataError(f"{what} has no pixels ({width} x {height}).")
    if width * height > MAX_PIXELS:
        limit = f"at most {MAX_PIXELS // 10**6} million are read: cut it into tiles or make it smaller"
        raise DataError(f"{what} has {width} x {height} = {width * height / 1e6:.0f} million pixels; {limit}.")


def rgb_from_array(values: np.ndarray, what: str, shape: tuple[int, ...]) -> np.ndarray:
    """(H,W) or (H,W,1|3|4) uint8, uint16 or float 0..1 -> (H,W,3) uint8 RGB. `shape` is what the caller passed."""
    subject = f"The image given as {what} of shape {shape}" if what in ("array", "tensor") else what
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4):
        want = "(3,H,W) or (H,W)" if what == "tensor" else "(H,W,3) or (H,W)"
        raise DataError(f"{subject} does not have the shape {want}; reorder its axes, and pass a batch as a list.")
    if not values.size:
        raise DataError(f"{subject} has no pixels.")
    if values.shape[0] * values.shape[1] > MAX_PIXELS:
        raise DataError(f"{subject} has more than {MAX_PIXELS // 10**6} million pixels; cut it into tiles.")
    values = values[..., :3]  # without an alpha channel
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        values = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # written so that NaN is refused, too
            hint = "floating-point images go from 0 to 1 (divide by 255, undo any normalisation)"
            hint = "some are no numbers (NaN): replace these, such as by 0" if np.isnan(low) else hint
            raise DataError(f"{subject} has values from {low:.4g} to {high:.4g}; {hint}.")
        values = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    elif values.dtype != np.uint8:
        raise DataError(f"{subject} holds {values.dtype}; allowed are uint8, uint16 and float from 0 to 1.")
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))


def _to_rgb(picture: Image.Image, what: str) -> np.ndarray:
    """Converts a decoded picture of any mode. -> (H,W,3) uint8 RGB"""
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture)
        if picture.mode == "I" and values.min() >= 0 and values.max() <= 65535:
            values = values.astype(np.uint16)  # older versions of Pillow read 16 bits as 32
        return rgb_from_array(values, what, values.shape)
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))
