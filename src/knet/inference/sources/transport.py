"""Whether a stream without sizes that ends ends between two pictures: a transport stream, or a raw one."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import av

from knet.inference.sources.opening import open_file, packets, picture_stream

_LONGEST = 1000  # packets since a picture that needs no other, which are decoded once more
_LOOKED_AT = 2000  # packets at the end among which the last one of the pictures is looked for
_MARK, _ADAPTATION = 0x47, 0x20


def cut_in_a_picture(path: Path, first: int, size: int) -> bool:
    """Whether the last picture lacks its end. Players show what there is of it, and do not say so.

    A picture's last packet is filled up, unless by chance it fits; where it is not, a decoder that forgives nothing is
    asked.

    Args:
        first: where in each packet of `size` bytes its mark stands.
    """
    with suppress(av.error.FFmpegError, OSError), open_file(path) as container:
        stream = picture_stream(container)
        if _filled_up(path, first, size, stream.id):
            return False
        stream.thread_type, stream.codec_context.options = "NONE", {"err_detect": "explode"}
        if container.duration:
            container.seek((container.start_time or 0) + container.duration)  # to the last picture that needs no other
        failed = False
        for packet in packets(container, stream):
            try:
                packet.decode()
                failed = failed and not packet.size
            except av.error.InvalidDataError:
                failed = True
        return failed
    return False


def raw_lacks_its_end(path: Path) -> bool:
    """Whether the last picture of a raw stream lacks its end, by a decoder that forgives nothing.

    Where it finds fault with other pictures as well, nothing can be told.
    """
    with suppress(av.error.FFmpegError, OSError), open_file(path) as container:
        stream, sent = picture_stream(container), list[Any]()
        for packet in packets(container, stream):
            if packet.size and packet.is_keyframe:
                sent = []
            sent.append(packet)
            if len(sent) > _LONGEST:
                return False
        coder = av.CodecContext.create(stream.codec_context.name, "r")
        coder.extradata, coder.options = stream.codec_context.extradata, {"err_detect": "explode"}
        coder.thread_type, failed = "NONE", list[int]()
        for number, packet in enumerate(sent):
            try:
                coder.decode(packet if packet.size else None)
            except av.error.InvalidDataError:
                failed.append(number)
        last = max((number for number, packet in enumerate(sent) if packet.size), default=-1)
        return bool(failed) and min(failed) >= last
    return False


def _filled_up(path: Path, first: int, size: int, stream: int) -> bool:
    """Whether the last packet of a stream, given by its number, is; True where none is found."""
    with path.open("rb") as file:
        count = path.stat().st_size // size
        for number in range(count - 1, max(count - _LOOKED_AT, 0) - 1, -1):
            file.seek(number * size + first)
            mark, high, low, flags = file.read(4)
            if mark == _MARK and ((high & 0x1F) << 8 | low) == stream:
                return bool(flags & _ADAPTATION)
    return True
