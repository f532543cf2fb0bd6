"""What a file is that is not what it should be, by its first bytes: an archive, a web page, a pointer to the file."""

from typing import NamedTuple

UNPACK = "unpack it"
_CONVERT = "convert it to PNG, TIFF or JPEG"
_TIFF = "write it as grey or RGB with 8 or 16 bits, or as grey floats from 0 to 1"
_STARTS = {
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch the file itself with `git lfs pull`"),
    b"<!doctype html": ("a web page", "download the file that it leads to"),
    b"<html": ("a web page", "download the file that it leads to"),
    b"<svg": ("a drawing (SVG)", _CONVERT),
    b"pk\x03\x04": ("a zip file", UNPACK),
    b"pk\x05\x06": ("an empty zip file", "pack it again"),
    b"\x1f\x8b": ("a gzip file", UNPACK),
    b"bzh": ("a bzip2 file", UNPACK),
    b"7z\xbc\xaf": ("a 7z archive", UNPACK),
    b"\xfd7zxz": ("an xz file", UNPACK),
    b"rar!": ("a rar archive", UNPACK),
    b"%pdf": ("a PDF", _CONVERT),
    b"ffconcat": ("a list of other videos", "give these"),
    b"#extm3u": ("a list of other videos", "give these; a list must end with .m3u8, and lie beside what it names"),
    b"v=0": ("the description of a stream (SDP)", "give the address of the stream"),
    b"8bps": ("a file of Photoshop", _CONVERT),
    b"v/1\x01": ("an OpenEXR file", _CONVERT),
    b"ii*\x00": ("a TIFF with channels or a depth that are not read here", _TIFF),
    b"mm\x00*": ("a TIFF with channels or a depth that are not read here", _TIFF),
    b"ii+\x00": ("a BigTIFF of a kind that is not read here", _TIFF),
}
_BRANDS = {b"heic": "a HEIC photo", b"heix": "a HEIC photo", b"mif1": "a HEIC photo", b"jxl ": "a JPEG XL picture"}

LOOKED_AT = 64
"""Bytes from the beginning of a file that tell what it is."""


class Kind(NamedTuple):
    """What a file is ("a zip file"), and what to do ("unpack it")."""

    name: str
    advice: str


def kind_of(start: bytes) -> Kind | None:
    """What a file is that begins so, None if that is not known."""
    text = start[:LOOKED_AT].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start[4:8] == b"ftyp" and (brand := _BRANDS.get(start[8:12])):
        return Kind(brand, _CONVERT)
    return next((Kind(*kind) for begin, kind in _STARTS.items() if text.startswith(begin)), None)
