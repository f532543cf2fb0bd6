"""Broken videos, sequences and predictions through the command line: a sentence, a status, no half results."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from command_line import Run, runner
from PIL import Image

from knet.data.synthetic.clip_layouts import synthesize_clips


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    call = runner(capsys)

    def checked(*arguments: object) -> tuple[int, str, str]:
        status, out, err = call(*map(str, arguments))
        assert "Traceback" not in err
        told = [line for line in err.splitlines() if line.startswith("knet:")]
        assert all(line.endswith((".", "?")) for line in told)
        return status, out, "\n".join(told)

    return checked


def film(path: Path, count: int, size: tuple[int, int] = (48, 64), sound: bool = False, **options: Any) -> Path:
    """A video of noise, five pictures a second; options as of `av.open`."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", **options) as container:
        stream = container.add_stream("libx264", rate=5)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        voice = container.add_stream("aac", rate=8000, layout="mono") if sound else None
        for number in range(count):
            pixels = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            if voice is not None:
                waves = rng.normal(0, 0.1, (1, 1600)).astype(np.float32)
                heard = av.AudioFrame.from_ndarray(waves, format="fltp", layout="mono")
                heard.sample_rate, heard.pts = 8000, 1600 * number
                container.mux(voice.encode(heard))
        container.mux(stream.encode())
        if voice is not None:
            container.mux(voice.encode())
    return path


def pictures(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "mp4": ("mp4", {"options": {"movflags": "faststart"}}),
    "mp4 in fragments": ("mp4", {"options": {"movflags": "frag_keyframe+empty_moov"}}),
    "mkv": ("mkv", {}),
    "mkv with sound": ("mkv", {"sound": True}),
    "avi with sound": ("avi", {"sound": True}),
    "transport stream": ("ts", {"format": "mpegts"}),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_video_that_ends_mid_frame(run: Run, tiny_weights: Path, tmp_path: Path, form: str) -> None:
    suffix, options = FORMS[form]
    whole = film(tmp_path / f"whole.{suffix}", 16, **options)
    content = whole.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(content[: len(content) * 6 // 10 + 1])
    status, out, err = run("predict", tiny_weights, cut, "--track", "--formats", "video,tracks,step,mots")
    assert status == 2
    rows = [json.loads(line) for line in Path("results/tracks.jsonl").read_text().splitlines()]
    done = len(rows)
    assert 4 < done < 16
    assert f"breaks off after {done} frames" in err and err.count("knet:") == 1
    assert f"{done} images" in out and "1 failed" in out
    assert pictures(Path("results/cut_overlay.mp4")) == done
    assert len(list(Path("results/panoptic/cut").iterdir())) == done
    assert not [path for path in Path("results").rglob("*") if "part" in path.name or "tmp" in path.name]


def test_a_video_of_zero_bytes_and_one_without_an_index(run: Run, tiny_weights: Path, tmp_path: Path) -> None:
    empty, headless = tmp_path / "empty.mp4", tmp_path / "headless.mp4"
    empty.touch()
    content = film(tmp_path / "whole.mp4", 10).read_bytes()  # its index is at its end
    headless.write_bytes(content[: len(content) // 2])
    good = film(tmp_path / "good.mkv", 2)
    status, out, err = run("predict", tiny_weights, empty, headless, good, "--track", "--formats", "video,tracks,step")
    assert status == 2
    assert "'empty.mp4' is empty (0 bytes)" in err.replace(f"{tmp_path}/", "")
    assert "'headless.mp4' is not a video that can be read" in err.replace(f"{tmp_path}/", "")
    assert err.count("knet:") == 2 and "2 images" in out and "2 failed" in out
    rows = [json.loads(line) for line in Path("results/tracks.jsonl").read_text().splitlines()]
    assert [row["video"] for row in rows] == ["good", "good"]
    assert [path.name for path in Path("results/panoptic").iterdir()] == ["good"]
    status, out, _ = run("predict", tiny_weights, empty, headless)
    assert (status, out) == (2, "0 images, nothing saved; 2 failed\n")


def test_a_video_that_changes_its_size(run: Run, tiny_weights: Path, tmp_path: Path) -> None:
    parts = [film(tmp_path / f"{i}.mpg", 4, size, format="mpegts") for i, size in enumerate([(48, 64), (64, 96)])]
    both = tmp_path / "both.mpg"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    status, out, err = run("predict", tiny_weights, both, "--track", "--formats", "video,tracks,step")
    assert (status, err) == (0, "") and "8 images" in out
    rows = [json.loads(line) for line in Path("results/tracks.jsonl").read_text().splitlines()]
    assert [(row["height"], row["width"]) for row in rows] == [(48, 64)] * 4 + [(64, 96)] * 4
    assert pictures(Path("results/both_overlay.mp4")) == 8
    assert Image.open("results/panoptic/both/000007.png").size == (96, 64)


def test_a_video_of_one_frame(run: Run, tiny_weights: Path, tmp_path: Path) -> None:
    video = film(tmp_path / "one.mp4", 1)
    status, out, err = run("predict", tiny_weights, video, "--track", "--formats", "video,tracks,step,mots")
    assert (status, err) == (0, "") and "1 image, " in out
    assert pictures(Path("results/one_overlay.mp4")) == 1
    assert len(Path("results/tracks.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(("source", "name"), [("63", "camera_63"), ("rtsp://user:secret@127.0.0.1:9/x", "127.0.0.1_x")])
def test_a_camera_that_is_not_there(run: Run, tiny_weights: Path, source: str, name: str) -> None:
    status, out, err = run("predict", tiny_weights, source, "--track", "--formats", "video,tracks")
    assert status == 2 and "0 images" in out
    assert f"The camera '{name}' " in err and "secret" not in err
    assert not list(Path("results").iterdir())


def test_frames_missing_in_a_numbered_folder(run: Run, tiny_weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "0007"
    folder.mkdir()
    for number in (0, 1, 2, 6, 7, 8):
        Image.new("RGB", (64, 48), (90, 90, 120)).save(folder / f"{number:06d}.png")
    (folder / "000007.png").write_bytes(b"half")
    status, out, err = run("predict", tiny_weights, folder, "--track", "--formats", "tracks,step")
    assert status == 2  # because of the broken one; a gap alone is none of the command's failures
    lines = err.splitlines()
    assert lines[0] == ("knet: '0007': 3 frames are missing between '000002.png' and '000006.png'; tracking goes on.")
    assert len(lines) == 2 and "000007.png' is not an image in a known format" in lines[1]
    assert "5 images" in out and "1 failed" in out
    names = sorted(path.stem for path in Path("results/panoptic/0007").iterdir())
    assert names == ["000000", "000001", "000002", "000006", "000008"]
    (folder / "000007.png").unlink()
    assert run("predict", tiny_weights, folder, "--track", "--formats", "tracks")[0] == 0


def test_more_objects_than_a_step_png_holds(
    run: Run, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from knet.inference.segmenter import Segmenter

    whole, frames = Segmenter.segment_next, 0

    def renumbered(self: Segmenter, *args: Any, **options: Any) -> Any:
        nonlocal frames
        frames += 1
        result, state = whole(self, *args, **options)
        track = 65536 if frames == 3 else 65535
        segments = [replace(s, thing=True, track=track) for s in result.segments]
        return replace(result, segments=segments), state

    monkeypatch.setattr(Segmenter, "segment_next", renumbered)
    video = film(tmp_path / "long.mkv", 5)
    status, _, err = run("predict", tiny_weights, video, "--track", "--formats", "step,tracks")
    assert status == 2
    assert "'long' would need the object 65536; objects go up to 65535" in err and "'tracks'" in err
    assert sorted(path.stem for path in Path("results/panoptic/long").iterdir()) == ["000000", "000001"]
    assert run("predict", tiny_weights, video, "--track", "--formats", "tracks", "--output", "again")[0] == 0


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn") / "step"
    return synthesize_clips("step", root, 1, 4, (32, 64), seed=3).root


@pytest.fixture
def clips(drawn: Path, tmp_path: Path) -> Path:
    """A small KITTI-STEP; `pred` beside it is its truth again."""
    shutil.copytree(drawn, tmp_path / "step")
    shutil.copytree(drawn / "panoptic_maps/train", tmp_path / "pred")
    return tmp_path / "step"


def sixteen_bits(path: Path) -> None:
    """The object 70000 as a tool writes it that takes a PNG's channels for 16 bits."""
    pixels = np.zeros((32, 64, 3), ">u2")
    pixels[...] = 13, 70000 // 256, 70000 % 256

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 32, 16, 2, 0, 0, 0))
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def of_class(value: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        pixels = np.array(Image.open(path))
        pixels[:4, :4] = value, 0, 0
        Image.fromarray(pixels).save(path)

    return change


BROKEN: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "unknown class": (of_class(77), "0000/000001 (prediction) has the class 77", "000001.png has the class value 77"),
    "ids over 16 bits": (sixteen_bits, "000001.png has 16 bits a channel", "000001.png has 16 bits a channel"),
    "no pixels": (
        lambda path: path.write_bytes(b"") and None,
        "000001.png cannot be read",
        "000001.png cannot be read",
    ),
    "frame missing": (Path.unlink, "pred lacks the frame 0000/000001 of the truth", "has the frame 1, which"),
}


@pytest.mark.parametrize("metric", ["stq", "vpq"])
@pytest.mark.parametrize("case", BROKEN)
def test_predictions_on_disk(run: Run, clips: Path, case: str, metric: str) -> None:
    change, told, _ = BROKEN[case]
    truth, predictions = clips / "panoptic_maps/train", clips.parent / "pred"
    disk = ["--truth", truth, "--predictions", predictions, "--output", "figures"]
    change(predictions / "0000/000001.png")
    status, out, err = run("eval", "--metric", metric, *disk)
    assert (status, out) == (2, "")
    assert told in err and err.count("knet:") == 1
    assert not Path("figures").exists()


@pytest.mark.parametrize("case", BROKEN)
def test_sequences_of_a_data_set(run: Run, clips: Path, case: str) -> None:
    change, _, told = BROKEN[case]
    assert run("data", "check", "step", clips, "--splits", "train")[0] == 0
    change(clips / "panoptic_maps/train/0000/000001.png")
    status, out, err = run("data", "check", "step", clips, "--splits", "train")
    assert status == 2
    assert told in out + err
