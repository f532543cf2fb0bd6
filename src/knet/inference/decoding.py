"""The pictures of an open video, up to where it breaks off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import av
import numpy as np

from knet.errors import DataError

_CUT_SECONDS = 1.0  # a Matroska file that says it is longer than its pictures by so much is a part of one
_REORDERED = 4  # frames that may come after the last one of a file, because they are shown later


def decode_frames(container: Any, what: str, advice: str = "copy it again") -> Iterator[np.ndarray]:
    """The frames of an open video as (H,W,3) uint8 RGB, turned as the camera noted. They may differ in size.

    Raises:
        DataError: the video breaks off; after the frames that are whole. `what` begins the sentence, `advice` ends it.
    """
    done, cut, held = 0, "", list[Any]()
    try:
        for frame in _until_cut(container):
            if isinstance(frame, Exception):
                cut = str(getattr(frame, "strerror", None) or frame)
            elif held or frame.is_corrupt:
                held.append(frame)  # in the middle of a video it is shown; at the end it is where the file breaks off
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
    image = frame.to_ndarray(format="rgb24")
    turns = round(getattr(frame, "rotation", 0) / 90) % 4  # PyAV tells it from version 14.1 on
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _until_cut(container: Any) -> Iterator[Any]:
    """Decoded frames; where the file breaks off an error is the last thing, after all that the decoder held."""
    stream, end, partial = container.streams.video[0], 0.0, False
    try:
        for packet in container.demux(stream):
            partial = packet.is_corrupt if packet.size else partial
            for frame in packet.decode():
                end = max(end, frame.time or 0.0)
                yield frame
    except av.error.FFmpegError as error:
        with suppress(av.error.FFmpegError):
            yield from stream.codec_context.decode(None)
        yield error
        return
    alone = len(container.streams) == 1 and container.format.name.startswith("matroska")
    if partial or (
        alone and container.duration and container.duration / 1e6 - end > _CUT_SECONDS + 1 / (stream.average_rate or 1)
    ):
        yield EOFError("the file is cut off")
