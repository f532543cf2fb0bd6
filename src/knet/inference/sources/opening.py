"""Opens videos so that FFmpeg reads what it was given, and nothing that this names: files, addresses, patterns."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import av
from av.stream import Disposition

# Demuxers of lists and descriptions of what lies elsewhere; "image2" takes a % in a name for a pattern of names.
_NAMING = frozenset({"concat", "dash", "hls", "image2", "imf", "rtsp", "sap", "sdp"})
_FORMATS = ",".join(sorted(av.formats_available - _NAMING))

_PLAYLIST = b"#EXTM3U"


def open_content(source: Any) -> Any:
    """An open container of a path or a file that can be read, whose content names nothing else.

    Raises:
        OSError: it cannot be read. FFmpeg's errors, most of which are `ValueError`.
    """
    try:
        return av.open(source, metadata_errors="replace", container_options={"format_whitelist": _FORMATS})
    except av.error.ArgumentError as error:
        raise OSError(errno.EINVAL, "it is damaged, or stands for other files") from error


def open_file(path: Path) -> Any:
    """As `open_content`, of a video file; but a playlist (.m3u8) may name files of its own folder."""
    real = path.resolve()  # absolute: a name like "concat:a" would be taken for one of FFmpeg's protocols
    with real.open("rb") as file:
        playlist = file.read(len(_PLAYLIST)) == _PLAYLIST
    if playlist:
        return av.open(str(real), metadata_errors="replace", io_open=_below(real.parent))
    return open_content(str(real))


def picture_stream(container: Any) -> Any:
    """The first stream of moving pictures, None if there is none; a cover or a preview that is attached is none."""
    streams = container.streams.video
    return next((stream for stream in streams if not stream.disposition & Disposition.attached_pic), None)


def packets(container: Any, stream: Any) -> Iterator[Any]:
    """The packets of a stream; PyAV stops at those of other streams that begin in the midst, which are passed over."""
    while True:
        try:
            yield from container.demux(stream)
            return
        except IndexError:
            continue


def _below(folder: Path) -> Callable[[str, int, dict[str, str]], IO[bytes]]:
    """What opens for FFmpeg the files of a folder, to be read, and refuses all others."""

    def open_below(url: str, flags: int, options: dict[str, str]) -> IO[bytes]:
        path = Path(url).resolve()
        if flags & 2 or not path.is_relative_to(folder) or not path.is_file():  # 2: to write
            raise PermissionError(errno.EPERM, "it names what is no file in its own folder", url)
        return path.open("rb")

    return open_below
