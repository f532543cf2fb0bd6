"""Videos and cameras of which some packets cannot be decoded: the others are, and it is said what was lost."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from knet.errors import DataError
from knet.inference.sources import cameras
from knet.inference.sources.streams import open_stream


def noise(path: Path, bad: set[int], count: int = 40, codec: str = "mpeg4") -> Path:
    """A video of noise, 25 frames a second, in which some packets hold other noise."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        packets = []
        for _ in range(count):
            pixels = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            packets += stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24"))
        for number, packet in enumerate([*packets, *stream.encode(None)]):
            if number in bad:
                other = av.Packet(rng.integers(0, 255, packet.size, dtype=np.uint8).tobytes())
                other.pts, other.dts, other.time_base, other.stream = packet.pts, packet.dts, packet.time_base, stream
                packet = other
            container.mux(packet)
    return path


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "mpeg4"), ("mkv", "mpeg4"), ("avi", "mjpeg"), ("mov", "mjpeg")])
def test_one_bad_packet_loses_one_frame(
    tmp_path: Path, suffix: str, codec: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = noise(tmp_path / f"drive.{suffix}", {20}, codec=codec)
    told: list[DataError] = []
    frames = list(open_stream(path, told.append))
    assert len(frames) == 39 and not told
    (missing,) = set(range(40)) - {frame.time for frame in frames}
    assert missing == 20
    (warning,) = [r.getMessage() for r in caplog.records if "could not be decoded" in r.getMessage()]
    assert f"drive.{suffix}': a frame at 0.80 s could not be decoded" in warning
    assert "the other 39 were" in warning


def test_a_hole_in_a_file_is_told_by_the_times_that_lack(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = noise(tmp_path / "drive.mkv", set(), 80)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 6000] = bytes(6000)
    path.write_bytes(data)
    frames = list(open_stream(path))
    assert 60 < len(frames) < 80 and frames[-1].time == 79
    assert f"{80 - len(frames)} frames at" in caplog.text and f"the other {len(frames)} were" in caplog.text


def test_a_hole_that_the_file_does_not_tell_of_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A reader of Matroska leaves out a damaged cluster without a word."""
    with av.open(str(tmp_path / "drive.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for number in [*range(20), *range(45, 60)]:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * number, np.uint8), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert len(list(open_stream(tmp_path / "drive.mp4"))) == 35
    assert "drive.mp4': no frame comes between 0.76 s and 1.80 s; the video was stopped there, or" in caplog.text


def test_an_end_that_is_all_broken_is_an_end(tmp_path: Path) -> None:
    path = noise(tmp_path / "drive.mp4", set(range(20, 40)))
    told: list[DataError] = []
    assert len(list(open_stream(path, told.append))) == 20
    assert "breaks off after 20 frames (Invalid data" in str(told[0])


def test_a_camera_goes_on_after_a_bad_packet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    video, real = noise(tmp_path / "v.mp4", {5, 6, 20}), av.open
    monkeypatch.setattr(cameras.av, "open", lambda address, **options: real(str(video)))
    told: list[DataError] = []
    assert len(list(open_stream("rtsp://me:secret@10.0.0.7/live", told.append))) == 37
    assert "a frame could not be decoded" in caplog.text and len(caplog.records) == 1  # not a line for each
    assert "ended after 37 frames" in str(told[0])


def test_a_stream_that_stays_broken_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from knet.inference.sources import decoding

    monkeypatch.setattr(decoding, "_HOPELESS", 8)
    video, real = noise(tmp_path / "v.mp4", set(range(10, 30))), av.open
    monkeypatch.setattr(cameras.av, "open", lambda address, **options: real(str(video)))
    told: list[DataError] = []
    assert len(list(open_stream("rtsp://10.0.0.7/live", told.append))) == 10
    assert "breaks off after 10 frames" in str(told[0])


def test_a_bad_image_of_a_list_is_left_out() -> None:
    told: list[DataError] = []
    image = np.zeros((8, 8, 3), np.uint8)
    frames = list(open_stream([image, b"nothing", image], told.append))
    assert [(frame.number, frame.time) for frame in frames] == [(0, 0), (2, 2)] and len(told) == 1
