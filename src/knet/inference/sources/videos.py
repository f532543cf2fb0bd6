"""Video files: their rate, length and size, and their frames one by one."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np

from knet.data.files.kinds import LOOKED_AT, kind_of
from knet.errors import DataError
from knet.files import from_home
from knet.inference.sources.decoding import decode_frames, refuse_unknown_coding
from knet.inference.sources.images import existing_file, why_not
from knet.inference.sources.opening import open_file, packets, picture_stream
from knet.inference.sources.seeking import begin_at

VIDEO_SUFFIXES: tuple[str, ...] = (
    *(".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm", ".gif", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".asf"),
    *(".flv", ".3gp", ".ogv", ".vob", ".mjpg", ".mjpeg", ".h264", ".h265", ".hevc", ".y4m", ".m3u8", ".ivf", ".m2v"),
)
_LOOKED_AT = 64  # packets whose distances tell the usual one of frames


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """A video's frames a second, their number (perhaps an estimate, None if unknown) and the size of an upright one.

    `steps` are the distances of its first frames in seconds, where they are known beforehand.
    """

    path: Path
    rate: Fraction
    frames: int | None
    height: int
    width: int
    steps: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """The file's name without its ending; what ends a host, such as 10.0.0.7, is none."""
        return self.path.name if self.path.suffix[1:].isdigit() else self.path.stem


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a source, (H,W,3) uint8 RGB. `video` and `index` (0, 1, ...) are set for frames of videos.

    `seconds` is its time: in a video since the beginning, else what the caller or the name of the file says.
    """

    image: np.ndarray
    name: str
    path: Path | None = None
    video: VideoInfo | None = None
    index: int = 0
    seconds: float | None = None


def probe_video(path: str | Path) -> VideoInfo:
    """Frame rate, length and size of a video. DataError if the file is none, or its first frame cannot be decoded."""
    path = existing_file(from_home(path))
    with _container(path) as container:
        rate, frames = rate_and_length(container)
        first = next(decode_frames(container, f"'{path}'", told=False), None)
        steps = _steps(container)
    if first is None:
        raise DataError(f"'{path}' holds no frame that can be read; copy or convert it again.")
    height, width = first[0].shape[:2]
    return VideoInfo(path, rate, frames, height, width, steps)


def rate_and_length(container: Any) -> tuple[Fraction, int | None]:
    """Frames a second of an open video, and their number as far as it tells."""
    stream = picture_stream(container)
    rate = Fraction(stream.guessed_rate or stream.average_rate or 25)
    frames: int | None = stream.frames or None
    if frames is None and container.duration:
        frames = max(1, round(container.duration / 1_000_000 * rate))  # duration is in microseconds
    return rate, frames


def _steps(container: Any) -> tuple[float, ...]:
    """The distances in seconds of some frames that come next."""
    stream, stamps = picture_stream(container), list[int]()
    with suppress(av.error.FFmpegError):
        stamps = sorted({p.pts for p in islice(packets(container, stream), _LOOKED_AT) if p.pts is not None})
    return tuple(float((after - before) * stream.time_base) for before, after in pairwise(stamps))


def read_video(path: str | Path, start: float | None = None) -> Iterator[Item]:
    """The frames of a video, upright, named `<file>_000000` and so on. DataError if it is none, or breaks off.

    With a `start` in seconds, frames before it may be left out, where the video can be decoded from there.
    """
    info = probe_video(path)
    with ExitStack() as stack:
        container, entry = stack.enter_context(_container(info.path)), None
        if start:
            entry = begin_at(container, start)
            container = container if entry else stack.enter_context(_container(info.path))
        number, stamp = (entry.index, entry.stamp) if entry else (0, None)
        for index, (image, seconds) in enumerate(decode_frames(container, f"'{info.path}'", first=stamp), number):
            yield Item(image, f"{info.name}_{index:06d}", info.path, info, index, seconds)


def _container(path: Path) -> Any:
    try:
        container = open_file(path)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        kind = None
        with suppress(OSError), path.open("rb") as file:
            kind = kind_of(file.read(LOOKED_AT))
        if kind:
            raise DataError(f"'{path}' is {kind.name}, no video that can be read; {kind.advice}.") from error
        raise DataError(f"'{path}' is not a video that can be read ({why_not(error)}); convert it again.") from error
    if picture_stream(container) is None:
        container.close()
        raise DataError(f"'{path}' has no picture stream (sound only?); pass a video.")
    refuse_unknown_coding(container, f"'{path}'")
    picture_stream(container).thread_type = "AUTO"
    return container
