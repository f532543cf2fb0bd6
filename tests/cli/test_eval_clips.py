"""knet eval on clips, and knet predict with a model for whole clips."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import Run, runner
from PIL import Image

from knet.data.files.masks import read_mask, unpack_mask
from knet.data.readers.youtube_vis import YoutubeVis
from knet.data.synthetic.clip_layouts import synthesize_clips
from knet.evaluation import ytvis_ap
from tiny_models import tiny_file

SIZE, FRAMES = (64, 128), 3


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return runner(capsys)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """step/ and youtube-vis/, two clips each; video.safetensors, clip.safetensors and instance.safetensors."""
    root = tmp_path_factory.mktemp("made")
    for layout in ("step", "youtube-vis"):
        synthesize_clips(layout, root / layout, 2, FRAMES, SIZE, seed=3)
    for task in ("video", "clip", "instance"):
        tiny_file(task, root)
    return root


def step_of(made: Path) -> list[str]:
    return [f"data.root={made / 'step'}", "data.val.format=step", "data.val.split=train", "--device", "cpu"]


def test_tables_and_files_of_a_video_model(run: Run, made: Path) -> None:
    status, out, err = run("eval", f"{made / 'video.safetensors'}", *step_of(made), "--output", "figures")
    assert status == 0, err
    assert "all (official protocol)" in out and out.count("all (video-knet protocol)") == 2
    names = {"panoptic", "semantic", "stq", "stq_video_knet", "vpq"}
    assert {path.name for path in Path("figures").iterdir()} == {f"{n}.{e}" for n in names for e in ("json", "csv")}
    with Path("figures/stq.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows if row["level"] == "sequence"] == ["0000", "0001"]
    assert (rows[-1]["level"], rows[-1]["frames"]) == ("all", f"{2 * FRAMES}")
    linked = json.loads(Path("figures/stq.json").read_text())["all"]
    status, out, err = run("eval", f"{made / 'video.safetensors'}", *step_of(made), "--unlinked", "--json")
    assert status == 0, err
    alone = json.loads(out)
    assert alone.keys() == names
    assert 0 < alone["stq"]["all"]["aq"] != linked["aq"] > 0
    assert alone["stq"]["all"]["sq"] == linked["sq"]  # this model's link is for identities alone
    status, out, _ = run("eval", f"{made / 'video.safetensors'}", *step_of(made), "--official", "--json")
    assert status == 0 and json.loads(out)["stq"]["all"]["sq"] != linked["sq"]  # void is called road


@pytest.mark.large  # tests/runs/test_processes.py has images in two processes
def test_two_processes_give_the_figures_of_one(run: Run, made: Path) -> None:
    arguments = ["eval", f"{made / 'video.safetensors'}", *step_of(made), "--json"]
    _, alone, _ = run(*arguments)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared["OMP_NUM_THREADS"] = "1"
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "knet.cli.main", *arguments],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    (together, error), (silence, _) = (process.communicate(timeout=2400) for process in processes)
    assert [process.returncode for process in processes] == [0, 0], error
    assert silence == ""
    assert same(json.loads(together), json.loads(alone))


def same(one: object, other: object) -> bool:
    """Equal but for what the number of threads does to the last bits of a score."""
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return one == (pytest.approx(other, abs=1e-9) if isinstance(other, float) else other)


def test_a_clip_model_is_judged_and_its_submission_has_the_same_figures(run: Run, made: Path) -> None:
    data, model = made / "youtube-vis", str(made / "clip.safetensors")
    options = [f"data.root={data}", "data.val.format=youtube-vis", "data.val.split=train", "--device", "cpu"]
    status, out, err = run("eval", model, *options, "--json")
    assert status == 0, err
    judged = json.loads(out)["instance"]
    folders = [str(folder) for folder in sorted((data / "train" / "JPEGImages").iterdir())]
    status, out, err = run("predict", model, *folders, "--submission", "youtube-vis", "--device", "cpu")
    assert status == 0, err
    assert f"{2 * FRAMES} images" in out and "youtube-vis saved to results/" in out
    assert [str(path) for path in Path("results").rglob("*")] == [
        "results/youtube-vis",
        "results/youtube-vis/results.json",
    ]
    rows = json.loads(Path("results/youtube-vis/results.json").read_text())
    assert {row["video_id"] for row in rows} == set(YoutubeVis(None, data / "train.json").video_ids.values())
    again = json.loads(json.dumps(ytvis_ap(data / "train.json", rows)))
    assert again == judged
    assert sum(row["predictions"] for row in judged["classes"].values()) == len(rows) > 5


def test_results_of_a_clip_model_are_those_of_a_tracked_video(run: Run, made: Path) -> None:
    frames = next((made / "youtube-vis" / "train" / "JPEGImages").iterdir())
    formats = "video,tracks,json,panoptic,step"
    status, _, err = run(
        "predict", f"{made / 'clip.safetensors'}", str(frames), "--formats", formats, "--device", "cpu"
    )
    assert status == 0, err
    rows = [json.loads(line) for line in Path("results/tracks.jsonl").read_text().splitlines()]
    assert [row["frame"] for row in rows] == [0, 5, 10]
    assert Path(f"results/{frames.name}_overlay.mp4").is_file()
    scores: dict[int, set[float]] = {}
    for row in rows:
        single = json.loads(Path(f"results/{row['name']}_segments.json").read_text())
        assert [s["track"] for s in single["segments"]] == [s["track"] for s in row["segments"]]
        for segment in row["segments"]:
            scores.setdefault(segment["track"], set()).add(segment["score"])
            mask = read_mask(segment["segmentation"], SIZE, "x")
            ys, xs = np.nonzero(unpack_mask(mask))
            assert segment["box"] == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            assert segment["area"] == len(xs)
    assert scores.keys() <= set(range(1, 11)) and all(len(values) == 1 for values in scores.values())
    ranked = [scores[track] for track in sorted(scores)]
    assert ranked == sorted(ranked, key=max, reverse=True)


def test_one_broken_video_does_not_stop_the_others(run: Run, made: Path, tmp_path: Path) -> None:
    for name, sizes in (("a", [64, 64]), ("b", [64, 80, 64]), ("c", [64])):
        (tmp_path / name).mkdir()
        for n, width in enumerate(sizes):
            Image.new("RGB", (width, 48), (90, 9 * n, 80)).save(tmp_path / name / f"{n:04d}.png")
    status, out, err = run(
        "predict", f"{made / 'clip.safetensors'}", "a", "b", "c", "--formats", "tracks", "--device", "cpu"
    )
    assert status == 2
    assert "'b': Frame 1 of the clip has (48, 80) pixels" in err and "1 failed" in out
    rows = [json.loads(line) for line in Path("results/tracks.jsonl").read_text().splitlines()]
    assert [(row["video"], row["frame"]) for row in rows] == [("a", 0), ("a", 1), ("c", 0)]


def test_mistakes_get_a_sentence(run: Run, made: Path, tmp_path: Path) -> None:
    def fails(words: str, *arguments: object) -> None:
        status, _, err = run(*map(str, arguments))
        assert status == 2 and words in err and "Traceback" not in err, err

    video, clip = made / "video.safetensors", made / "clip.safetensors"
    images = made / "youtube-vis" / "train" / "JPEGImages"
    folder = next(images.iterdir())
    fails("has other classes than the class table", "eval", clip, *step_of(made))
    fails(
        "The set of the format step has other classes than the class table",
        "eval",
        made.parent / tiny_file("panoptic", tmp_path),
        *step_of(made),
    )
    fails(
        "--unlinked is about what a model does",
        "eval",
        "--metric",
        "stq",
        "--truth",
        "a",
        "--predictions",
        "b",
        "--unlinked",
    )
    youtube = [f"data.root={made / 'youtube-vis'}", "data.val.format=youtube-vis", "data.val.split=train"]
    fails("option unlinked is for panoptic models", "eval", clip, *youtube, "--device", "cpu", "--unlinked")
    fails("a camera has no last one", "predict", clip, "0")
    fails("--track-memory is for models that track from frame to frame", "predict", clip, folder, "--track-memory", "9")
    Image.new("RGB", (64, 48)).save(tmp_path / "000000000001.png")
    photo = ("predict", clip, "000000000001.png", "--submission", "coco-instance")
    fails("makes the submission 'youtube-vis', not 'coco-instance'", *photo)
    submit = ("--submission", "youtube-vis", "--device", "cpu")
    fails("needs a model for clips", "predict", video, folder, *submit)
    (tmp_path / "loose").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "loose" / "0.png")
    fails("needs the ids of the videos, but there is no", "predict", clip, "loose", *submit)
    fails(f"has {FRAMES} frames in", "predict", clip, next(folder.iterdir()), *submit)
    stray = tmp_path / "data" / "train" / "JPEGImages" / "other"
    stray.mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(stray / "0.png")
    (tmp_path / "data" / "train.json").write_text((made / "youtube-vis" / "train.json").read_text())
    fails("lists no video 'other'", "predict", clip, stray, *submit)
    content = json.loads((made / "youtube-vis" / "train.json").read_text())
    content["categories"] = content["categories"][:3]
    del content["annotations"]
    (tmp_path / "data" / "train.json").write_text(json.dumps(content))
    fails("The model has other classes than", "predict", clip, stray, *submit)
    fails("Unknown submission 'youtube'; known are", "predict", video, folder, "--submission", "youtube")
    assert not (tmp_path / "results" / "youtube-vis").exists()
