"""Whether a video file goes on to its end, which decoders do not ask: they show what there is."""

from pathlib import Path
from typing import IO

from knet.inference.sources.gif import gif_lacks_its_end
from knet.inference.sources.parts import (
    av1_size,
    ends_in_a_part,
    matroska_number,
    matroska_size,
    mxf_size,
    ogg_lacks_its_end,
)
from knet.inference.sources.transport import cut_in_a_picture, raw_lacks_its_end

_EBML, _SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")  # Matroska: its first element, and its content
_PACKETS = ((0, 188), (4, 192))  # MPEG-TS: where the first packet's sync byte is, and how long each packet is
_BOXES = (b"ftyp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide")  # the parts of MP4 and MOV
_JPEG = b"\xff\xd8\xff"  # of a row of JPEGs
_PACK = bytes.fromhex("000001ba")  # MPEG program stream
_RAW = (b"\0\0\1", b"\0\0\0\1")  # H.264, H.265 and the videos of MPEG without a container
_DV = bytes.fromhex("1f0700")  # frames of one size
_PARTS = {bytes.fromhex("060e2b34"): mxf_size, bytes.fromhex("1200"): av1_size}
_NEAR = 2**22  # bytes at the end of a file, or of its head, that are looked through


def lacks_its_end(path: Path) -> bool:
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
            rest, size = matroska_number(start[4:])
            place = 4 + size + (rest or 0)
            file.seek(place)
            head = file.read(12)
            rest, size = matroska_number(head[4:])
            if head[:4] != _SEGMENT:
                return False
            place += 4 + size
            return ends_in_a_part(file, place, length, matroska_size) if rest is None else place + rest > length
        for begin, size_of in _PARTS.items():
            if start.startswith(begin):
                return ends_in_a_part(file, 0, length, size_of)
        if start[:4] == b"OggS":
            return ogg_lacks_its_end(_end(file, length))
        if start[:3] == _DV:
            return length % (144_000 if start[3] & 0x80 else 120_000) > 0
        if start[:3] == b"GIF":
            return gif_lacks_its_end(file)
        if start[:9] == b"YUV4MPEG2":
            return _raw_lacks_its_end(file, length)
        if start[:3] == _JPEG:
            end = _end(file, length)
            return end.rfind(b"\xff\xd9") < max(end.rfind(_JPEG), 0)
        if start[:4] == _PACK:
            return _program_lacks_its_end(_end(file, length))
        if start.startswith(_RAW):
            return raw_lacks_its_end(path)
        for first, size in _PACKETS:
            if [_byte(file, place) for place in (first, first + size)] == [b"G", b"G"]:
                return length % size > 0 or cut_in_a_picture(path, first, size)
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


def _byte(file: IO[bytes], place: int) -> bytes:
    file.seek(place)
    return file.read(1)


def _end(file: IO[bytes], length: int) -> bytes:
    file.seek(max(length - _NEAR, 0))
    return file.read()


def _raw_lacks_its_end(file: IO[bytes], length: int) -> bool:
    """Whether an open YUV4MPEG2 has a part of a frame at its end, going by the distance of its first two frames."""
    file.seek(0)
    head = file.readline(_NEAR)
    frames = file.read(2**26)
    step = frames.find(b"FRAME\n", 1)
    return step > 0 and frames.startswith(b"FRAME\n") and (length - len(head)) % step > 0


def _program_lacks_its_end(end: bytes) -> bool:
    """Whether the last packet of a program stream is longer than what is there of it."""
    place = end.find(_PACK)
    while 0 <= place <= len(end) - 6:
        kind = end[place : place + 4]
        if kind == _PACK:  # of MPEG-2 with stuffing, or of MPEG-1
            second = end[place + 4] & 0xC0 == 0x40
            place += 14 + (end[place + 13 : place + 14] or b"\0")[0] % 8 if second else 12
        elif kind[:3] == b"\0\0\1" and kind[3] > 0xB9:
            place += 6 + int.from_bytes(end[place + 4 : place + 6], "big")
        else:
            return False  # its mark of the end, or no stream as it should be
    return place > len(end)
