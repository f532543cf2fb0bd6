"""One image of many, of which a network says no finite numbers: it is named, and the others are done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Run, runner
from PIL import Image

import knet
from knet.cli.main import main
from knet.data.categories import load_table
from knet.errors import PredictionError
from knet.inference.engines.network import TorchEngine
from tiny_models import tiny_file

BAD = 2  # of the images 0 to 4


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line, in a folder with images/0.png to images/4.png; nothing finite is said of a white image."""
    monkeypatch.chdir(tmp_path)
    images(Path("images"))
    whole, look = TorchEngine.__call__, TorchEngine.look

    def spoilt(self: TorchEngine, inputs: torch.Tensor, *more: Any) -> Any:
        outputs = whole(self, inputs, *more)
        if inputs.mean() > 1.5:
            outputs[-1].mask_logits[0, 0, 0, 0] = float("nan")
            outputs[-1].kernels.fill_(float("inf"))
        return outputs

    def spoilt_look(self: TorchEngine, frame: torch.Tensor) -> Any:
        features, *others = look(self, frame)
        return (features * float("nan") if frame.mean() > 1.5 else features, *others)

    monkeypatch.setattr(TorchEngine, "__call__", spoilt)
    monkeypatch.setattr(TorchEngine, "look", spoilt_look)
    return runner(capsys)


def images(folder: Path, bad: int = BAD) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for n in range(5):
        image = np.full((32, 48, 3), 255, np.uint8) if n == bad else rng.integers(0, 160, (32, 48, 3), np.uint8)
        Image.fromarray(image).save(folder / f"{n}.png")


@pytest.mark.parametrize("task", ["panoptic", "instance", "semantic", "video"])
def test_predict_names_the_image_and_does_the_others(task: str, run: Run, tmp_path: Path) -> None:
    status, out, err = run("predict", tiny_file(task, tmp_path), "images", "--no-track", "--formats", "json")
    assert status == 2 and "4 images" in out and "1 failed" in out
    assert f"knet: 'images/{BAD}.png': What the network says of '{BAD}' is not finite" in err
    assert [path.name for path in sorted(Path("results").glob("*.json"))] == [
        f"{n}_segments.json" for n in range(5) if n != BAD
    ]


@pytest.mark.parametrize("task", ["panoptic", "video"])
def test_tracks_go_on_from_the_frame_before(task: str, run: Run, tmp_path: Path) -> None:
    model = tiny_file(task, tmp_path)
    status, out, err = run("predict", model, "images", "--track", "--formats", "tracks", "--json", "--score", "0")
    assert status == 2 and f"'images/{BAD}.png'" in err and len(json.loads(out)["failed"]) == 1
    rows = [json.loads(line) for line in Path("results/tracks.jsonl").read_text().splitlines()]
    assert [row["frame"] for row in rows] == [0, 1, 3, 4]
    Path(f"images/{BAD}.png").write_bytes(b"")  # what cannot be read leaves the same gap
    assert run("predict", model, "images", "--track", "--formats", "tracks", "--score", "0", "--output", "gap")[0] == 2
    assert Path("results/tracks.jsonl").read_text() == Path("gap/tracks.jsonl").read_text()


def test_the_first_frame_of_a_video_and_a_film(run: Run, tmp_path: Path) -> None:
    images(Path("second"), bad=0)
    status, out, _ = run("predict", tiny_file("video", tmp_path), "images", "second", "--formats", "video,tracks")
    rows = [json.loads(line) for line in Path("results/tracks.jsonl").read_text().splitlines()]
    assert status == 2 and "8 images" in out and "2 failed" in out
    assert [(row["video"], row["frame"]) for row in rows[4:]] == [("second", n) for n in range(1, 5)]


def test_one_clip_of_several(run: Run, tmp_path: Path) -> None:
    images(Path("second"), bad=9)
    status, out, err = run("predict", tiny_file("clip", tmp_path), "images", "second", "--formats", "tracks")
    assert status == 2 and "5 images" in out and "What the network says of 'images' is not finite" in err


def test_from_python(run: Run, tmp_path: Path) -> None:
    segmenter, said = knet.load(tiny_file("video", tmp_path)), list[Any]()
    assert [result.name for _, result in segmenter.track("images", on_error=said.append)] == ["0", "1", "3", "4"]
    assert isinstance(said[0], PredictionError)
    follow, names = segmenter.tracker(), []
    for n in range(5):
        try:
            names.append(follow(f"images/{n}.png").name)
        except PredictionError as error:
            assert "frame_000002" in str(error)
    assert names == [f"frame_00000{n}" for n in (0, 1, 3, 4)]


def test_a_submission_has_the_others(run: Run, tmp_path: Path) -> None:
    model = tiny_file("instance", tmp_path)
    for path in Path("images").iterdir():
        path.rename(path.with_name(f"00000000000{path.name}"))
    assert run("predict", model, "images", "--submission", "coco-instance", "--score", "0")[0] == 2
    (written,) = Path("results/coco-instance").rglob("*.json")
    assert {row["image_id"] for row in json.loads(written.read_text())} <= {0, 1, 3, 4}


def test_labels_have_the_others(run: Run, tmp_path: Path) -> None:
    status, out, err = run("data", "label", tiny_file("panoptic", tmp_path), "images", "--output", "out")
    assert status == 2 and f"What the network says of '{BAD}.png' is not finite" in err and "1 failed" in out
    rows = json.loads(Path("out/panoptic.json").read_text())["images"]
    assert [row["file_name"] for row in rows] == [f"{n}.png" for n in range(5) if n != BAD]


def test_an_evaluation_counts_it_as_if_nothing_had_been_found(run: Run, tmp_path: Path) -> None:
    model = tiny_file("panoptic", tmp_path)
    Path("labels").mkdir()
    segmenter = knet.load(model)
    results = [segmenter(f"images/{n}.png", score=0.0) for n in range(5) if n != BAD]
    usual = max((s for found in results for s in found.segments), key=lambda s: s.area).category
    label, table = [category.id for category in segmenter.categories].index(usual), load_table("camvid")
    for n in range(5):
        Image.fromarray(np.full((32, 48), table.label_values[label], np.uint8)).save(f"labels/{n}.png")
    data = ["data.val.images=images", "data.val.labels=labels", "data.val.categories=camvid"]
    status, out, err = run("eval", model, *data, "--score", "0", "--json", "--output", "figures")
    assert status == 2 and f"'{BAD}' is not finite" in err and "as if nothing had been found" in err
    found = json.loads(out)
    assert found["not_finite"] == [str(BAD)]
    right = sum(int((result.semantic_map() == usual).sum()) for result in results)
    (row,) = (row for row in found["semantic"]["classes"].values() if row["name"] == table.categories[label].name)
    assert row["iou"] == pytest.approx(right / (5 * 32 * 48))  # nothing else is there, so all of it is the union
    assert [path.name for path in sorted(Path("figures").iterdir())] == ["semantic.csv", "semantic.json"]


def test_a_loss_of_memory_for_one_image_is_no_end_either(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(self: Any, inputs: Any, *more: Any) -> Any:
        raise MemoryError

    model = tiny_file("semantic", tmp_path)
    monkeypatch.setattr(TorchEngine, "__call__", too_large)
    assert main(["predict", str(model), "images/0.png", "images/1.png"]) == 2
