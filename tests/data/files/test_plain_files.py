"""What lies in a data folder and is no file, or is much longer than it looks, is one sentence: no wait, no memory."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import knet.parse
from knet.cli.main import main
from knet.config import load_config
from knet.data.files.io import list_images, read_gray, read_ids, read_image, read_image_size, read_json, read_labels
from knet.errors import ConfigError, DataError
from knet.files import open_plain
from knet.inference.sources.images import no_such_path
from knet.parse import read_bounded

READERS = [read_image, read_image_size, read_ids, read_labels, read_gray]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "socket"])
def test_pipes_devices_and_folders_under_the_name_of_a_picture(tmp_path: Path, read: object, kind: str) -> None:
    path = tmp_path / "a.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
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
    words = {"folder": "(Is a directory)", "socket": "(No such device or address)"}
    assert words.get(kind, "a device or a pipe, where a file is meant") in errors[0]


@pytest.mark.parametrize("read", [*READERS, read_json])
@pytest.mark.parametrize(
    "begin", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"BM", b"II*\0", b"[1", b"RIFF\xff\xff\xff\x7fWEBPVP8L"]
)
def test_a_file_of_a_terabyte_of_holes_takes_no_memory(tmp_path: Path, read: object, begin: bytes) -> None:
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.write(begin)
        file.truncate(2**40)
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


def test_a_plain_file_behind_a_link_is_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").symlink_to("a")
    with open_plain(tmp_path / "b") as file:
        assert file.read() == b"x"
    for wrong in (tmp_path, tmp_path / "nothing", Path("/dev/null")):
        with pytest.raises(OSError):
            open_plain(wrong)


def test_a_text_may_come_through_a_pipe_to_which_somebody_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knet.parse, "_TRIES", 3)
    path = tmp_path / "config.yaml"
    os.mkfifo(path)
    with pytest.raises(ConfigError, match=r"config\.yaml' is not valid YAML: it is a pipe to which nobody writes"):
        load_config(path)
    text = b"model: x\n" * 20_000
    writer = threading.Thread(target=path.write_bytes, args=(text,))
    writer.start()
    assert read_bounded(path, 2**20) == text
    writer.join()


def test_pipes_are_not_among_the_files_of_a_data_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knet.parse, "_TRIES", 3)
    images, labels = tmp_path / "images", tmp_path / "labels"
    for folder in (images, labels):
        folder.mkdir()
        for name in ("b.png", "z.json", "data.yaml", "labelmap.txt", "classes.txt"):
            os.mkfifo(folder / name)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(images / "a.png")
    Image.fromarray(np.ones((8, 8), np.uint8)).save(labels / "a.png")
    assert list_images(images) == ["a.png"]
    assert main(["data", "import", str(images), "--output", str(tmp_path / "o")]) == 2
    assert "is no export of a form that is known" in capsys.readouterr().err
    table = tmp_path / "classes.json"
    table.write_text('{"categories": [{"id": 1, "name": "road", "thing": false}]}')
    sides = ["--truth", str(labels), "--predictions", str(labels), "--classes", str(table)]
    assert main(["eval", "--metric", "miou", *sides]) == 2
    assert "b.png" in capsys.readouterr().err
