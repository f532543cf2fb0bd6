"""Decodes the frames of an open video, up to where it breaks off."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import av
import numpy as np

from knet.errors import DataError

_EBML, _SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")  # Matroska: its first element, and its content
_SYNC, _PACKET = b"G", 188  # MPEG-TS: the first byte of each packet, and its length
_BOXES = (b"ftyp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide")  # the parts of MP4 and MOV
_REORDERED = 4  # how many frames may be decoded before a frame that is stored earlier but shown later


def decode_frames(container: Any, what: str, advice: str = "copy it again") -> Iterator[np.ndarray]:
    """The frames of an open video, (H,W,3) uint8 RGB, rotated as the camera noted. They may differ in size.

    Raises:
        DataError: the video breaks off, after its last whole frame. `what` begins the message, `advice` ends it.
    """
    done, cut, held = 0, "", list[Any]()
    try:
        for frame in _until_cut(container):
            if isinstance(frame, Exception):
                cut = str(getattr(frame, "strerror", None) or frame)
            elif held or frame.is_corrupt:
                held.append(frame)  # in the middle of a video it is a frame; at the end, where the file breaks off
            else:
                held = [frame]
            while held and not (held[0].is_corrupt and len(held) <= _REORDERED):
                yield _picture(held.pop(0))
                done += 1
        for frame in held:
            if not frame.is_corrupt:
                yield _picture(frame)
                done += 1
    except (OSError, ValueError) as error:
        cut = str(error)
    if cut or any(frame.is_corrupt for frame in held):
        raise DataError(f"{what} breaks off after {done} frames ({cut or 'in the middle of one'}); {advice}.")


def _picture(frame: Any) -> np.ndarray:
    image = frame.to_ndarray(format="rgb24", threads=1)  # more take longer
    turns = round(getattr(frame, "rotation", 0) / 90) % 4  # known from PyAV 14.1 on
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _until_cut(container: Any) -> Iterator[Any]:
    """Decoded frames; where the file breaks off, the last item is an error, after all frames of the decoder."""
    stream, partial = container.streams.video[0], False
    try:
        for packet in container.demux(stream):
            partial = packet.is_corrupt if packet.size else partial
            yield from packet.decode()
    except av.error.FFmpegError as error:
        with suppress(av.error.FFmpegError):
            yield from stream.codec_context.decode(None)
        yield error
        return
    if partial or _lacks_its_end(Path(container.name)):
        yield EOFError("the file is cut off")


def _lacks_its_end(path: Path) -> bool:
    """Whether a file is shorter than its header states, or ends inside a packet, which a decoder need not notice."""
    if not path.is_file():
        return False
    length = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(12)
        if start[:4] == b"RIFF":
            size = int.from_bytes(start[4:8], "little")
            return size not in (0, 2**32 - 1) and size + 8 > length
        if start[:4] == _EBML:
            file.seek(4)
            file.seek(_ebml_size(file) or 0, os.SEEK_CUR)
            rest = _ebml_size(file) if file.read(4) == _SEGMENT else None
            return rest is not None and file.tell() + rest > length
        if start[:1] == _SYNC and file.seek(_PACKET) and file.read(1) == _SYNC:
            return length % _PACKET > 0
        if start[4:8] not in _BOXES:
            return False
        place = 0
        while place < length:
            file.seek(place)
            head = file.read(16)
            size = int.from_bytes(head[:4], "big")
            size = int.from_bytes(head[8:], "big") if size == 1 else size
            if size < 8:  # 0: up to the end
                return False
            place += size
        return head[4:8] in _BOXES and place > length


def _ebml_size(file: IO[bytes]) -> int | None:
    """A size in Matroska's form, whose first byte gives its length by leading zeros; None for unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0x7F >> more)]) + file.read(more), "big")
    return None if value == (1 << 7 * (more + 1)) - 1 else value
