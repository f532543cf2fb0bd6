"""Whether a GIF goes on to its end, which decoders do not ask: they show what there is."""

import os
from typing import IO

_EXTENSION, _IMAGE, _END = b"!", b",", b";"


def gif_lacks_its_end(file: IO[bytes]) -> bool:
    """Whether an open GIF stops before the mark of its end; what comes after that mark does not count."""
    file.seek(0)
    head = file.read(13)  # signature, size of the screen, flags
    _skip_colors(file, head[10:11])
    while kind := file.read(1):
        if kind == _END:
            return False
        if kind == _EXTENSION:
            file.seek(1, os.SEEK_CUR)  # its label
        elif kind == _IMAGE:
            _skip_colors(file, file.read(9)[8:])
            file.seek(1, os.SEEK_CUR)  # the width of the first codes
        else:
            return False  # no GIF as it should be, of which nothing is known
        while size := file.read(1)[:1].strip(b"\0"):
            file.seek(size[0], os.SEEK_CUR)
    return True


def _skip_colors(file: IO[bytes], flags: bytes) -> None:
    """Goes past a table of colours, if the flags say that there is one."""
    if flags and flags[0] & 0x80:
        file.seek(3 << 1 + (flags[0] & 7), os.SEEK_CUR)
