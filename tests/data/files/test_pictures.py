"""Opening pictures that others made."""

import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from knet.data.files.io import read_image
from knet.data.files.pictures import decode_picture, open_picture
from knet.errors import DataError


class Watched(io.BytesIO):
    """Notes the most that was asked for at once."""

    most = 0

    def read(self, count: int | None = -1) -> bytes:
        self.most = max(self.most, count or 0)
        return super().read(count)


@pytest.mark.parametrize("form", ["JPEG2000", "PNG", "BMP", "TIFF", "WEBP", "GIF", "ICO", "TGA", "PPM"])
def test_a_whole_picture_opens(form: str) -> None:
    buffer = Watched()
    Image.new("RGB", (16, 16), (200, 10, 30)).save(buffer, form)
    assert open_picture(buffer).size == (16, 16)
    assert decode_picture(buffer, "It").shape == (16, 16, 3)


def test_a_head_that_asks_for_gigabytes_reserves_none() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (14, 9)).save(buffer, "JPEG2000")
    content = bytearray(buffer.getvalue())
    place = content.index(b"jp2h") - 4
    content[place : place + 4] = struct.pack(">I", 0xFF000000)
    damaged = Watched(bytes(content))
    with pytest.raises(DataError, match="damaged or cut off"):
        decode_picture(damaged, "It")
    assert 0 < damaged.most <= len(content)


def test_an_icon_that_holds_an_enormous_picture_is_not_decoded(tmp_path: Path) -> None:
    inner = b"\x89PNG\r\n\x1a\n"
    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    for kind, content in ((b"IHDR", head), (b"IDAT", b""), (b"IEND", b"")):
        inner += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    path = tmp_path / "a.png"
    path.write_bytes(struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(inner), 22) + inner)
    with pytest.raises(DataError, match="decompression bomb"):
        read_image(path)
    assert Image.MAX_IMAGE_PIXELS is not None


def test_too_little_memory_names_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise MemoryError

    Image.new("L", (40, 30)).save(tmp_path / "a.jpg")
    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", refuse)
    with pytest.raises(DataError, match=r"a\.jpg cannot be read: it does not fit into memory with its 40 x 30 pixels"):
        read_image(tmp_path / "a.jpg")
