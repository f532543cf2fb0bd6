"""Reads one kind of PNG faster than Pillow: 8-bit RGB, not interlaced, as id maps and most street images are.

isal (Intel's library, in `knet[fast]`; else zlib) decompresses, and compiled code undoes the row filters, while other
threads go on. Without Numba, and for every other file, the functions return None and Pillow reads the file. W3C,
"Portable Network Graphics (PNG) Specification", sections 5, 9 and 11.

For the owner of this code. It assumes the chunks, checksums and filters of the specification, that isal's
`decompressobj` works as zlib's, and that Pillow gives the same pixels. It pays: `benchmarks/data_pipeline.py` measured
16 ms for a 2048x1024 image and 5 ms for its ids, Pillow 36 and 19 (benchmarks/README.md, "Data pipeline"). When Pillow,
isal or Numba changes, tests/data/files/test_png.py fails first: `test_files_of_pillow`, `test_every_filter`.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np
from PIL import Image

from knet.compiled import optional
from knet.data.files.pictures import LARGEST
from knet.files import open_plain

inflating: Any = zlib
with suppress(ImportError):
    from isal import isal_zlib

    inflating = isal_zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PLAIN = b"\x08\x02\x00\x00\x00"  # 8 bits, RGB, the only compression and filter method, not interlaced
_HEAD = 33
_NOT_PLAIN = frozenset({b"eXIf", b"acTL", b"CgBI"})  # may be rotated, is animated, is Apple's own variant


def read_png_rgb(path: Path) -> np.ndarray | None:
    """Pixels of such a file, (H,W,3) uint8; None for another file, or without Numba; `ValueError`: it is damaged."""
    found = _read_lines(path)
    if found is None:
        return None
    rows, lines = found
    pixels = np.empty((lines.shape[0], lines.shape[1] - 1), np.uint8)
    return pixels.reshape(len(pixels), -1, 3) if rows.restore_rgb(lines, pixels) else None


def read_png_ids(path: Path) -> np.ndarray | None:
    """R + 256 G + 65536 B of such a file, (H,W) int32; None and `ValueError` as above."""
    found = _read_lines(path)
    if found is None:
        return None
    rows, lines = found
    ids = np.empty((lines.shape[0], (lines.shape[1] - 1) // 3), np.int32)
    return ids if rows.restore_ids(lines, ids) else None


def exif_after_pixels(file: IO[bytes]) -> bool:
    """Whether an open PNG has EXIF data behind its pixels, as some programs write it; reads heads of chunks alone."""
    place, behind = len(_SIGNATURE), False
    while True:
        file.seek(place)
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return False
        if behind and head[4:] == b"eXIf":
            return True
        behind = behind or head[4:] == b"IDAT"
        place += int.from_bytes(head[:4], "big") + 12


def _read_lines(path: Path) -> tuple[ModuleType, np.ndarray] | None:
    """The compiled functions, and (H,1+3W) uint8: each row's filter, then its filtered bytes. Raises `ValueError`."""
    try:
        with open_plain(path) as file:
            data = file.read(_HEAD)
            if data[:8] != _SIGNATURE or data[24:29] != _PLAIN or os.fstat(file.fileno()).st_size > LARGEST:
                return None
            data += file.read()
    except OSError:
        return None
    chunks = list(_chunks(data))
    width, height = struct.unpack(">II", data[16:24])
    limit = Image.MAX_IMAGE_PIXELS
    rows = optional("knet.data.files.png_rows")
    if (
        rows is None
        or any(kind in _NOT_PLAIN for kind, _ in chunks)
        or not width * height
        or (limit is not None and width * height > limit)  # Pillow refuses it
    ):
        return None
    size = height * (1 + 3 * width)
    stream = inflating.decompressobj()
    try:
        lines = stream.decompress(b"".join(content for kind, content in chunks if kind == b"IDAT"), size + 1)
    except inflating.error:
        return None
    if stream.eof and len(lines) < size:
        raise ValueError(f"its head promises {height} rows of {width} pixels, it holds {len(lines)} of {size} bytes")
    # Other faults, such as a stream without its checksum, are left to Pillow, which reports or ignores them.
    whole = stream.eof and len(lines) == size
    return (rows, np.frombuffer(lines, np.uint8).reshape(height, -1)) if whole else None


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and content of each chunk, up to the end or to where the file is cut off."""
    view, place = memoryview(data), len(_SIGNATURE)
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind, content = data[place + 4 : place + 8], view[place + 8 : place + 8 + length]
        end = place + 8 + length
        if end + 4 > len(data):
            return
        if kind in (b"IHDR", b"IDAT"):
            (checksum,) = struct.unpack_from(">I", data, end)
            if zlib.crc32(view[place + 4 : end]) != checksum:
                raise ValueError(f"the checksum of its {kind.decode()} chunk at byte {place} does not fit")
        yield kind, content
        if kind == b"IEND":
            return
        place = end + 4
