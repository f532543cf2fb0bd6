"""Whether a file that is a row of parts, each with its size in front, ends inside one of them."""

from collections.abc import Callable
from typing import IO

_HEAD = 32  # bytes that tell the size of a part
_INSIDE = (bytes.fromhex("18538067"), bytes.fromhex("1f43b675"))  # of Matroska: the content, and a cluster in it
_MXF = bytes.fromhex("060e2b34")
_LAST_PAGE = 4


def ends_in_a_part(file: IO[bytes], place: int, length: int, size_of: Callable[[bytes], int | None]) -> bool:
    """Whether the last part from a place on is longer than what is there of it.

    Args:
        size_of: the size of the part that begins with these bytes, or of its head alone if parts follow in it; None if
            it is not known, where nothing can be told.
    """
    while place < length:
        file.seek(place)
        size = size_of(file.read(_HEAD))
        if size is None:
            return False
        place += size
    return place > length


def matroska_number(head: bytes) -> tuple[int | None, int]:
    """A size as Matroska has it: its first byte tells its length by leading zeros. None for unknown; and the length."""
    if not head or not head[0]:
        return None, 1
    length = 9 - head[0].bit_length()
    value = int.from_bytes(bytes([head[0] & (0xFF >> length)]) + head[1:length], "big")
    return (None if value == (1 << 7 * length) - 1 else value), length


def matroska_size(head: bytes) -> int | None:
    """`size_of` for Matroska while it is recorded, whose outer parts have no size yet."""
    name = 9 - head[0].bit_length()
    size, length = matroska_number(head[name:])
    if len(head) < name + length:
        return name + length
    if size is None:
        return name + length if head[:name] in _INSIDE else None
    return name + length + size


def mxf_size(head: bytes) -> int | None:
    """`size_of` for MXF: a key of 16 bytes, and a length of one byte, or of as many as that tells."""
    if not _MXF.startswith(head[:4]):
        return None
    first = int.from_bytes(head[16:17], "big")
    more = first & 0x7F if first & 0x80 else 0
    return 17 + more + (int.from_bytes(head[17 : 17 + more], "big") if more else first)


def av1_size(head: bytes) -> int | None:
    """`size_of` for the units of a raw AV1 stream."""
    if not head[0] & 2:  # without a size
        return None
    size, place = 0, 2 if head[0] & 4 else 1
    for shift in range(0, 56, 7):
        byte = int.from_bytes(head[place : place + 1], "big")
        size, place = size | (byte & 0x7F) << shift, place + 1
        if byte < 0x80:
            break
    return place + size


def ogg_lacks_its_end(end: bytes) -> bool:
    """Whether the last page of an Ogg is not whole, or not said to be the last."""
    place = end.rfind(b"OggS")
    page = end[place:] if place >= 0 else b""
    count = int.from_bytes(page[26:27], "big")
    lacks = len(page) < 27 + count + sum(page[27 : 27 + count])
    return place >= 0 and (lacks or not page[5] & _LAST_PAGE)
