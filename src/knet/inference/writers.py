"""Results on disk. Every file appears under its own name only when it is whole.

All names begin with that of the image and say what they hold, so results may go into the folder of the images:

    format      file                    content
    overlay     <name>_overlay.jpg      the image with class colours, borders and names
    panoptic    <name>_panoptic.png     COCO panoptic: segment id = R + 256 G + 65536 B, 0 = void; with panoptic.json
    instances   <name>_instances.png    Cityscapes instanceIds, 16 bit: things category id * 1000 + n, stuff category id
    semantic    <name>_semantic.png     category ids, 8 bit (16 bit where the table needs it)
    json        <name>_segments.json    the segments as plain data
    video       <video>_overlay.mp4     the overlays as H.264 at the video's frame rate

Void is 0 in instances and semantic; where the class table gives the number 0 to a class (KITTI-STEP, VIPSeg), void is
the largest number that the pixels can hold: 255 or 65535.
"""

from __future__ import annotations

import difflib
import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from PIL import Image, ImageOps

from knet.errors import ConfigError, OutputError
from knet.files import atomic_path, cannot_write, safe_name
from knet.inference.segmentation import (
    Segmentation,
    instance_ids,
    panoptic_categories,
    panoptic_entries,
    panoptic_rgb,
    semantic_ids,
)
from knet.inference.sources import VideoInfo
from knet.structures import Category

FORMATS = ("overlay", "panoptic", "instances", "semantic", "json", "video")
# Of tracked videos, see `track_writers`.
TRACK_FORMATS = ("step", "vipseg", "cityscapes-vps", "vipseg-json", "cityscapes-vps-json", "tracks", "mots")
STILL_RATE = Fraction(10)  # frames a second of a film made of single images
# A quarter of the time of "veryfast" at crf 20, files a third larger, pictures a little closer to what was drawn.
_X264 = {"preset": "ultrafast", "crf": "22", "x264-params": "deblock=0,0:partitions=i4x4"}


def check_formats(formats: Sequence[str], categories: Sequence[Category]) -> tuple[str, ...]:
    """The formats, once each. ConfigError for an unknown one and for one that cannot hold the classes."""
    formats = formats.split(",") if isinstance(formats, str) else formats
    for name in formats:
        if name in TRACK_FORMATS:
            raise ConfigError(
                f"The format '{name}' is for tracked videos: use `knet predict --track` or a TrackWriter."
            )
        if name not in FORMATS:
            near = difflib.get_close_matches(str(name), FORMATS + TRACK_FORMATS, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else "."
            known = f"{', '.join(FORMATS)}, and of tracked videos {', '.join(TRACK_FORMATS)}"
            raise ConfigError(f"Unknown format '{name}'; known are {known}{hint}")
    if "semantic" in formats and any(not 0 <= c.id < 65535 for c in categories):
        raise ConfigError("The format 'semantic' holds category ids from 0 to 65534; use 'panoptic' or 'json' instead.")
    bad = next((c for c in categories if not (1 <= c.id <= 65 if c.thing else 0 <= c.id < 1000)), None)
    if "instances" in formats and bad:
        raise ConfigError(
            "The format 'instances' (16 bit, category id * 1000 + n) holds things with category ids 1 .. 65 and stuff "
            f"with 0 .. 999; '{bad.name}' has {bad.id}: use 'panoptic' instead."
        )
    return tuple(dict.fromkeys(formats))


def still_video(name: str, image: np.ndarray) -> VideoInfo:
    """What `ResultWriter.write` needs to make a video of that name from single images."""
    return VideoInfo(Path(f"{name}.images"), STILL_RATE, None, *image.shape[:2])


def make_folder(folder: Path) -> Path:
    """The folder, made if needed and tried out. OutputError if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _refused(folder, error) from error
    return folder


def _refused(path: Path, error: Exception) -> OutputError:
    reason = getattr(error, "strerror", None) or error
    return error if isinstance(error, OutputError) else cannot_write(path, reason)


def write_bytes(path: Path, data: bytes) -> Path:
    """Writes a file whole or not at all, and returns its path. OutputError if it cannot be written."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return path


def encoded(pixels: np.ndarray, path: Path) -> bytes:
    """An image file's content: JPEG or PNG by the path's ending."""
    buffer = BytesIO()
    try:
        if path.suffix == ".jpg":  # full colour resolution keeps thin borders clean
            Image.fromarray(pixels).save(buffer, "JPEG", quality=92, subsampling=0)
        else:
            Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    except (OSError, ValueError, OverflowError) as error:
        raise _refused(path, error) from error
    return buffer.getvalue()


def write_files(
    segmentation: Segmentation, folder: Path, name: str, formats: Sequence[str], picture: np.ndarray | None
) -> list[Path]:
    """The files of one image in an existing folder; `picture` is the finished overlay. OutputError if one fails."""
    makers: dict[str, tuple[str, Callable[[], np.ndarray]]] = {
        "panoptic": (f"{name}_panoptic.png", lambda: panoptic_rgb(segmentation)),
        "instances": (f"{name}_instances.png", lambda: instance_ids(segmentation)),
        "semantic": (f"{name}_semantic.png", lambda: semantic_ids(segmentation)),
    }
    if picture is not None:
        makers["overlay"] = (f"{name}_overlay.jpg", lambda: picture)
    written: list[Path] = []
    for kind in formats:
        if kind in makers:
            path = folder / makers[kind][0]
            written.append(write_bytes(path, encoded(makers[kind][1](), path)))
        elif kind == "json":
            text = json.dumps(segmentation.to_dict(), indent=1)
            written.append(write_bytes(folder / f"{name}_segments.json", text.encode()))
    return written


def save_one(segmentation: Segmentation, folder: Path, formats: Sequence[str], image: Any, name: str) -> list[Path]:
    """What `Segmentation.save` does; its docstring tells."""
    formats = check_formats(formats, segmentation.categories)
    if "video" in formats:
        raise ConfigError("The format 'video' needs many images: write them with a ResultWriter or `knet predict`.")
    picture = segmentation.overlay(image) if "overlay" in formats else None
    name = safe_name(name)
    written = write_files(segmentation, make_folder(folder), name, formats, picture)
    if "panoptic" in formats:
        image_entry, annotation = panoptic_entries(segmentation, name, name, f"{name}_panoptic.png")
        document = {"images": [image_entry], "annotations": [annotation]}
        document["categories"] = panoptic_categories(segmentation.categories)
        written.append(write_bytes(folder / f"{name}_panoptic.json", json.dumps(document).encode()))
    return written


class _AbortError(Exception):
    """Makes atomic_path throw its file away."""


class _Film:
    """An annotated video in the making. The first picture decides its size; others are fitted into that."""

    def __init__(self, path: Path, rate: Fraction):
        self.path, self._rate = path, Fraction(rate).limit_denominator(100_000)
        self._size: tuple[int, int] | None = None
        self._failed: OutputError | None = None
        self._stack = ExitStack()

    def add(self, picture: np.ndarray) -> None:
        """One more picture, (H,W,3) uint8 RGB. OutputError, now and from then on, and no file if that fails."""
        if self._failed:
            raise self._failed
        try:
            height, width = picture.shape[:2]
            if self._size is None:
                # H.264 halves the colours, so its sizes are even: odd ones get a line or column more.
                self._open(width + width % 2, height + height % 2)
                self._size = (width, height)
            elif self._size != (width, height):
                picture = np.asarray(ImageOps.pad(Image.fromarray(picture), self._size))
            if picture.shape[0] % 2 or picture.shape[1] % 2:
                picture = np.pad(picture, ((0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)), mode="edge")
            # The frame uses the picture's memory, and is converted before that is gone. More threads take longer.
            frame = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(picture), format="rgb24")
            yuv = frame.reformat(format="yuv420p", dst_colorspace="ITU709", threads=1)
            self._container.mux(self._stream.encode(yuv))
        except (OSError, ValueError, av.error.FFmpegError) as error:
            self._failed = _refused(self.path, error)
            self.abort()
            raise self._failed from error

    def _open(self, width: int, height: int) -> None:
        temporary = self._stack.enter_context(atomic_path(self.path))
        container = av.open(str(temporary.absolute()), "w", format="mp4", options={"movflags": "+faststart"})
        self._container = self._stack.enter_context(container)
        codec = next((c for c in ("libx264", "libopenh264") if c in av.codecs_available), "mpeg4")
        options = _X264 if codec == "libx264" else {}
        self._stream = cast(Any, container.add_stream(codec, rate=self._rate, options=options))
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        context = self._stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1  # BT.709, limited

    def finish(self) -> None:
        """Puts the file under its own name."""
        if self._failed:
            raise self._failed
        try:
            self._container.mux(self._stream.encode(None))
            self._stack.close()
        except (OSError, ValueError, av.error.FFmpegError) as error:
            self.abort()
            raise _refused(self.path, error) from error

    def abort(self) -> None:
        """Stops and leaves nothing behind."""
        with suppress(_AbortError, OutputError, OSError, av.error.FFmpegError), self._stack:
            raise _AbortError


class GrowingFile:
    """A file in the making: what is added goes to disk at once, so memory stays flat; it gets its name when finished.

    Raises:
        OutputError: the file cannot be made.
    """

    def __init__(self, path: Path, head: bytes):
        self.path, self._size = path, 0
        self._stack = ExitStack()
        try:
            temporary = self._stack.enter_context(atomic_path(path))
            self._file = self._stack.enter_context(temporary.open("wb", buffering=0))
            self.append(head)
        except (OSError, OutputError) as error:
            self._abort()
            raise _refused(path, error) from error

    def append(self, data: bytes) -> None:
        """After an OutputError the file is as it was before."""
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
            self._size += len(data)
        except OSError as error:
            with suppress(OSError):  # a full disk may have taken half of it
                self._file.seek(self._size)
                self._file.truncate()
            raise _refused(self.path, error) from error

    def end(self, tail: bytes) -> None:
        """Puts the file under its own name. After an OutputError there is none."""
        try:
            self.append(tail)
        except OutputError:
            self._abort()
            raise
        self._stack.close()

    def _abort(self) -> None:
        with suppress(_AbortError, OutputError, OSError), self._stack:
            raise _AbortError


class PanopticFile(GrowingFile):
    """panoptic.json in the making."""

    def __init__(self, path: Path, categories: Sequence[Category]):
        self._images = list[bytes]()
        rows = json.dumps(panoptic_categories(categories))
        super().__init__(path, f'{{"categories": {rows},\n"annotations": ['.encode())

    def add(self, image: dict[str, Any], annotation: dict[str, Any]) -> None:
        """One more image. After an OutputError the file is as it was before."""
        self.append((b",\n" if self._images else b"\n") + json.dumps(annotation).encode())
        self._images.append(json.dumps(image).encode())

    def finish(self) -> None:
        """Puts the file under its own name, with all images that were added."""
        self.end(b'\n],\n"images": [\n' + b",\n".join(self._images) + b"\n]}\n")


class ResultWriter:
    """Writes the results of many images to a folder, in any of `FORMATS`. A context manager.

    Images of the same name (a/x.jpg, b/x.png, b/X.png) get a number, in the order in which they come: x, x_2, X_3.
    Files that an earlier run left under these names are replaced. `panoptic.json` and videos are finished by `close`,
    or at the end of the `with` block; if that ends with an error, `panoptic.json` lists the images that were done,
    and the unfinished video is removed. Memory does not grow with the number of images.

    Raises:
        ConfigError: an unknown format, or one that cannot hold the class table.
        OutputError: the folder cannot be made or written.
    """

    def __init__(self, folder: str | Path, formats: Sequence[str], categories: Sequence[Category]):
        self.categories, self.formats = tuple(categories), check_formats(formats, categories)
        self.folder = make_folder(Path(folder))
        self._last_number: dict[tuple[str, str], int] = {}
        self._panoptic: PanopticFile | None = None
        self._film: _Film | None = None
        self._filmed: Path | None = None
        self._image_ids: set[int] = set()

    def write(
        self, segmentation: Segmentation, image: Any, *, path: Path | None = None, video: VideoInfo | None = None
    ) -> list[Path]:
        """Writes one result; the files that are finished by now, without `panoptic.json` and videos.

        image: what the result was made from, anything that `load_image` takes. path: its file, whose name
        `panoptic.json` gives. video: the video it is a frame of; each video becomes one film, and images without a
        video become one together (`images_overlay.mp4`, 10 a second, fitted into the size of the first).

        Raises:
            DataError: the image does not fit the result.
            OutputError: no permission, no space; the files written before stay.
        """
        name = self._unique("image", safe_name(segmentation.name))
        drawn = "overlay" in self.formats or "video" in self.formats
        picture = segmentation.overlay(image) if drawn else None
        written = write_files(segmentation, self.folder, name, self.formats, picture)
        if "panoptic" in self.formats:
            self._panoptic = self._panoptic or PanopticFile(self.folder / "panoptic.json", self.categories)
            image_file, png_file = path.name if path else name, f"{name}_panoptic.png"
            self._panoptic.add(*panoptic_entries(segmentation, self._image_id(name), image_file, png_file))
        if "video" in self.formats and picture is not None:
            self._film_of(video).add(picture)
        return written

    def _film_of(self, video: VideoInfo | None) -> _Film:
        source = video.path if video else None
        if self._film is None or source != self._filmed:
            film, self._film = self._film, None
            if film is not None:
                film.finish()
            name = self._unique("video", safe_name(video.name if video else "images"))
            self._film = _Film(self.folder / f"{name}_overlay.mp4", video.rate if video else STILL_RATE)
            self._filmed = source
        return self._film

    def _image_id(self, name: str) -> int | str:
        """What `panoptic.json` calls the image. COCO names files by a number and finds the truth by that."""
        if not (name.isascii() and name.isdecimal()) or int(name) in self._image_ids:
            return name
        self._image_ids.add(int(name))
        return int(name)

    def _unique(self, kind: str, name: str) -> str:
        """The name, or the first of name_2, name_3, ... that is free; capitals do not count as a difference."""
        number = self._last_number.get((kind, name.casefold()), 0) + 1
        candidate = name if number == 1 else f"{name}_{number}"
        while number > 1 and (kind, candidate.casefold()) in self._last_number:
            number += 1
            candidate = f"{name}_{number}"
        self._last_number[kind, name.casefold()] = number
        self._last_number.setdefault((kind, candidate.casefold()), 1)
        return candidate

    def close(self) -> list[Path]:
        """Finishes `panoptic.json` and the video; their paths. A second call does nothing."""
        parts = [part for part in (self._panoptic, self._film) if part is not None]
        self._panoptic = self._film = None
        with ExitStack() as stack:  # a failure of the one does not keep the other from being finished
            for part in parts:
                stack.callback(part.finish)
        return [part.path for part in parts]

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        if kind is not None and self._film is not None:
            self._film.abort()
            self._film = None
        with suppress(*([OutputError] if kind else [])):  # the error on its way says more
            self.close()
