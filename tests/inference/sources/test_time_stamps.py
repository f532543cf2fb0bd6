"""Frames that carry their time: in their names, in a video of variable frame rate, from the caller."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from fake_video import Painted, drive, in_folder, painted, segmenter_of

from knet.errors import ConfigError
from knet.inference.results.predictions import PredictionWriter
from knet.inference.sources.clock import Clock
from knet.inference.sources.span import Span
from knet.inference.sources.streams import Frame, frame_times, open_stream

JITTER = [0.0, 0.031, 0.068, 0.099, 0.131, 0.170, 1.203, 1.240]  # thirty a second, and one pause of a second


def frames_of(folder: Path, names: list[str]) -> tuple[list[Frame], list[str]]:
    notes: list[str] = []
    in_folder(folder, [painted({1: (4, 4)}, (16, 24), 8)] * len(names), [f"{name}.png" for name in names])
    return list(open_stream(folder, on_note=notes.append)), notes


@pytest.mark.parametrize(
    "name",
    [
        lambda t: f"{1305031452.79172 + t:.6f}",
        lambda t: f"rgb_{1305031452.79172 + t:.3f}",
        lambda t: f"{1403636579763555584 + round(t * 1e9)}",
        lambda t: f"{1403636579 + int(t + 0.7)}_{round((t + 0.7) % 1 * 1e9)}",  # nanoseconds without zeros in front
        lambda t: f"n015-2018-07-24-11-22-45+0800__CAM_FRONT__{1532402927612460 + round(t * 1e6)}",
        lambda t: f"2023-05-01_12-30-{58.5 + t:06.3f}" if t < 1 else f"2023-05-01_12-30-{57 + t + 1.5:06.3f}",
        lambda t: f"12-30-{50.5 + t:06.3f}",
        lambda t: f"{t + 12:.3f}",
        lambda t: f"frame{round(t * 1000):04d}_{1305031452 + t:.3f}",
    ],
)
def test_frames_named_by_time_are_one_sequence_with_the_gap_that_is_there(tmp_path: Path, name: object) -> None:
    frames, notes = frames_of(tmp_path / "rgb", [name(t) for t in JITTER])  # type: ignore[operator]
    assert [frame.first for frame in frames] == [True] + [False] * 7
    assert {frame.sequence for frame in frames} == {"rgb"}
    assert [frame.time for frame in frames][:6] == list(range(6)) and 28 <= frames[6].time - frames[5].time <= 33
    assert np.allclose([f.item.seconds - (frames[0].item.seconds or 0) for f in frames], JITTER, atol=1e-3)  # type: ignore[operator]
    (note,) = notes
    assert "frames are missing between" in note and [frame.number for frame in frames] == list(range(8))


def test_many_gaps_are_told_in_one_line(tmp_path: Path) -> None:
    times = np.cumsum([0.0] + [0.03, 0.03, 0.09] * 6)
    frames, notes = frames_of(tmp_path / "rgb", [f"{1305031452 + t:.4f}" for t in times])
    assert len(frames) == 19 and len(notes) == 1
    assert "'rgb': 12 frames are missing in 6 places, first between" in notes[0]


def test_the_order_is_that_of_time_not_of_digits(tmp_path: Path) -> None:
    frames, _ = frames_of(tmp_path / "rgb", ["1305031452.9", "1305031452.10", "1305031453.05"])
    assert [frame.item.name for frame in frames] == ["1305031452.10", "1305031452.9", "1305031453.05"]
    frames, _ = frames_of(tmp_path / "night", ["23-59-59.900", "00-00-00.000", "23-59-59.800"])
    assert [frame.item.name for frame in frames] == ["23-59-59.800", "23-59-59.900", "00-00-00.000"]


def test_cameras_side_by_side_are_sequences_of_their_own(tmp_path: Path) -> None:
    names = [f"{camera}_{1305031452 + n / 10:.2f}" for camera in ("cam0", "cam1") for n in range(3)]
    frames, notes = frames_of(tmp_path / "both", names)
    assert [frame.sequence for frame in frames] == ["cam0"] * 3 + ["cam1"] * 3 and not notes
    assert [frame.time for frame in frames] == [0, 1, 2] * 2


@pytest.mark.parametrize(
    "names",
    [
        [f"{n / 20:g}" for n in range(25)],  # 0, 0.05, 0.1: without zeros at the end
        [f"t={n / 4}s" for n in range(9)],
        [
            f"{h:02d}{m:02d}{s:02d}_{ms:03d}"
            for h, m, s in ((23, 59, 58), (23, 59, 59), (0, 0, 0))
            for ms in (0, 300, 600)
        ],
    ],
)
def test_times_without_zeros_or_colons_are_one_sequence(tmp_path: Path, names: list[str]) -> None:
    names = names if names[0] != "0" else ["0.0", *names[1:]]
    frames, _ = frames_of(tmp_path / "rgb", [name if "." in name or "_" in name else f"{name}.0" for name in names])
    assert {frame.sequence for frame in frames} == {"rgb"}
    times = [float(frame.item.seconds or 0) for frame in frames]
    assert times == sorted(times) and len(frames) == len(names) and frames[-1].item.seconds is not None


def test_a_score_at_the_end_of_a_name_is_no_time(tmp_path: Path) -> None:
    names = [f"frame{n:04d}_0.{score}" for n, score in enumerate((91, 34, 56))]
    frames, _ = frames_of(tmp_path / "kept", names)
    assert [frame.item.name for frame in frames] == names


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        ([f"{n:016d}" for n in (0, 1, 2)], [0, 1, 2]),  # counters with many zeros
        ([f"20230601_123045_{n:06d}" for n in (4, 5, 6)], [4, 5, 6]),  # when it began, and a counter
        ([f"2023060{n}_123045_1" for n in (1, 1, 2)][:1], [1]),
        (["20230601_123045_1", "20230601_123045_2", "20230601_123046_1"], [0, 1, 2]),  # bursts of a phone
    ],
)
def test_counters_are_no_times(tmp_path: Path, names: list[str], numbers: list[int]) -> None:
    frames, notes = frames_of(tmp_path / "clip", names)
    assert len({frame.sequence for frame in frames}) == 1 and not notes
    assert [frame.time for frame in frames] == list(range(len(names)))
    if len(names) > 1:
        assert [frame.number for frame in frames] == numbers
        assert all(frame.item.seconds is None for frame in frames)


def test_times_in_an_unknown_unit_have_no_gaps_by_jitter() -> None:
    assert frame_times([33333333, 66100000, 101000000, 132000000, 165900000])[0] == [0, 1, 2, 3, 4]


def test_a_clock_counts_what_is_missing() -> None:
    clock = Clock()
    assert [clock(t) for t in (5.0, 5.1, 5.2, 5.5, 5.6, None, 5.8)] == [0, 1, 2, 5, 6, 7, 8]
    assert [Clock()(None), Clock([0.1])(3.0)] == [0, 0]


def variable(path: Path, times: list[float]) -> Path:
    """The drive as a video whose frames are shown at these times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "4"})
        stream.height, stream.width, stream.pix_fmt = 48, 96, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for time, image in zip(times, drive(len(times)), strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


TIMES = [0, 0.04, 0.08, 0.12, 0.5, 0.54, 0.58, 1.5, 1.54, 1.58, 2.7, 2.74]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_variable_frame_rate_plays_as_fast_as_before(tmp_path: Path, suffix: str) -> None:
    segmenter, path = segmenter_of(Painted()), variable(tmp_path / f"v.{suffix}", TIMES)
    follow = segmenter.tracker()
    with PredictionWriter(tmp_path, ["video", "tracks"], segmenter.categories, track=True) as writer:
        for frame in open_stream(path):
            writer.write(follow.next(frame.item.image, frame.time, frame.item.name), frame)
    with av.open(str(tmp_path / "v_overlay.mp4")) as film:
        assert np.allclose([frame.time for frame in film.decode(video=0)], TIMES, atol=0.002)
    rows = [json.loads(line) for line in (tmp_path / "tracks.jsonl").read_text().splitlines()]
    assert np.allclose([row["time"] for row in rows], TIMES, atol=0.002)
    assert [row["frame"] for row in rows] == list(range(12))
    assert [f.time for f in open_stream(path)][:5] == [0, 1, 2, 3, 12 if suffix == "" else 3 + round(0.38 / 0.04)]


def test_a_part_of_a_video(tmp_path: Path) -> None:
    path = variable(tmp_path / "v.mp4", TIMES)
    frames = list(open_stream(path, span=Span(every=2, start=0.5, end=1.58)))
    assert [round(frame.item.seconds or 0, 2) for frame in frames] == [0.5, 0.58, 1.54]
    assert [frame.item.name for frame in frames] == ["v_000004", "v_000006", "v_000008"] and frames[0].first
    folder = in_folder(tmp_path / "f", drive(6), [f"{n:04d}.png" for n in range(10, 16)])
    assert [f.number for f in open_stream(folder, span=Span(start=11, end=14))] == [11, 12, 13]
    assert [(f.number, f.time) for f in open_stream(folder, span=Span(every=3))] == [(10, 0), (13, 1)]
    for wrong in ({"every": 0}, {"start": -1}, {"start": 3, "end": 3}, {"every": 1.5}):
        with pytest.raises(ConfigError, match="--"):
            Span(**wrong)  # type: ignore[arg-type]
