"""The command line as a user has it: from label images to a trained model's pictures, and every mistake on the way."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import yaml
from command_line import Run, runner
from PIL import Image

import knet


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("predict", ...)` in an empty folder -> exit status, what it printed, what it said of errors."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return runner(capsys)


def film(path: Path, frames: int = 3) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for n in range(frames):
            picture = np.full((48, 64, 3), 8 * n, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_from_labels_to_training_to_evaluation_to_pictures(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{i}.png")
        labels = np.full((48, 64), 3, np.uint8)  # road
        labels[10:20, 10:30] = 8  # car
        labels[:4] = 11  # unlabelled
        Image.fromarray(labels).save(tmp_path / "labels" / f"{i}.png")

    status, out, _ = run(
        *("data", "from-labels", "--images", tmp_path / "images", "--labels", tmp_path / "labels"),
        *("--classes", "camvid", "--output", "set"),
    )
    assert status == 0
    assert "3 images" in out
    assert "connected components" in out.lower() or "components" in out
    assert not Path("set/.part").exists()

    files = {"images": str(tmp_path / "images"), "json": "set/panoptic.json", "masks": "set/panoptic"}
    config = {
        "model": "rtknet-slim-camvid",
        "arguments": {"width": 8, "head_width": 16, "channels": 16, "kernels": 6, "stages": 2},
        "data": {"categories": "camvid", "train": files, "val": files},
        "augment": {"short_edges": [48], "crop": [32, 32]},
        "short_edge": 48,
        "iterations": 2,
        "batch": 2,
        "workers": 0,
        "output": "run",
    }
    Path("config.yaml").write_text(yaml.safe_dump(config))
    status, out, err = run("train", "config.yaml", "optimizer.learning_rate=1e-3")
    assert status == 0, err
    assert "iteration 2/2" in out
    assert "run folder: run" in out

    status, out, err = run("eval", "config.yaml", "--weights", "run/best.safetensors", "--output", "figures")
    assert status == 0, err
    assert "PQ" in out
    assert "Pedestrian" in out
    report = json.loads(Path("figures/panoptic.json").read_text())
    assert set(report) == {"all", "things", "stuff", "classes"}
    assert Path("figures/semantic.csv").is_file()
    keys = [f"data.val.{key}={value}" for key, value in files.items()]
    status, out, err = run("eval", "run/best.safetensors", *keys, "--json")
    assert status == 0, err
    assert json.loads(out)["panoptic"] == report

    status, out, err = run(
        "predict", "run/best.safetensors", tmp_path / "images", "--formats", "overlay,panoptic,semantic"
    )
    assert status == 0, err
    assert "3 images" in out
    status, out, err = run(
        *("eval", "--metric", "pq", "--truth", "set/panoptic.json", "--predictions", "results/panoptic.json"), "--json"
    )
    # Results and truth call their PNGs differently; the folder beside the JSON is found by its files.
    assert status == 0, err


def test_predict_images_folders_patterns_and_videos(run: Run, tiny_weights: Path, street: Path) -> None:
    folder = street.parent
    film(folder / "drive.mp4")
    shutil.copy(street, folder / "second.jpg")
    formats = "overlay,panoptic,instances,semantic,json,video"
    status, out, err = run(
        "predict", tiny_weights, street, folder / "s*.jpg", folder / "drive.mp4", "--formats", formats
    )
    assert status == 0, err
    assert "5 images" in out
    assert "0 failed" in out
    made = {path.name for path in Path("results").iterdir()}
    assert {"street_overlay.jpg", "street_panoptic.png", "second_instances.png", "street_semantic.png"} <= made
    assert {"street_segments.json", "panoptic.json", "drive_overlay.mp4", "drive_000002_overlay.jpg"} <= made
    content = json.loads(Path("results/panoptic.json").read_text())
    assert len(content["annotations"]) == 5
    with av.open("results/drive_overlay.mp4") as container:
        assert sum(1 for _ in container.decode(video=0)) == 3
    status, out, _ = run("predict", tiny_weights, folder / "drive.mp4", "--output", "film")
    assert status == 0
    assert [path.name for path in Path("film").iterdir()] == ["drive_overlay.mp4"]


def test_a_broken_image_does_not_stop_the_others(run: Run, tiny_weights: Path, street: Path) -> None:
    for name, content in (("empty.jpg", b""), ("cut.jpg", street.read_bytes()[:400]), ("text.png", b"hello")):
        (street.parent / name).write_bytes(content)
    status, out, err = run("predict", tiny_weights, street.parent)
    assert status == 2
    assert "1 image, " in out
    assert "3 failed" in out
    for name in ("empty.jpg", "cut.jpg", "text.png"):
        assert name in err
    assert "Traceback" not in err
    left = {".knet-predict.jsonl", "failed_images.txt", "street_overlay.jpg"}  # the first is for --resume
    assert {path.name for path in Path("results").iterdir()} == left


def test_predict_prints_json(run: Run, tiny_weights: Path, street: Path) -> None:
    status, out, _ = run("predict", tiny_weights, street, "--json", "--score", "0.0", "--size", "32")
    assert status == 0
    result = json.loads(out)["results"][0]
    assert {"category", "name", "score", "area", "box"} <= result["segments"][0].keys()


def test_a_submission_to_a_test_server(run: Run, official_checkpoint: Any, street: Path, goldens: Any) -> None:
    weights = official_checkpoint("manifest_cityscapes_slim.json", 3)
    image = street.with_name("berlin_000000_000019_leftImg8bit.jpg")
    shutil.copy(street, image)
    command = ("predict", "rtknet-slim-cityscapes", image, "--weights", weights, "--size", "64", "--submission")
    for kind in ("semantic", "instance", "panoptic"):
        status, out, err = run(*command, f"cityscapes-{kind}")
        assert status == 0, err
        assert f"cityscapes-{kind} saved to results/" in out
    made = {str(path.relative_to("results")) for path in Path("results").rglob("*") if path.is_file()}
    assert "cityscapes-semantic/berlin_000000_000019.png" in made
    assert "cityscapes-instance/berlin_000000_000019.txt" in made
    assert "cityscapes-panoptic/panoptic.json" in made
    assert not [name for name in made if "overlay" in name]
    fails(
        run("predict", "rtknet-slim-cityscapes", street, "--submission", "cityscapes-semantic"),
        2,
        "'street' is no name",
    )
    case = goldens / "metrics" / "cityscapes_instance_ap_a"
    status, out, err = run(
        "eval", "--metric", "ap", "--truth", case / "gtFine" / "val", "--predictions", case / "results"
    )
    assert status == 0, err
    assert "18.4" in out  # the official evaluator's 0.18440


def test_models_and_convert(run: Run, official_checkpoint: Any) -> None:
    status, out, _ = run("models", "rtknet-*")
    assert status == 0
    assert {"rtknet-cityscapes", "rtknet-mapillary", "rtknet-slim-cityscapes"} <= {
        line.split()[0] for line in out.splitlines()
    }
    status, out, _ = run("models", "*mapillary*", "--json")
    assert [row["name"] for row in json.loads(out)] == ["rtknet-mapillary"]
    assert run("models", "nothing*")[0] == 2
    path = official_checkpoint("manifest_cityscapes_slim.json", 3)
    status, out, err = run("convert", path, "slim.safetensors", "--model", "rtknet-slim-cityscapes")
    assert status == 0, err
    assert "19 classes" in out
    assert Path("slim.safetensors").is_file()


@pytest.mark.large
def test_every_model_is_listed(run: Run) -> None:
    status, out, _ = run("models", "--json")
    assert status == 0
    assert {row["name"] for row in json.loads(out)} == set(knet.models())


def fails(result: tuple[int, str, str], status: int, *words: str) -> None:
    """Exit status, one sentence that has these words, and no traceback."""
    assert result[0] == status, result
    assert "Traceback" not in result[2]
    for word in words:
        assert word in result[2], result[2]


def test_mistakes_of_usage_get_a_sentence_and_status_2(
    run: Run, tiny_weights: Path, street: Path, tmp_path: Path
) -> None:
    fails(run(), 2, "VERB")
    fails(run("predict"), 2, "MODEL")
    fails(run("predict", "rtknet-cityscape", street), 2, "did you mean 'rtknet-cityscapes'")
    fails(run("predict", "rtknet-slim-cityscapes", street), 2, "no published weights")
    fails(run("predict", tiny_weights, "nowhere.jpg"), 2, "nowhere.jpg")
    fails(run("predict", tiny_weights, "*.jpg"), 2, "*.jpg")
    fails(run("predict", tiny_weights, street, "--formats", "overlai"), 2, "did you mean 'overlay'")
    fails(run("predict", tiny_weights, street, "--score", "7"), 2, "score threshold 7")
    fails(run("predict", tiny_weights, street, "--size", "big"), 2, "'big'")
    fails(run("predict", tiny_weights, street, "--device", "quantum"), 2, "quantum")
    fails(run("predict", tmp_path / "no.safetensors", street), 2, "no.safetensors")
    fails(run("train", "no.yaml"), 2, "no.yaml")
    fails(run("eval"), 2, "Give a config or a model")
    fails(run("eval", "--metric", "pq"), 2, "--truth")
    fails(run("eval", "--metric", "miou", "--truth", "a", "--predictions", "b"), 2, "--classes")
    fails(run("convert", tiny_weights, "out.safetensors", "--model", "rtknet-cityscapes"), 2, "made for")
    fails(run("data"), 2, "JOB")
    fails(
        run("data", "from-labels", "--images", "a", "--labels", "b", "--classes", "camvi", "--output", "o"), 2, "camvid"
    )
    assert not Path("results").exists()


def test_an_unreadable_video(run: Run, tiny_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video at all" * 50)
    cut = film(tmp_path / "cut.mp4", 30)
    cut.write_bytes(cut.read_bytes()[:300])
    fails(run("predict", tiny_weights, tmp_path / "bad.mp4", cut), 2, "bad.mp4", "cut.mp4")
    assert not list(Path("results").glob("*"))


def test_a_checkpoint_with_code_inside(run: Run, street: Path, tmp_path: Path) -> None:
    proof = tmp_path / "was_run"

    class Attack:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {proof}",)

    torch.save({"model": Attack()}, tmp_path / "attack.pth")
    fails(
        run("predict", "rtknet-cityscapes", street, "--weights", tmp_path / "attack.pth"),
        2,
        "attack.pth",
        "could run code",
    )
    assert not proof.exists()


def test_a_data_set_whose_png_and_json_disagree(run: Run, tiny_weights: Path, street: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.full((64, 96, 3), 7, np.uint8)).save(tmp_path / "masks" / "street.png")
    content = {
        "images": [{"id": 1, "file_name": street.name, "height": 64, "width": 96}],
        "annotations": [{"image_id": 1, "file_name": "street.png", "segments_info": [{"id": 5, "category_id": 4}]}],
        "categories": [],
    }
    (tmp_path / "gt.json").write_text(json.dumps(content))
    keys = [
        f"data.val.images={tmp_path}",
        f"data.val.json={tmp_path / 'gt.json'}",
        f"data.val.masks={tmp_path / 'masks'}",
    ]
    fails(run("eval", tiny_weights, *keys), 2, "street.png", "gt.json")


def test_an_output_that_cannot_be_written(run: Run, tiny_weights: Path, street: Path) -> None:
    Path("file").write_text("in the way")
    fails(run("predict", tiny_weights, street, "--output", "file/results"), 1, "file/results")


def test_a_full_disk_leaves_nothing_that_looks_whole(tiny_weights: Path, street: Path, tmp_path: Path) -> None:
    """A file-size limit stands in for a full disk."""
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(street)
    code = (
        "import resource, sys; from knet.cli.main import main; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
        f"sys.exit(main(['predict', {str(tiny_weights)!r}, {str(street)!r}, '--output', {str(tmp_path / 'out')!r}]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "Cannot write" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list((tmp_path / "out").iterdir())


def test_every_verb_has_help_with_an_example(run: Run) -> None:
    for verb in ("predict", "train", "eval", "convert", "models", "data", "demo"):
        status, out, _ = run(verb, "--help")
        assert status == 0
        assert "example:" in out
    assert run("--version")[1].startswith("knet ")
