"""Whether a transport stream that ends between two packets ends between two pictures as well."""

from contextlib import suppress
from pathlib import Path

import av

_LOOKED_AT = 2000  # packets at the end among which the last one of the pictures is looked for
_MARK, _ADAPTATION = 0x47, 0x20


def cut_in_a_picture(path: Path, first: int, size: int) -> bool:
    """Whether the last picture lacks its end. Players show what there is of it, and do not say so.

    A picture's last packet is filled up, unless by chance it fits; where it is not, a decoder that forgives nothing is
    asked.

    Args:
        first: where in each packet of `size` bytes its mark stands.
    """
    with suppress(av.error.FFmpegError, OSError), av.open(str(path.resolve()), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        if _filled_up(path, first, size, stream.id):
            return False
        stream.thread_type, stream.codec_context.options = "NONE", {"err_detect": "explode"}
        if container.duration:
            container.seek((container.start_time or 0) + container.duration)  # to the last picture that needs no other
        failed = False
        for packet in container.demux(stream):
            try:
                packet.decode()
                failed = failed and not packet.size
            except av.error.InvalidDataError:
                failed = True
        return failed
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
