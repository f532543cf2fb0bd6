"""A start in a video: decoded from the key frame before it, with the frames of decoding all."""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from knet.inference.sources import decoding
from knet.inference.sources.span import Span
from knet.inference.sources.streams import open_stream
from knet.inference.sources.videos import read_video

COUNT = 60
SEEKABLE: dict[str, tuple[str, str, dict[str, str]]] = {  # name -> ending, codec, options
    "b_frames": ("mp4", "libx264", {"g": "12", "bf": "3", "x264-params": "keyint=12:scenecut=0"}),
    "open_gop": ("mp4", "libx264", {"bf": "3", "x264-params": "keyint=12:open-gop=1:scenecut=0"}),
    "no_index": ("ts", "libx264", {"bf": "2", "x264-params": "keyint=12:scenecut=0"}),
    "matroska": ("mkv", "libx264", {"bf": "2", "x264-params": "keyint=12:scenecut=0"}),
    "motion_jpeg": ("avi", "mjpeg", {}),
    "mpeg_4": ("avi", "mpeg4", {"g": "12", "bf": "0"}),
    "vp9": ("webm", "libvpx-vp9", {"g": "12", "deadline": "realtime", "cpu-used": "8"}),
}
OTHERS: dict[str, tuple[str, str, dict[str, str]]] = {
    "no_stamps": ("h264", "libx264", {"x264-params": "keyint=12:scenecut=0"}),
    "no_key_frames": ("mp4", "libx264", {"bf": "0", "x264-params": "intra-refresh=1:keyint=12:scenecut=0"}),
    "mpeg_2": ("mpg", "mpeg2video", {"g": "12", "bf": "2"}),
    "gif": ("gif", "gif", {}),
}


def film(path: Path, codec: str, options: dict[str, str], steps: list[int] | None = None) -> Path:
    """Sixty frames in which a square moves, 25 a second or, with `steps`, so many 1/100 s after each other."""
    stamps = list(accumulate(steps or [4] * COUNT))
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(codec, "yuv420p")
        if steps:
            stream.codec_context.time_base = Fraction(1, 100)
        for n in range(COUNT):
            image = np.full((48, 64, 3), 4 * n, np.uint8)
            image[n % 36 : n % 36 + 12, n : n + 8] = (255, 0, 128)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if steps:
                frame.pts, frame.time_base = stamps[n], Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def check_starts(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The frames from some starts are those of the whole film; gives how many packets were decoded for each start."""
    whole, decode, decoded = list(open_stream(path)), decoding._decoded, list[int]()
    assert len(whole) > COUNT // 2
    monkeypatch.setattr(decoding, "_decoded", lambda *of: decoded.append(1) or decode(*of))
    counts = []
    for place in (1, 11, 12, 30, 47, len(whole) - 1):
        start = whole[place].item.seconds
        assert start is not None
        decoded.clear()
        frames = list(open_stream(path, span=Span(start=start)))
        counts.append(len(decoded))
        wanted = whole[place:]
        assert [f.number for f in frames] == [f.number for f in wanted]
        assert [f.item.seconds for f in frames] == [f.item.seconds for f in wanted]
        assert [f.item.name for f in frames] == [f.item.name for f in wanted]
        assert all(np.array_equal(f.item.image, w.item.image) for f, w in zip(frames, wanted, strict=True))
        assert frames[0].first and frames[0].time == 0
    return counts


@pytest.mark.parametrize("name", SEEKABLE)
def test_frames_are_those_of_decoding_all(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ending, codec, options = SEEKABLE[name]
    counts = check_starts(film(tmp_path / f"{name}.{ending}", codec, options), monkeypatch)
    assert counts[-1] < COUNT // 2, counts


def test_a_variable_frame_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = np.random.default_rng(0).choice([2, 4, 9, 30], COUNT).tolist()
    ending, codec, options = SEEKABLE["b_frames"]
    assert check_starts(film(tmp_path / f"film.{ending}", codec, options, steps), monkeypatch)[-1] < COUNT // 2


@pytest.mark.parametrize("name", OTHERS)
def test_where_a_jump_is_not_certain_all_is_decoded(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ending, codec, options = OTHERS[name]
    check_starts(film(tmp_path / f"{name}.{ending}", codec, options), monkeypatch)


def test_a_jump_that_fails_or_lands_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "film.mp4", *SEEKABLE["b_frames"][1:])
    whole = [item.image for item in read_video(path)]
    for elsewhere in (lambda *_: None, lambda *_: 5, lambda *_: next(av.open(str(tmp_path / "none.mp4")).decode())):
        monkeypatch.setattr("knet.inference.sources.seeking._landed", elsewhere)
        items = list(read_video(path, 1.8))
        assert items[0].index == 0 and len(items) == len(whole)
    monkeypatch.undo()
    assert next(read_video(path, 1.8)).index == 36
    assert next(read_video(path, 99.0)).index == 48


def test_the_end_of_a_film_that_breaks_off_is_told_all_the_same(tmp_path: Path) -> None:
    path = film(tmp_path / "film.ts", *SEEKABLE["no_index"][1:])
    path.write_bytes(path.read_bytes()[:-1000])
    said = list[Any]()
    frames = list(open_stream(path, said.append, span=Span(start=1.2)))
    assert len(said) == 1 and "breaks off" in str(said[0]) and frames[0].number == 30


@pytest.mark.parametrize("start", [1e9, 1e30, float("inf")])
@pytest.mark.parametrize("kind", ["matroska", "no_stamps"])
def test_a_start_beyond_all_ends_leaves_nothing(kind: str, start: float, tmp_path: Path) -> None:
    """What is too large for a stamp was a traceback."""
    ending, codec, options = (SEEKABLE | OTHERS)[kind]
    assert not list(open_stream(film(tmp_path / f"a.{ending}", codec, options), span=Span(start=start)))
