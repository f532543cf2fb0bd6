"""What lies in a data folder and is no file, or is much longer than it looks, is one sentence: no wait, no memory."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from knet.data.files.io import list_images, read_gray, read_ids, read_image, read_image_size, read_json, read_labels
from knet.errors import DataError
from knet.inference.sources.images import no_such_path

READERS = [read_image, read_image_size, read_ids, read_labels, read_gray]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_pipes_devices_and_folders_under_the_name_of_a_picture(tmp_path: Path, read: object, kind: str) -> None:
    path = tmp_path / "a.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    errors = []

    def ask() -> None:
        try:
            read(path)
        except DataError as error:
            errors.append(str(error))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(20)
    assert not asking.is_alive()
    assert "a.png cannot be read" in errors[0]
    assert ("(Is a directory)" if kind == "folder" else "a device or a pipe, where a file is meant") in errors[0]


@pytest.mark.parametrize("read", [*READERS, read_json])
@pytest.mark.parametrize(
    "begin", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"BM", b"II*\0", b"[1", b"RIFF\xff\xff\xff\x7fWEBPVP8L"]
)
def test_a_file_of_a_terabyte_of_holes_takes_no_memory(tmp_path: Path, read: object, begin: bytes) -> None:
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.write(begin)
        try:
            file.truncate(2**40)
        except OSError:
            pytest.skip("this file system has no such files")
    with pytest.raises(DataError, match=r"a\.png cannot be read") as raised:
        read(path)
    assert " object at 0x" not in str(raised.value)


def test_a_picture_with_holes_behind_it_is_that_picture(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    os.truncate(tmp_path / "a.png", 2**40)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels)
    assert read_ids(tmp_path / "a.png").shape == (4, 5)


def test_what_may_not_be_looked_at_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    monkeypatch.setattr(Path, "lstat", refuse)
    assert "may not be looked at (Permission denied)" in no_such_path(tmp_path / "a.png")
    with monkeypatch.context() as patch:
        patch.setattr("os.open", refuse)
        patch.setattr("os.path.exists", lambda _: False)  # as in a folder that one may not enter
        with pytest.raises(DataError, match=r"a\.png cannot be read \(Permission denied\)"):
            read_image_size(tmp_path / "a.png")
    with monkeypatch.context() as patch:
        patch.setattr("os.scandir", refuse)
        with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)"):
            list_images(tmp_path)
