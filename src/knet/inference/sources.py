"""Where images come from: files, folders, patterns, videos, bytes, arrays, tensors, Pillow images.

Whatever comes in, an image leaves this file as (H,W,3) uint8 RGB, turned upright as its camera noted (EXIF).
"""

from __future__ import annotations

import difflib
import glob
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from knet.errors import DataError
from knet.inference.decoding import decode_frames

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2", ".avif")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm", ".gif", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts")
KNOWN = f"images: {' '.join(IMAGE_SUFFIXES)}; videos: {' '.join(VIDEO_SUFFIXES)}"
MAX_PIXELS = 400_000_000
_pillow_limit = threading.Lock()


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to be read later: an image, or a video if `video` is true."""

    path: Path
    video: bool


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video says: frames a second, their number (None: not told; it may be an estimate), upright size."""

    path: Path
    rate: Fraction
    frames: int | None
    height: int
    width: int

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem


@dataclass(frozen=True, slots=True)
class Item:
    """One image to work on: (H,W,3) uint8 RGB. `video` and `index` (0, 1, ...) are set for the frames of a video."""

    image: np.ndarray
    name: str
    path: Path | None = None
    video: VideoInfo | None = None
    index: int = 0


def load_image(source: Any) -> np.ndarray:
    """One image from wherever it is. -> (H,W,3) uint8 RGB, contiguous; an array that is already so is not copied

    source: a path; the bytes of an image file; a Pillow image; a numpy array (H,W) or (H,W,1|3|4), grey, RGB or
    RGBA; a torch tensor (H,W) or (1|3|4,H,W). Arrays and tensors are uint8, uint16 or float from 0 to 1.
    Sixteen bits are divided by 257, an alpha channel is dropped, of several pages the first is read.

    Raises:
        DataError: missing, empty, damaged or cut off, no image, more than 400 million pixels, a wrong shape or type.
    """
    if isinstance(source, str | os.PathLike):
        path = _existing_file(Path(source).expanduser())
        try:
            with path.open("rb") as file:
                return _decode(file, f"'{path}'")
        except OSError as error:
            raise DataError(f"Cannot open '{path}': {_why(error)}.") from error
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


def _existing_file(path: Path) -> Path:
    """The path, if a file with content is there."""
    try:
        if path.is_file():
            if path.stat().st_size:
                return path
            raise DataError(f"'{path}' is empty (0 bytes); copy or download it again.")
        if path.exists():
            raise DataError(f"'{path}' is {'a folder; name a file in it' if path.is_dir() else 'no regular file'}.")
    except OSError as error:
        raise DataError(f"Cannot open '{path}': {_why(error)}.") from error
    raise DataError(_missing(path))


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _missing(path: Path) -> str:
    """The sentence for a path that is not there, with the nearest name that is."""
    text = str(path)
    if re.match(r"^[a-z]{2,}:/", text):
        return f"'{text}' looks like a web address, which is not fetched; download the file and pass its path."
    with suppress(OSError):
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1)
        hint = f"did you mean '{path.parent / near[0]}'?" if near else f"look in the folder '{path.parent.resolve()}'."
        return f"There is no '{path}'; {hint}"
    return f"There is no '{path}', nor its folder; paths count from the current folder '{Path.cwd()}'."


def _open_picture(file: IO[bytes]) -> Image.Image:
    with _pillow_limit:  # Pillow's global limit would refuse large photos; the lock keeps our threads from mixing it up
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _decode(source: IO[bytes] | Image.Image, what: str) -> np.ndarray:
    """An open file or a picture -> (H,W,3) uint8 RGB. Whatever goes wrong becomes a DataError about `what`."""
    try:
        picture = source if isinstance(source, Image.Image) else _open_picture(source)
        width, height = picture.size
        if not width * height:
            raise DataError(f"{what} has no pixels ({width} x {height}).")
        if width * height > MAX_PIXELS:
            limit = f"at most {MAX_PIXELS // 10**6} million are read: cut it into tiles or make it smaller"
            raise DataError(f"{what} has {width} x {height} = {width * height / 1e6:.0f} million pixels; {limit}.")
        picture.load()
        # A photo with unreadable notes about itself is still a photo: it is taken as it lies.
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
    """A decoded picture of any mode -> (H,W,3) uint8 RGB"""
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture)
        if picture.mode == "I" and values.min() >= 0 and values.max() <= 65535:
            values = values.astype(np.uint16)  # how older versions of Pillow read 16 bits
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


def probe_video(path: str | Path) -> VideoInfo:
    """Frame rate, length and size of a video; its first frame is decoded to be sure that it can be.

    Raises:
        DataError: missing, empty, no video, or not one frame can be decoded.
    """
    path = _existing_file(Path(path).expanduser())
    with _container(path) as container:
        stream = container.streams.video[0]
        rate = stream.guessed_rate or stream.average_rate or 25
        frames: int | None = stream.frames or None
        if frames is None and container.duration:
            frames = max(1, round(container.duration / 1_000_000 * rate))  # duration is in microseconds
        first = next(decode_frames(container, f"'{path}'"), None)
    if first is None:
        raise DataError(f"'{path}' holds no frame that can be read; copy or convert it again.")
    return VideoInfo(path, Fraction(rate), frames, *first.shape[:2])


def read_video(path: str | Path) -> Iterator[Item]:
    """The frames of a video one by one, upright, named `<file>_000000` and so on; memory stays constant.

    Raises:
        DataError: as probe_video at the first frame, or later where the file breaks off.
    """
    info = probe_video(path)
    with _container(info.path) as container:
        for index, image in enumerate(decode_frames(container, f"'{info.path}'")):
            yield Item(image, f"{info.name}_{index:06d}", info.path, info, index)


def _container(path: Path) -> Any:
    try:
        # The absolute path keeps a name like "concat:a" from being taken for one of FFmpeg's protocols.
        container = av.open(str(path.resolve()), metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"'{path}' is not a video that can be read ({_why(error)}); convert it again.") from error
    if not container.streams.video:
        container.close()
        raise DataError(f"'{path}' has no picture stream (sound only?); pass a video.")
    container.streams.video[0].thread_type = "AUTO"
    return container


def natural_order(path: Path) -> tuple[Any, ...]:
    """A sorting key by which frame_2 comes before frame_10."""
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if part.isdecimal() else part.casefold() for part in parts], str(path)


def expand_sources(sources: Iterable[str | Path]) -> list[SourceFile]:
    """The image and video files that paths, folders and patterns stand for. Nothing is opened.

    A folder stands for the images directly in it, a pattern (`drive/*.png`, `**` for any depth) for the images,
    videos and folders it matches, both in natural order and without hidden files. A file named twice counts once.

    Raises:
        DataError: no such path, a file with an unknown ending, a folder without images, a pattern without matches.
    """
    found: dict[Path, SourceFile] = {}
    for source in sources:
        for path in _expand(Path(source).expanduser()):
            found.setdefault(path.absolute(), SourceFile(path, path.suffix.lower() in VIDEO_SUFFIXES))
    return list(found.values())


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        return _images_in(path)
    known = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
    if path.exists():
        if path.suffix.lower() not in known:
            raise DataError(f"'{path}' has an unknown ending; known are {KNOWN}.")
        return [path]
    if not glob.has_magic(str(path)):
        raise DataError(_missing(path))
    files: list[Path] = []
    # pathlib's glob takes no absolute pattern.
    for match in sorted(map(Path, glob.glob(str(path), recursive=True)), key=natural_order):  # noqa: PTH207
        if match.is_dir():
            with suppress(DataError):  # a folder without images is no match
                files += _images_in(match)
        elif match.suffix.lower() in known:
            files.append(match)
    if not files:
        raise DataError(f"The pattern '{path}' matches no image or video; known endings: {KNOWN}.")
    return files


def _images_in(folder: Path) -> list[Path]:
    try:
        inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise DataError(f"Cannot read the folder '{folder}': {_why(error)}.") from error
    images = [path for path in inside if path.suffix.lower() in IMAGE_SUFFIXES]
    if images:
        return sorted(images, key=natural_order)
    hint = f"for folders below it use a pattern: '{folder}/**/*.jpg'"
    if any(path.suffix.lower() in VIDEO_SUFFIXES for path in inside):
        hint = f"name its videos: '{folder}/*'"
    raise DataError(f"The folder '{folder}' holds no image ({len(inside)} other entries); {hint}.")


def open_source(source: Any, on_error: Callable[[DataError], None] | None = None) -> Iterator[Item]:
    """Every image of a source, one at a time and in order; memory does not grow with their number.

    source: a path, folder, pattern or video file (see expand_sources), anything that load_image takes, or a list of
    such things. Images without a file are called `image_000000` by their place in the list.
    on_error: called for a file that cannot be read, which is then left out. Without it the error is raised.

    Raises:
        DataError: a source that does not exist (at once, for paths), or one that cannot be read (when its turn comes).
    """
    members = list(source) if isinstance(source, list | tuple) else [source]
    plan: list[SourceFile | tuple[int, Any]] = []
    for index, member in enumerate(members):
        plan += expand_sources([Path(member)]) if isinstance(member, str | os.PathLike) else [(index, member)]
    return _items(plan, on_error)


def _items(plan: list[SourceFile | tuple[int, Any]], on_error: Callable[[DataError], None] | None) -> Iterator[Item]:
    for entry in plan:
        try:
            if not isinstance(entry, SourceFile):
                yield Item(load_image(entry[1]), f"image_{entry[0]:06d}")
            elif entry.video:
                yield from read_video(entry.path)
            else:
                yield Item(load_image(entry.path), entry.path.stem, entry.path)
        except DataError as error:
            if on_error is None:
                raise
            on_error(error)
