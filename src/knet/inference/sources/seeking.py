"""Where to begin to decode a video whose first part is not wanted: at the last key frame before, if that is certain.

Packets are read from the beginning all the same, but not decoded: so each frame keeps its number. Where times or key
frames are not what they should be, or a jump lands elsewhere, everything is decoded.
"""

from dataclasses import dataclass
from typing import Any

import av

from knet.inference.sources.opening import packets, picture_stream

_FARTHEST = 2**62  # of the stamps that FFmpeg can be asked for


@dataclass(frozen=True, slots=True)
class Entry:
    """A key frame: its stamp, and how many frames are shown before it."""

    stamp: int
    index: int


def begin_at(container: Any, seconds: float) -> Entry | None:
    """Lets an open video be decoded from a key frame up to a time; None where it has to begin at the beginning.

    Packets with a smaller stamp that follow the key frame are shown before it, and need what lies further back. After
    None the container has been read, and must be opened again.
    """
    stream = picture_stream(container)
    if stream.start_time is None:
        return None
    last = int(min(stream.start_time + seconds / stream.time_base, _FARTHEST))
    try:
        stamps, places = _scan(container, last)
        for place in places:  # some containers look for the place by other stamps, and land before or behind it
            landed = _landed(container, place)
            if landed is not None and landed <= last and landed in stamps:
                container.seek(place, stream=stream)
                index = sum(stamp < landed for stamp in stamps)
                return Entry(landed, index) if index else None
    except (av.error.FFmpegError, OSError, ValueError):
        pass
    return None


def _scan(container: Any, last: int) -> tuple[set[int], tuple[int, ...]]:
    """The stamps of the frames up to a last one, and places from which a jump may lead to a key frame among them.

    There are none where stamps are missing, come twice or begin again.
    """
    stream, stamps, places = picture_stream(container), list[int](), tuple[int, ...]()
    for packet in packets(container, stream):
        if not packet.size:
            break
        if packet.pts is None or packet.is_corrupt:
            return set(), ()
        if packet.is_keyframe:
            if packet.pts > last:
                break
            if stamps and packet.pts < max(stamps):
                return set(), ()
            places = (last, packet.pts, *([] if packet.dts is None else [packet.dts]))
        if not packet.is_discard:
            stamps.append(packet.pts)
    known = set(stamps)
    return (known, places) if len(known) == len(stamps) else (set(), ())


def _landed(container: Any, place: int) -> int | None:
    """The stamp of the key frame with which the video goes on after a jump, if the decoder gives it whole."""
    stream, stamp = picture_stream(container), None
    container.seek(place, stream=stream)
    for packet in packets(container, stream):
        if stamp is None:
            if packet.pts is None or not packet.is_keyframe:
                return None
            stamp = packet.pts
        if packet.pts is not None and packet.pts < stamp:
            continue
        for frame in packet.decode():
            whole = frame.key_frame and frame.pict_type == av.video.frame.PictureType.I and not frame.is_corrupt
            return stamp if whole and frame.pts == stamp else None
    return None
