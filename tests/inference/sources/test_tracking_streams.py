"""Videos as they come: cut off, of changing size, with frames missing, from cameras that disappear."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fake_video import Painted, drive, filmed, in_folder, painted, segmenter_of

from knet.errors import DataError
from knet.inference.sources import cameras
from knet.inference.sources.cameras import Camera, camera
from knet.inference.sources.streams import Frame, open_stream


def noise(count: int) -> list[np.ndarray]:
    """Frames that do not compress, so that a cut hits one of them."""
    return list(np.random.default_rng(0).integers(0, 255, (count, 64, 96, 3), dtype=np.uint8))


@pytest.mark.parametrize(("suffix", "form"), [(".mp4", None), (".mkv", None), (".ts", "mpegts"), (".avi", None)])
def test_a_video_that_ends_in_the_middle_of_a_frame(tmp_path: Path, suffix: str, form: str | None) -> None:
    path = filmed(tmp_path / f"drive{suffix}", noise(60), form)
    whole = path.read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole[: int(0.7 * len(whole))])
    told: list[DataError] = []
    frames = list(open_stream(cut, told.append))
    assert 10 < len(frames) < 60
    assert [frame.number for frame in frames] == list(range(len(frames)))
    (error,) = told
    assert f"breaks off after {len(frames)} frames" in str(error)
    assert cut.name in str(error)
    with pytest.raises(DataError, match="breaks off"):  # without anybody to tell
        list(open_stream(cut))
    told.clear()
    assert len(list(open_stream(path if suffix != ".ts" else path.rename(tmp_path / "whole.mpg"), told.append))) == 60
    assert not told


def test_what_comes_after_a_broken_video_is_read(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video")
    good = filmed(tmp_path / "good.mkv", drive(2))
    told: list[DataError] = []
    found = list(open_stream([tmp_path / "empty.mp4", tmp_path / "text.mp4", good], told.append))
    assert [(frame.sequence, frame.first) for frame in found] == [("good", True), ("good", False)]
    assert "0 bytes" in str(told[0])
    assert "not a video" in str(told[1])
    with pytest.raises(DataError, match="0 bytes"):
        list(segmenter_of(Painted()).track(tmp_path / "empty.mp4"))


def test_one_frame(tmp_path: Path) -> None:
    ((image, result),) = segmenter_of(Painted()).track(filmed(tmp_path / "one.mkv", drive(1)))
    assert image.shape == (48, 96, 3)
    assert sorted(s.track or 0 for s in result.segments) == [0, 1, 2]


def test_a_video_that_changes_its_size(tmp_path: Path) -> None:
    """Two streams one after the other, as when a camera is set anew; tracking goes on."""
    small = filmed(tmp_path / "small.h264", [painted({1: (2, 4 + t)}, (32, 64)) for t in range(4)], "h264")
    large = filmed(tmp_path / "large.h264", [painted({1: (4, 16 + 2 * t)}, (64, 128), 24) for t in range(4)], "h264")
    both = tmp_path / "both.mpg"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    results = list(segmenter_of(Painted()).track(both))
    assert [result.id_map.shape for _, result in results] == [(32, 64)] * 4 + [(64, 128)] * 4
    assert all(image.shape[:2] == result.id_map.shape for image, result in results)
    assert {s.track for _, result in results for s in result.segments if s.thing} == {1}


def numbered(folder: Path, names: list[str]) -> tuple[list[Frame], list[str]]:
    notes: list[str] = []
    in_folder(folder, [painted({1: (4, 4)}, (16, 24), 8)] * len(names), names)
    return list(open_stream(folder, on_note=notes.append)), notes


def test_frames_missing_in_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames, notes = numbered(tmp_path / "0003", [f"{n:06d}.png" for n in (4, 5, 6, 9, 10, 12)])
    assert [frame.number for frame in frames] == [4, 5, 6, 9, 10, 12]
    assert [frame.time for frame in frames] == [0, 1, 2, 5, 6, 8]
    assert [frame.first for frame in frames] == [True] + [False] * 5
    assert {frame.sequence for frame in frames} == {"0003"}
    assert notes == [
        "'0003': 2 frames are missing between '000006.png' and '000009.png'; tracking goes on.",
        "'0003': a frame is missing between '000010.png' and '000012.png'; tracking goes on.",
    ]
    list(open_stream(tmp_path / "0003"))
    assert [(record.name, record.levelname, record.message) for record in caplog.records] == [
        ("knet", "WARNING", note) for note in notes
    ]


def test_tracking_goes_on_over_missing_frames(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Over the gap the object moves by more than its size: only with the right numbers is it expected there."""
    kept = [0, 1, 2, 3, 4, 5, 11, 12]
    frames = [painted({1: (4, 4 * t)}) for t in kept]
    folder = in_folder(tmp_path / "gap", frames, [f"f{n}.png" for n in kept])
    results = [result for _, result in segmenter_of(Painted()).track(folder)]
    assert "5 frames are missing" in caplog.text
    assert [s.track for result in results for s in result.segments if s.thing] == [1] * 8


def test_every_so_many_frames_is_no_gap(tmp_path: Path) -> None:
    frames, notes = numbered(tmp_path / "clip", [f"{n}.png" for n in (5, 10, 15, 25, 30)])
    assert [frame.time for frame in frames] == [0, 1, 2, 4, 5]
    assert [frame.number for frame in frames] == [5, 10, 15, 25, 30]
    assert len(notes) == 1


def test_flat_folders_hold_several_videos(tmp_path: Path) -> None:
    names = [f"{video:06d}_{frame:06d}_leftImg8bit.png" for video in (2, 10) for frame in (0, 1, 2)]
    frames, notes = numbered(tmp_path / "val", names)
    assert [(f.sequence, f.number, f.first) for f in frames] == [
        (video, n, not n) for video in ("000002", "000010") for n in range(3)
    ]
    assert not notes
    vps = [f"{video:04d}_{i:04d}_berlin_{i:06d}_{20 * i:06d}_newImg8bit.png" for video in (1, 2) for i in (5, 10)]
    frames, _ = numbered(tmp_path / "vps", vps)
    assert [(f.sequence, f.number) for f in frames] == [("0001", 5), ("0001", 10), ("0002", 5), ("0002", 10)]


@pytest.mark.parametrize(
    ("left", "right", "sequences"),
    [
        ("frame-{:06d}-left.png", "frame-{:06d}-right.png", ("frame left", "frame right")),
        ("{:06d}_L.png", "{:06d}_R.png", ("L", "R")),
        ("{:04d}_cam0.png", "{:04d}_cam1.png", ("cam0", "cam1")),
        ("drive_{:04d}_camera_2_raw.png", "drive_{:04d}_camera_3_raw.png", ("drive_camera_2", "drive_camera_3")),
    ],
)
def test_two_cameras_in_one_folder_are_two_videos(
    tmp_path: Path, left: str, right: str, sequences: tuple[str, str]
) -> None:
    names = [form.format(n) for n in range(12) for form in (left, right)]
    frames, notes = numbered(tmp_path / "stereo", names)
    assert [(f.sequence, f.number, f.time) for f in frames] == [(name, n, n) for name in sequences for n in range(12)]
    assert not notes
    frames, _ = numbered(tmp_path / "angles", [f"cam{n}.png" for n in range(3)])
    assert {frame.sequence for frame in frames} == {"angles"}


def test_a_hash_in_front_of_each_name_does_not_change_the_order(tmp_path: Path) -> None:
    hashes = ("8a64c1b9", "37176e84", "aef9c00b")
    frames, _ = numbered(tmp_path / "task", [f"{text}-frame_{n:04d}.png" for n, text in enumerate(hashes)])
    assert [(f.sequence, f.number) for f in frames] == [("task", n) for n in range(3)]


def test_names_without_numbers_are_one_video(tmp_path: Path) -> None:
    frames, notes = numbered(tmp_path / "holiday", ["beach.png", "IMG_7.png", "zoo.png"])
    assert [(f.sequence, f.number, f.time) for f in frames] == [("holiday", n, n) for n in range(3)]
    assert not notes


def test_a_broken_frame_is_like_a_missing_one(tmp_path: Path) -> None:
    folder = in_folder(tmp_path / "0001", drive(4))
    (folder / "000001.png").write_bytes(b"nothing")
    told: list[DataError] = []
    frames = list(open_stream(folder, told.append))
    assert [frame.time for frame in frames] == [0, 2, 3]
    assert len(told) == 1
    with pytest.raises(DataError, match="000001"):
        list(open_stream(folder))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (0, "camera_0"),
        ("2", "camera_2"),
        ("rtsp://me:secret@10.0.0.7:554/live/one?token=1", "10.0.0.7_live_one"),
        ("RTSP://house", "house"),
    ],
)
def test_what_a_camera_is(source: Any, name: str) -> None:
    device = camera(source)
    assert device is not None
    assert device.name == name


def test_what_no_camera_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0").mkdir()
    for source in ("0", "drive.mp4", "http:/x/y.mp4", tmp_path, True, -1, drive(1)[0], "٣"):
        assert camera(source) is None


class Device:
    """Stands in for av.open: a video that is opened as a camera, which is pulled out after some frames."""

    def __init__(self, video: Path, monkeypatch: pytest.MonkeyPatch):
        self.video, self.calls, self.closed = video, list[tuple[str, dict[str, Any]]](), 0
        self.real = av.open
        monkeypatch.setattr(cameras.av, "open", self)

    def __call__(self, address: str, **options: Any) -> Any:
        self.calls.append((address, options))
        return self.real(str(self.video))


def test_a_webcam_that_disappears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(filmed(tmp_path / "v.mkv", drive(5)), monkeypatch)
    monkeypatch.setattr(sys, "platform", "linux")
    told: list[DataError] = []
    results = list(segmenter_of(Painted()).track(0, on_error=told.append))
    assert device.calls == [("/dev/video0", {"format": "v4l2"})]
    assert len(results) == 5
    assert [result.name for _, result in results] == [f"camera_0_{n:06d}" for n in range(5)]
    (error,) = told
    assert "camera_0" in str(error)
    assert "ended after 5 frames" in str(error)
    got: list[Any] = []
    with pytest.raises(DataError, match="ended after 5 frames"):
        got.extend(None for _ in segmenter_of(Painted()).track("0"))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert len(list(open_stream("1", told.append))) == 5
    assert device.calls[-1] == ("1", {"format": "avfoundation"})
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(DataError, match="rtsp"):
        list(open_stream(0))


def test_a_stream_in_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(filmed(tmp_path / "v.mkv", noise(4)), monkeypatch)
    told: list[DataError] = []
    address = "rtsp://me:secret@10.0.0.7/live"
    assert len(list(open_stream(address, told.append))) == 4
    assert device.calls[0][0] == address
    assert device.calls[0][1]["timeout"] > 0
    assert "secret" not in str(told)


def test_a_camera_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: str, **_: Any) -> Any:
        raise av.error.ConnectionRefusedError(111, "Connection refused", address)

    monkeypatch.setattr(cameras.av, "open", refuse)
    with pytest.raises(DataError, match="cannot be opened") as caught:
        next(open_stream("rtsp://me:secret@10.0.0.7/live"))
    assert "secret" not in str(caught.value)
    assert "Connection refused" in str(caught.value)


def test_a_camera_is_closed_when_nobody_looks_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Device(filmed(tmp_path / "v.mkv", drive(5)), monkeypatch)
    frames: Iterator[Any] = cameras.read_camera(Camera("0"))
    next(frames)
    frames.close()  # type: ignore[attr-defined]
    if Path("/proc/self/fd").is_dir():
        assert not any("v.mkv" in str(p.resolve()) for p in Path("/proc/self/fd").iterdir() if p.exists())
