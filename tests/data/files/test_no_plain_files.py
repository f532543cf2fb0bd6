"""Pipes, sockets and devices where files are meant: a sentence, and nobody waits for them."""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import knet.parse
from knet.cli.main import main
from knet.config import load_config
from knet.data.files.io import list_images, read_ids, read_image, read_image_size, read_json, read_labels
from knet.errors import ConfigError, DataError
from knet.files import open_plain
from knet.parse import read_bounded


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knet.parse, "_TRIES", 3)


@pytest.mark.parametrize("read", [read_image, read_image_size, read_ids, read_labels, read_json])
@pytest.mark.parametrize("kind", ["pipe", "link to a device", "socket"])
def test_what_is_no_plain_file_is_refused_at_once(kind: str, read: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with socket.socket(socket.AF_UNIX) as server:
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            server.bind(str(path))
        else:
            path.symlink_to("/dev/zero")
        with pytest.raises(DataError, match=r"a\.png cannot be read"):
            read(path)


def test_a_plain_file_behind_a_link_is_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").symlink_to("a")
    with open_plain(tmp_path / "b") as file:
        assert file.read() == b"x"
    for wrong in (tmp_path, tmp_path / "nothing", Path("/dev/null")):
        with pytest.raises(OSError):
            open_plain(wrong)


def test_an_enormous_file_that_begins_like_a_png(tmp_path: Path) -> None:
    """Four terabytes that are on no disk, of which all were read at once."""
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(path)
    os.truncate(path, 2**42)
    assert read_image(path).shape == (3, 4, 3)


def test_a_text_may_come_through_a_pipe_to_which_somebody_writes(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    os.mkfifo(path)
    with pytest.raises(ConfigError, match=r"config\.yaml' is not valid YAML: it is a pipe to which nobody writes"):
        load_config(path)
    text = b"model: x\n" * 20_000
    writer = threading.Thread(target=path.write_bytes, args=(text,))
    writer.start()
    assert read_bounded(path, 2**20) == text
    writer.join()


def test_they_are_not_among_the_files_of_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
