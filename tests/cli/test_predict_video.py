"""knet predict on videos: tracks, what is written, and every way in which a video can end."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from command_line import Run, runner
from PIL import Image

import knet
from knet.data.readers.kitti_step import read_step_png
from knet.inference.sources import cameras
from knet.inference.sources.videos import read_video


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run(SOURCE, ...)` in an empty folder -> exit status, what it printed, what it said of errors."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return partial(runner(capsys), "predict")


def film(path: Path, frames: int = 6, height: int = 48) -> Path:
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, height, "yuv420p"
        for _ in range(frames):
            picture = rng.integers(0, 255, (height, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def length(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_frames_computed_side_by_side_are_what_segment_gives(run: Run, tiny_weights: Path, tmp_path: Path) -> None:
    film(tmp_path / "drive.mkv")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        status, _, err = run(tiny_weights, tmp_path / "drive.mkv", "--no-track", "--formats", "json", "--device", "cpu")
        assert status == 0, err
        torch.set_num_threads(1)  # as many as each of two workers has: to the last bit
        segmenter = knet.load(tiny_weights, device="cpu")
        for item in read_video(tmp_path / "drive.mkv"):
            written = json.loads(Path(f"results/{item.name}_segments.json").read_text())
            assert written == segmenter.segment(item.image, item.name).to_dict()
    finally:
        torch.set_num_threads(threads)


def test_all_forms_of_a_tracked_video(run: Run, tiny_weights: Path, tmp_path: Path) -> None:
    film(tmp_path / "drive.mkv")
    status, out, err = run(tiny_weights, tmp_path / "drive.mkv", "--track", "--formats", "video,step,tracks,mots")
    assert status == 0, err
    assert "6 images" in out and "video, step, tracks, mots saved to results/" in out
    assert length(Path("results/drive_overlay.mp4")) == 6
    rows = [json.loads(row) for row in Path("results/tracks.jsonl").read_text().splitlines()]
    assert [row["frame"] for row in rows] == list(range(6))
    for row in rows:
        _, numbers = read_step_png(Path(f"results/panoptic/drive/{row['frame']:06d}.png"))
        tracks = {s["track"] for s in row["segments"] if s["track"]}
        assert set(np.unique(numbers).tolist()) - {0} == tracks
    assert Path("results/mots/drive.txt").is_file()
    assert sorted(p.name for p in Path("results").iterdir()) == [
        "drive_overlay.mp4",
        "mots",
        "panoptic",
        "semantic_classes.json",
        "tracks.jsonl",
    ]


def test_folders_are_films_of_their_own_when_tracked(run: Run, tiny_weights: Path, tmp_path: Path) -> None:
    for name, numbers in (("a", (0, 1, 2)), ("b", (4, 5, 9))):
        (tmp_path / name).mkdir()
        for n in numbers:
            Image.new("RGB", (64, 48), (9 * n, 80, 90)).save(tmp_path / name / f"{n:04d}.png")
    status, _, err = run(tiny_weights, tmp_path / "a", tmp_path / "b", "--track")
    assert status == 0
    assert err.count("knet:") == 1
    assert "3 frames are missing between '0005.png' and '0009.png'" in err
    assert [length(Path(f"results/{name}_overlay.mp4")) for name in "ab"] == [3, 3]
    status, _, err = run(tiny_weights, tmp_path / "b", "--formats", "semantic")  # single images: no gap
    assert (status, err) == (0, "")


def test_a_video_that_breaks_off(run: Run, tiny_weights: Path, tmp_path: Path) -> None:
    whole = film(tmp_path / "whole.mkv", 40).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.mp4").touch()
    status, out, err = run(
        tiny_weights, tmp_path / "cut.mkv", tmp_path / "empty.mp4", "--track", "--formats", "video,tracks"
    )
    assert status == 2
    done = len(Path("results/tracks.jsonl").read_text().splitlines())
    assert 5 < done < 40
    assert f"breaks off after {done} frames" in err and "0 bytes" in err
    assert "2 failed" in out
    assert length(Path("results/cut_overlay.mp4")) == done


def camera_of(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = av.open
    monkeypatch.setattr(sys, "platform", "linux")

    def stand_in(address: str, *rest: Any, **options: Any) -> Any:
        return real(str(video)) if options.get("format") == "v4l2" else real(address, *rest, **options)

    monkeypatch.setattr(cameras.av, "open", stand_in)


def test_a_camera_that_disappears(
    run: Run, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera_of(film(tmp_path / "v.mkv", 4), monkeypatch)
    status, out, err = run(tiny_weights, "0", "--track", "--formats", "video,tracks")
    assert status == 2
    assert "camera_0' ended after 4 frames" in err
    assert "4 images" in out
    assert length(Path("results/camera_0_overlay.mp4")) == 4
    assert len(Path("results/tracks.jsonl").read_text().splitlines()) == 4


def test_stopping_a_camera_finishes_the_files(
    run: Run, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera_of(film(tmp_path / "v.mkv", 30), monkeypatch)
    from knet.inference.segmenter import Segmenter

    whole, seen = Segmenter.segment_next, 0

    def stopped(self: Segmenter, *args: Any, **options: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen > 3:
            raise KeyboardInterrupt
        return whole(self, *args, **options)

    monkeypatch.setattr(Segmenter, "segment_next", stopped)
    status, out, _ = run(tiny_weights, "0", "--track", "--formats", "video,tracks")
    assert status == 0
    assert "3 images" in out
    assert length(Path("results/camera_0_overlay.mp4")) == 3


def test_options_of_the_tracker_reach_it(run: Run, tiny_weights: Path, tmp_path: Path) -> None:
    video = film(tmp_path / "v.mkv", 3)
    segmenter = knet.load(tiny_weights, device="cpu")
    options = [
        "--tracker",
        "overlap",
        "--track-memory",
        "2",
        "--track-start",
        "0.1",
        "--track-classes",
        "Car, Bicyclist",
    ]
    status, _, err = run(tiny_weights, video, "--track", "--device", "cpu", "--formats", "tracks", *options)
    assert status == 0, err
    rows = [json.loads(row)["segments"] for row in Path("results/tracks.jsonl").read_text().splitlines()]
    tracker = knet.track.OverlapSettings(start=0.1, memory=2)
    found = [r for _, r in segmenter.track(str(video), tracker=tracker, classes=["Car", "Bicyclist"])]
    assert [[s["track"] for s in row] for row in rows] == [[s.track for s in result.segments] for result in found]
    assert {s["name"] for row in rows for s in row if s["track"]} <= {"Car", "Bicyclist"}


def test_tracking_options_that_do_not_fit(run: Run, tiny_weights: Path, tmp_path: Path) -> None:
    video = film(tmp_path / "v.mkv", 2)
    status, _, err = run(tiny_weights, video, "--formats", "step")
    assert status == 2 and "--track" in err
    for option, value in ("tracker", "overlap"), ("track-memory", 3), ("track-start", 0), ("track-classes", "car"):
        status, _, err = run(tiny_weights, video, f"--{option}", value)
        assert status == 2 and f"The option --{option} is for tracked videos; give --track as well" in err
    for option, value, words in (
        ("tracker", "embeddings", "is for models that were trained on video"),
        ("track-memory", 0, "(--track-memory) must be a number of frames, at least 1, not 0."),
        ("track-start", 1.2, "start (--track-start) must be a number between 0 and 1, not 1.2."),
        ("track-classes", "Caar", "(--track-classes); did you mean 'Car'?"),
        ("track-classes", "Car,Road", "'Road' is stuff"),
    ):
        status, out, err = run(tiny_weights, video, "--track", f"--{option}", value)
        assert (status, out) == (2, "") and words in err and err.count("\n") == 1
        assert not Path("results").exists()
    status, _, err = run(tiny_weights, video, "--track", "--formats", "stpe")
    assert status == 2 and "did you mean 'step'" in err
    assert run(tiny_weights, video, "--track", "--official", "--formats", "step")[0] == 0
