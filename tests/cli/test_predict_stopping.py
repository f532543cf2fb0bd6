"""knet predict that is stopped, on a pipe, choosing, and lines that can be read while it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from command_line import Run, runner
from PIL import Image

import knet
from knet.cli.stopping import Stopping
from knet.inference.segmenter import Segmenter


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return partial(runner(capsys), "predict")


def film(path: Path, frames: int = 8, **options: Any) -> Path:
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", **options) as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(frames):
            picture = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def files() -> list[str]:
    return sorted(str(path.relative_to("results")) for path in Path("results").rglob("*") if path.is_file())


def after(frames: int, act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets something happen in the middle of a frame."""
    whole, seen = Segmenter.segment_next, 0

    def step(self: Segmenter, *args: Any, **options: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == frames:
            act()
        return whole(self, *args, **options)

    monkeypatch.setattr(Segmenter, "segment_next", step)


@pytest.mark.parametrize(
    ("number", "name", "status"), [("SIGTERM", "SIGTERM", 143), ("SIGINT", "Ctrl-C", 130), ("SIGHUP", "SIGHUP", 129)]
)
def test_a_signal_finishes_the_frame_and_the_files(
    run: Run, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str, name: str, status: int
) -> None:
    video = film(tmp_path / "drive.mkv")
    formats = ("--formats", "video,tracks,mots,panoptic,step,vipseg-json")
    assert run(tiny_weights, video, "--track", *formats)[0] == 0
    whole = files()
    after(3, lambda: os.kill(os.getpid(), getattr(signal, number)), monkeypatch)
    found, out, err = run(tiny_weights, video, "--track", *formats, "--output", "results")
    assert found == status
    assert f"knet: stopped by {name} after 3 of 8 images" in err and "3 images" in out
    together = ["drive_overlay", "tracks", "mots/drive", "panoptic", "vipseg_json/pred"]
    for stem in together:
        assert [file for file in files() if file.startswith(f"{stem}_unfinished.")], stem
    assert not [file for file in files() if ".part" in file]
    assert len(Path("results/tracks_unfinished.jsonl").read_text().splitlines()) == 3
    assert len(json.loads(Path("results/panoptic_unfinished.json").read_text())["images"]) == 3
    with av.open("results/drive_overlay_unfinished.mp4") as container:
        assert sum(1 for _ in container.decode(video=0)) == 3
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path / "work")
    assert run(tiny_weights, video, "--track", *formats)[0] == 0  # and a whole run takes their place
    assert files() == whole


def test_a_stop_while_nothing_comes(run: Run, tiny_weights: Path, tmp_path: Path) -> None:
    """A pipe whose writer says nothing: waiting for it ends as well."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "knet.cli.main", "predict", str(tiny_weights), str(pipe), "--track"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    writer = -1
    while writer < 0 and process.poll() is None:  # until it reads
        with suppress(OSError):
            writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=2400)[1]
    os.close(writer)
    assert process.returncode == 143 and "stopped by SIGTERM" in said and "Traceback" not in said


def test_the_second_signal_stops_at_once() -> None:
    with Stopping() as stopping:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.signal == signal.SIGTERM and stopping.event.is_set() and not stopping.at_once
        assert list(stopping.frames(range(3))) == []
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            signal.sigtimedwait([], 1)


def test_lines_can_be_read_while_it_runs(
    run: Run, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []

    def look() -> None:
        rows = Path("results/tracks.jsonl").read_text().splitlines()
        seen.extend(json.loads(row)["frame"] for row in rows)
        lines = capsys.readouterr().out.splitlines()
        seen.extend(json.loads(line.lstrip(","))["time"] for line in lines[1:])

    after(7, look, monkeypatch)
    video = film(tmp_path / "drive.mkv")
    status, _, err = run(tiny_weights, video, "--track", "--formats", "tracks", "--json")
    assert status == 0, err
    assert seen[:2] == [0, 1] and seen[-6:] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path / "work")
    status, out, _ = run(tiny_weights, video, "--formats", "json", "--json", "--no-track")
    document = json.loads(out)
    assert status == 0 and [row["time"] for row in document["results"]] == pytest.approx([n / 5 for n in range(8)])
    assert document["failed"] == [] and "unfinished" not in document


def test_a_video_from_a_pipe_and_from_standard_input(run: Run, tiny_weights: Path, tmp_path: Path) -> None:
    video = film(tmp_path / "drive.ts", 4, format="mpegts")
    read, write = os.pipe()
    before = os.dup(0)
    try:
        os.dup2(read, 0)
        os.write(write, video.read_bytes())
        os.close(write)
        with open(0, closefd=False) as stdin, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", stdin)
            status, out, err = run(tiny_weights, "-", "--track", "--formats", "tracks,video")
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(read)
    assert status == 0, err
    assert "4 images" in out and files() == ["stdin_overlay.mp4", "tracks.jsonl"]


def test_endings_do_not_decide_what_a_file_is(run: Run, tiny_weights: Path, tmp_path: Path) -> None:
    video, image = film(tmp_path / "v.mkv", 2).rename(tmp_path / "v.jpg"), tmp_path / "photo.mp4"
    Image.new("RGB", (64, 48), (90, 90, 120)).save(image, "PNG")
    raw = film(tmp_path / "v.h264", 2).rename(tmp_path / "raw")
    status, _, err = run(tiny_weights, video, image, raw, "--formats", "json")
    assert status == 0, err
    assert files() == [f"{n}_segments.json" for n in ("photo.mp4", "raw_000000", "raw_000001", "v_000000", "v_000001")]
    (tmp_path / "notes.txt").write_text("plain text\n" * 50)
    status, _, err = run(tiny_weights, tmp_path / "notes.txt")
    assert status == 2 and "unknown ending, and is no image or video by its content" in err


def test_choosing_classes_a_region_and_frames(run: Run, tiny_weights: Path, tmp_path: Path) -> None:
    video = film(tmp_path / "v.mkv", 8)
    options = ("--only", "car, ROAD", "--region", "8,0,40,48", "--every", "2", "--start", "0.4", "--end", "00:01.4")
    status, _, err = run(tiny_weights, video, "--track", "--formats", "tracks,panoptic", *options)
    assert status == 0, err
    rows = [json.loads(row) for row in Path("results/tracks.jsonl").read_text().splitlines()]
    assert [row["frame"] for row in rows] == [2, 4, 6] and [row["time"] for row in rows] == pytest.approx(
        [0.4, 0.8, 1.2]
    )
    assert {s["name"] for row in rows for s in row["segments"]} <= {"Car", "Road"}
    ids = np.array(Image.open("results/v_000004_panoptic.png"))
    assert ids.shape == (48, 64, 3) and not ids[:, :8].any() and not ids[:, 40:].any()
    for option, value, words in (
        ("only", "carr", "(--only); did you mean 'Car'?"),
        ("region", "40,0,8,48", "(--region) is not left, top, right and bottom"),
        ("every", 0, "(--every) is a whole number from 1 on"),
        ("start", "soon", "no time"),
        ("track-overlap", 2, "overlap must be a number between 0 and 1"),
        ("track-likeness", 0.5, "is for the tracker 'embeddings'"),
    ):
        status, _, err = run(tiny_weights, video, "--track", f"--{option}", value)
        assert status == 2 and words in err, err
    status, _, err = run(tiny_weights, video, "--region", "90,0,99,9")
    assert status == 2 and "lies outside of the image of 64 x 48 pixels" in err


def test_no_password_is_shown(run: Run, tiny_weights: Path) -> None:
    for address in (
        "http://admin:hunter22@127.0.0.1:9/video?pwd=hunter22",
        "rtmp://127.0.0.1:9/live/hunter22-key",
        "RTSP://admin:hun@hunter22@127.0.0.1:9/user=admin&password=hunter22",
        "srt://127.0.0.1:9?passphrase=hunter22",
        "gopher://admin:hunter22@127.0.0.1/x.mp4",
        "ftp://127.0.0.1/hunter22/x.mp4",
    ):
        status, out, err = run(tiny_weights, address, "--track", "--formats", "tracks", "--json")
        assert status == 2 and "hunter22" not in out + err and "127.0.0.1" in err, err
    status, out, err = run(tiny_weights, "--sizes", "rtsp://admin:hunter22@x/y", "z")
    assert status == 2 and "hunter22" not in out + err
    assert not [file for file in files() if "hunter22" in file]


def test_python_chooses_as_the_command_does(tiny_weights: Path, street: Path) -> None:
    segmenter = knet.load(tiny_weights, device="cpu")
    whole, part = segmenter(street), segmenter(street, only=["Car"], region=(0, 0, 48, 64))
    assert part.id_map.shape == whole.id_map.shape and {s.name for s in part.segments} <= {"Car"}
    assert all(s.box[2] <= 48 for s in part.segments) and not part.id_map[:, 48:].any()
