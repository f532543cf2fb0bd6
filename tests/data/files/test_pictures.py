"""Opening pictures that others made."""

import io
import struct

import pytest
from PIL import Image

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
