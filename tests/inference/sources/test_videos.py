from __future__ import annotations

import os
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from fake_results import filmed

from knet.errors import DataError
from knet.inference.sources.videos import probe_video, read_video


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi", ".gif"])
def test_videos_give_their_frames_in_order(tmp_path: Path, suffix: str) -> None:
    path = filmed(tmp_path / f"drive{suffix}", codec="gif" if suffix == ".gif" else "libx264")
    info = probe_video(path)
    assert (info.name, info.rate, info.height, info.width) == ("drive", 10, 32, 64)
    assert info.frames is not None and abs(info.frames - 5) <= 1
    items = list(read_video(str(path)))
    assert [item.name for item in items] == [f"drive_{n:06d}" for n in range(5)]
    assert [item.index for item in items] == list(range(5))
    brightness = [float(item.image[20:, 20:].mean()) for item in items]
    assert np.allclose(brightness, [40, 60, 80, 100, 120], atol=16 if suffix == ".gif" else 4)
    assert all(item.image.shape == (32, 64, 3) and item.image.dtype == np.uint8 for item in items)
    assert items[0].video == info and items[0].path == path


def test_the_frame_rate_is_kept_exactly(tmp_path: Path) -> None:
    rate = Fraction(30000, 1001)
    assert probe_video(filmed(tmp_path / "ntsc.mp4", rate=rate)).rate == rate


@pytest.mark.skipif(not hasattr(av.VideoFrame, "rotation"), reason="this PyAV does not tell how a video is turned")
@pytest.mark.parametrize(
    ("matrix", "corner"),
    [((1, 0, 0, 1), (0, 0)), ((0, 1, -1, 0), (0, -1)), ((-1, 0, 0, -1), (-1, -1)), ((0, -1, 1, 0), (-1, 0))],
)
def test_videos_are_turned_upright(tmp_path: Path, matrix: tuple[int, ...], corner: tuple[int, int]) -> None:
    """Phones write how they were held as a matrix into the track's header; (0, 1, -1, 0) is a portrait."""
    path = filmed(tmp_path / "turned.mp4")
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    info, image = probe_video(path), next(read_video(path)).image
    assert image.shape[:2] == (info.height, info.width) == ((64, 32) if matrix[1] else (32, 64))
    assert image[corner].min() > 200 and (image > 128).mean() < 0.1


def test_videos_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty.mp4").touch()
    whole = filmed(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    problems = {"text": "not a video", "empty": "empty", "cut": "not a video", "none": "no '"}
    for name, problem in problems.items():
        with pytest.raises(DataError, match=rf"{name}.mp4|{problem}") as caught:
            probe_video(tmp_path / f"{name}.mp4")
        assert problem in str(caught.value)
        with pytest.raises(DataError):
            list(read_video(tmp_path / f"{name}.mp4"))


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(DataError, match=r"sound.mp4.*no picture"):
        probe_video(path)


def test_a_video_damaged_later_ends_or_says_where(tmp_path: Path) -> None:
    path = filmed(tmp_path / "long.mkv", count=60)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)
    seen = 0
    try:
        for item in read_video(path):
            assert item.index == seen
            seen += 1
    except DataError as error:
        assert f"after {seen} frames" in str(error)
    assert 0 < seen <= 60


def test_leaving_a_video_early_closes_it(tmp_path: Path) -> None:
    frames = read_video(filmed(tmp_path / "drive.mp4"))
    next(frames)
    frames.close()
    if Path("/proc/self/fd").is_dir():
        assert not any("drive.mp4" in os.path.realpath(p) for p in Path("/proc/self/fd").iterdir())
