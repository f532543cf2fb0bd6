"""Whether a file is an image or a video, by its first bytes; endings may be anything."""

import os
from contextlib import suppress
from pathlib import Path

import av

from knet.files import is_file
from knet.inference.sources.opening import open_content

_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"II*\0", b"MM\0*", b"BM", b"P5\n", b"P6\n", b"\0\0\0\x0cjP  ")
_VIDEOS = (
    bytes.fromhex("1a45dfa3"),  # Matroska, WebM
    bytes.fromhex("3026b2758e66cf11"),  # ASF
    bytes.fromhex("000001ba"),  # MPEG program stream
    bytes.fromhex("000001b3"),  # MPEG video
    b"FLV\x01",
    b"YUV4MPEG2",
    b"DKIF",
)
_BOXES = (b"ftyp", b"moov", b"moof", b"mdat", b"wide")
_STILL = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1")  # also of several pages, one of which is shown
_PACKETS = ((0, 188), (4, 192))  # of MPEG transport streams: where the first begins, and how long each is
_TEXTS = ("ansi", "bintext", "xbin", "idf")  # letters drawn as pictures
_MOTION = (".mjpg", ".mjpeg")  # a row of JPEGs begins like one


def shows_video(path: Path) -> bool | None:
    """Whether the content of a file is a video's (True) or an image's (False); None where its begin does not tell."""
    head = b""
    if not is_file(path):  # a pipe would wait
        return None
    with suppress(OSError, ValueError), path.open("rb") as file:
        head = file.read(400)
    if head.startswith(_IMAGES):
        return path.suffix.lower() in _MOTION
    if head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"WEBP"):
        return head[8:12] == b"AVI "
    if head[4:8] in _BOXES:
        return head[8:12] not in _STILL
    if head.startswith(_VIDEOS) or any(head[first::size][:2] == b"GG" for first, size in _PACKETS):
        return True
    return None


def opens_as_video(path: Path) -> bool:
    """Whether FFmpeg finds pictures in a file whose ending and begin tell nothing, as in a raw H.264 stream."""
    if not is_file(path):
        return False
    with suppress(OSError, ValueError), path.open("rb") as file, suppress(av.error.FFmpegError):
        if not os.fstat(file.fileno()).st_size:
            return False
        with open_content(file) as container:  # without its name, by which texts would be taken for pictures
            coders = [stream.codec_context for stream in container.streams.video]  # None for unknown ones
            return any(coder is None or coder.name not in _TEXTS for coder in coders)
    return False
