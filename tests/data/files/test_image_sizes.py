"""The size of an image, which is read from the file's head alone, is that of its upright pixels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from knet.data.files.io import read_image, read_image_size


def test_a_png_with_exif_data_behind_its_pixels_is_upright_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    path = tmp_path / "photo.png"
    Image.new("RGB", (60, 40)).save(path, exif=exif)
    data = path.read_bytes()
    start, end = data.index(b"eXIf") - 4, data.index(b"IDAT") - 4
    path.write_bytes(data[:start] + data[end:-12] + data[start:end] + data[-12:])
    assert read_image_size(path) == read_image(path).shape[:2] == (60, 40)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp", "avif"])
def test_images_that_a_camera_turned_are_turned_once(tmp_path: Path, ending: str, orientation: int) -> None:
    # Pillow reads AVIF from 11.3 on, and only where it was built with the library; older ones are supported.
    if ending == "avif" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"photo.{ending}"
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:8, :8] = 255  # the corner that was above on the left
    Image.fromarray(pixels).save(path, exif=exif)
    image = read_image(path)
    assert read_image_size(path) == image.shape[:2] == ((60, 40) if orientation >= 5 else (40, 60))
    row, column = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}[
        orientation
    ]
    assert image[row, column].min() > 200
