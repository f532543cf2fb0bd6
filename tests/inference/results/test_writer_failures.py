from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fake_results import CAR, TABLE, clip, names_in, photo, street

from knet.errors import OutputError
from knet.inference.results import film
from knet.inference.results.files import LiveFile
from knet.inference.results.formats import FORMATS
from knet.inference.results.segmentation import Segmentation
from knet.inference.results.writers import ResultWriter

STILL = tuple(f for f in FORMATS if f != "video")
NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


def refuse(*_: Any, **__: Any) -> Any:
    raise NO_SPACE


def test_an_aborted_run_leaves_whole_files_only(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ResultWriter(tmp_path, FORMATS, TABLE) as writer:
        for n in range(3):
            writer.write(street(name=f"s{n}"), photo())
        raise KeyboardInterrupt
    assert not any(name.startswith(".") or name.endswith(".mp4") for name in names_in(tmp_path))
    assert len(json.loads((tmp_path / "panoptic_unfinished.json").read_text())["images"]) == 3
    assert len(names_in(tmp_path)) == 3 * 6 + 2  # panoptic_unfinished.json and semantic_classes.json


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "full"])
def test_what_lies_where_a_file_is_to_grow_is_not_followed(tmp_path: Path, kind: str) -> None:
    """Also not where the file has its own name from the beginning."""
    secret, place = tmp_path / "secret", tmp_path / "tracks.jsonl"
    secret.write_text("mine")
    leads = {"link": secret, "dangling": tmp_path / "nowhere", "full": Path("/dev/full")}
    os.mkfifo(place) if kind == "pipe" else place.symlink_to(leads[kind])
    with pytest.raises(OutputError, match=r"Cannot write '.*tracks.jsonl': it is a link"):
        LiveFile(place)
    assert secret.read_text() == "mine" and not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("below", ["file/out", "file"])
def test_a_folder_that_cannot_be_made(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("in the way")
    for attempt in (lambda p: ResultWriter(p, ["json"], TABLE), lambda p: street().save(p, ["json"])):
        with pytest.raises(OutputError, match=r"Cannot write '.*file.*choose another folder"):
            attempt(tmp_path / below)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that takes no files")
def test_a_folder_that_takes_no_files() -> None:
    with pytest.raises(OutputError, match=r"/proc"):
        ResultWriter("/proc/self", ["json"], TABLE)


@pytest.mark.parametrize("kind", STILL)
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def half(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise NO_SPACE

    street().save(tmp_path, [kind], photo())
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OutputError, match="No space left on device"):
        street(30, 40).save(tmp_path, [kind], photo(30, 40))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


class FullFile:
    """A file on a disk that has room for `room` bytes only, and takes at most 100 at a time."""

    def __init__(self, file: Any, room: int):
        self.file, self.room = file, room

    def write(self, data: memoryview) -> int:
        if self.file.tell() >= self.room:
            raise NO_SPACE
        return self.file.write(data[: min(100, self.room - self.file.tell())])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def test_a_disk_that_fills_up_and_is_freed_again(tmp_path: Path) -> None:
    with ResultWriter(tmp_path, ["panoptic"], TABLE) as writer:
        writer.write(street(name="a"), photo())
        panoptic: Any = writer._open["panoptic"]
        real = panoptic._growing.file
        panoptic._growing.file = FullFile(real, real.tell() + 150)
        with pytest.raises(OutputError, match=r"panoptic.json.*No space left"):
            writer.write(street(name="b"), photo())
        panoptic._growing.file = FullFile(real, 1 << 30)
        writer.write(street(name="c"), photo())
    document = json.loads((tmp_path / "panoptic.json").read_text())
    assert [i["id"] for i in document["images"]] == [a["image_id"] for a in document["annotations"]] == ["a", "c"]


def test_a_disk_that_stays_full_leaves_no_panoptic_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left"), ResultWriter(tmp_path, ["panoptic"], TABLE) as writer:
        writer.write(street(name="a"), photo())
        panoptic: Any = writer._open["panoptic"]
        panoptic._growing.file = FullFile(panoptic._growing.file, 0)
    assert names_in(tmp_path) == ["a_panoptic.png"]


@pytest.mark.parametrize("step", ["mux", "open", "close"])
def test_a_video_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    with (
        pytest.raises(OutputError, match=r"drive_overlay.mp4.*No space left"),
        ResultWriter(tmp_path, ["video"], TABLE) as writer,
    ):
        if step == "open":
            monkeypatch.setattr(film.av, "open", refuse)
        writer.write(street(), photo(), video=clip())
        made: Any = writer._open["film"]
        if step == "mux":
            made._stream = type("Stream", (), {"encode": refuse})()
            for _ in range(2):  # a frame is missing from now on, so no later one can mend it
                with pytest.raises(OutputError):
                    writer.write(street(), photo(), video=clip())
            writer.close()
        if step == "close":
            monkeypatch.setattr(os, "replace", refuse)
            monkeypatch.setattr(Path, "replace", refuse)
    assert not names_in(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_really_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg itself reports the full device; the result must be our sentence."""
    real = av.open
    monkeypatch.setattr(film.av, "open", lambda path, *args, **options: real("/dev/full", *args, **options))
    with pytest.raises(OutputError, match="No space left"), ResultWriter(tmp_path, ["video"], TABLE) as writer:
        writer.write(street(), photo(), video=clip())
    assert not names_in(tmp_path)


def test_an_image_too_long_for_jpeg(tmp_path: Path) -> None:
    id_map = np.zeros((1, 70_000), np.int32)
    with pytest.raises(OutputError, match=r"long_overlay.jpg"):
        Segmentation(id_map, [], (CAR,), "long").save(tmp_path, ["overlay"], photo(1, 70_000))
    assert not names_in(tmp_path)
