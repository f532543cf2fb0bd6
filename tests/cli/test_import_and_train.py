"""From a tool's export to pictures in three commands: import, train with options that are chosen, predict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from command_line import Run, runner
from PIL import Image

import knet
from drawn_exports import EXPORTS, scenes
from knet.config import RunConfig
from knet.data.categories import load_categories
from knet.errors import ConfigError
from knet.models.zoo import create
from knet.runs.build import load_first, run_card
from knet.runs.choose import choose
from knet.structures import Category

TINY = [
    *("arguments={channels: 16, kernels: 8, stages: 1, hidden: 16}", "weights=null", "iterations=2", "batch=2"),
    *("workers=0", "device=cpu", "short_edge=64", "max_edge=96", "augment.short_edges=[64]", "augment.crop=[64, 64]"),
]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return runner(capsys)


def imported(run: Run, form: str = "yolo", *options: str) -> None:
    Path("own").mkdir()
    EXPORTS[form](Path("own"), scenes())
    status, out, err = run("data", "import", "own", "--output", "mine", *options)
    assert status == 0 and "knet:" not in err, err
    assert "train on it with: knet train mine" in out


# One of each kind here, all in `make test-all`.
SOME = ("yolo", "color_masks")


@pytest.mark.parametrize(
    "form", [pytest.param(form, marks=[] if form in SOME else [pytest.mark.large]) for form in EXPORTS]
)
def test_every_export_is_imported_checked_trained_and_predicts(run: Run, form: str) -> None:
    imported(run, form)
    kind = "panoptic" if form == "color_masks" else "instances"
    files = ["--images", "mine/images/val", f"--{kind}", f"mine/val/{kind}.json"]
    status, out, err = run("data", "check", *files, *(["--masks", "mine/val/panoptic"] if kind == "panoptic" else []))
    assert status == 0 and "nothing wrong" in out, out + err
    status, out, err = run("train", "mine", *TINY)
    assert status == 0, err
    assert "output=runs/mine: named after the data set" in out
    saved = yaml.safe_load(Path("runs/mine/config.yaml").read_text())
    assert saved["iterations"] == 2 and saved["data"]["val"]["images"] == "images/val"
    picture = next(Path("mine/images/val").glob("*.jpg"))
    status, out, err = run("predict", "runs/mine/best.safetensors", picture, "--output", "results", "--formats", "json")
    assert status == 0, err
    assert list(Path("results").glob("*.json"))


def test_options_follow_from_the_data_and_each_has_a_reason(run: Run) -> None:
    imported(run)
    status, out, err = run("train", "mine", "--print", "batch=16")
    assert status == 0, err
    config = yaml.safe_load(out)
    assert (config["model"], config["weights"]) == ("rtknet-lite-coco-instance", "rtknet-lite-street")
    assert config["batch"] == 16 and config["optimizer"]["for_batch"] == 8
    choice = choose("mine", {"device": "cpu"})
    said = {line.partition("=")[0].partition(":")[0]: line for line in choice.reasons}
    chosen = {"model", "weights", "short_edge", "augment.crop", "arguments.kernels", "iterations", "batch", "output"}
    assert chosen | {"optimizer.learning_rate", "optimizer.warmup", "workers", "precision"} <= said.keys()
    assert all(": " in line for line in choice.reasons)
    assert "images are about 64x48 pixels" in said["short_edge"]


def test_options_of_other_data_are_others(run: Run) -> None:
    Path("own").mkdir()
    EXPORTS["color_masks"](Path("own"), scenes(4, (700, 500)))
    table = Path("own/class_dict.csv")
    table.write_text(
        table.read_text("utf-8-sig").replace("box", "Car").replace("disc", "Turn left").replace("floor", "Road")
    )
    assert run("data", "import", "own", "--output", "mine", "--things", "Car")[0] == 0
    config = choose("mine", {"device": "cpu"}).config
    assert config.model == config.weights == "rtknet-lite-street"
    assert config.short_edge == 512 and config.augment is not None
    assert config.augment.crop is not None and config.augment.crop[0] > config.augment.crop[1]  # pictures stand upright
    assert not config.augment.flip
    table.write_text(table.read_text().replace("Turn left", "Pole"))
    assert run("data", "import", "own", "--output", "streets")[0] == 0
    streets = choose("streets", {"device": "cpu"}).config
    assert streets.augment is not None and streets.augment.flip
    assert streets.optimizer.learning_rate < config.optimizer.learning_rate  # the weights know these classes


def test_many_segments_get_more_kernels_and_those_that_are_learned_are_kept(run: Run) -> None:
    Path("own").mkdir()
    EXPORTS["yolo"](Path("own"), scenes())
    label = next(Path("own/train/labels").iterdir())
    corners = [(x / 10, y / 8) for x in range(9) for y in range(7)]
    label.write_text("".join(f"0 {x} {y} {x + 0.08} {y} {x + 0.08} {y + 0.1} {x} {y + 0.1}\n" for x, y in corners))
    assert run("data", "import", "own", "--output", "mine")[0] == 0
    config = choose("mine", {"device": "cpu"}).config
    assert config.arguments == {"kernels": 80}
    card = run_card(config, [Category(1, "box", True, (0, 0, 0)), Category(2, "disc", True, (9, 9, 9))])
    net, bundled = create(config.model, **card.arguments), create("rtknet-lite-street")
    said = load_first(net, config, card)
    assert said.endswith("16 of the 80 kernels start anew")
    whole = RunConfig.model_validate(
        {"model": "rtknet-lite-street", "weights": "rtknet-lite-street", "data": {"val": None}}
    )
    load_first(bundled, whole, run_card(whole, load_categories("camvid")))
    assert torch.equal(net.state_dict()["decoder.kernels"][:64], bundled.state_dict()["decoder.kernels"])


def test_a_folder_that_is_no_data_set(run: Run) -> None:
    Path("own").mkdir()
    EXPORTS["yolo"](Path("own"), scenes())
    status, out, err = run("train", "own")
    assert (status, out) == (2, "")
    assert "make one with: knet data import own --output DIR" in err
    with pytest.raises(ConfigError, match="make one with: knet data import own"):
        knet.train("own")


def spoil_validation(kind: str) -> None:
    path = Path("mine/val/instances.json")
    content = json.loads(path.read_text())
    if kind == "empty":
        content["annotations"] = []
    else:
        content["categories"][0]["name"] = "crate"
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("spoil", "options", "sentence"),
    [
        (lambda: spoil_validation("empty"), [], "The validation data has nothing to judge"),
        (lambda: spoil_validation("classes"), [], "crate"),
        (lambda: Path("mine/images/train/000.jpg").write_bytes(b""), ["skip_images=0"], "000.jpg cannot be read"),
        (
            lambda: None,
            ["model=rtknet-lite-street"],
            "is for panoptic segmentation; to evaluate it, give COCO panoptic",
        ),
        (lambda: Path("mine/images/train/000.jpg").unlink(), [], "000.jpg"),
        (lambda: Image.fromarray(np.zeros((9, 9), np.uint8)).save("mine/images/val/004.jpg"), ["skip_images=0"], "9x9"),
    ],
    ids=["no objects", "other classes", "unreadable", "other task", "missing", "other size"],
)
def test_what_can_be_known_is_said_before_the_first_iteration(
    run: Run, spoil: object, options: list[str], sentence: str
) -> None:
    imported(run)
    spoil()  # type: ignore[operator]
    status, out, err = run("train", "mine", *TINY, *options)
    assert status == 2 and sentence in err, out + err
    assert "iteration" not in out.split("output=")[-1]
    assert not Path("runs/mine/last.safetensors").exists() and not Path("runs/mine/state.pt").exists()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("batch=0", "The option 'batch' in the config cannot be 0"),
        ("batch=-3", "The option 'batch' in the config cannot be -3"),
        ("arguments=3", "The option 'arguments' in the config cannot be 3"),
        ("weights=5", "The option 'weights' in the config cannot be 5: input should be a valid string."),
        ("epochs=100", "Unknown option 'epochs' in the config; did you mean 'iterations'?"),
        ("imgsz=640", "Unknown option 'imgsz' in the config; did you mean 'short_edge'?"),
    ],
)
def test_wrong_options_beside_those_that_are_chosen(run: Run, override: str, sentence: str) -> None:
    imported(run)
    status, _, err = run("train", "mine", override, "--print")
    assert status == 2 and sentence in err and err.count("The option") + err.count("Unknown option") == 1


def test_an_export_is_no_config(run: Run) -> None:
    imported(run)
    for path in ("own/data.yaml", "mine/train/instances.json"):
        status, _, err = run("train", path)
        assert status == 2 and f"make a data set of it with: knet data import {path} --output DIR" in err


def test_the_folder_of_a_run_stands_for_its_weights_and_its_data(run: Run) -> None:
    imported(run)
    status, _, err = run("train", "mine", *TINY)
    assert status == 0, err
    weights = "runs/mine/best.safetensors"
    status, expected, err = run("eval", "runs/mine/config.yaml", "--weights", weights)
    assert status == 0, err
    for target in ("runs/mine", weights, "runs/mine/config.yaml"):
        assert run("eval", target)[:2] == (0, expected)
    assert list(knet.evaluate("runs/mine")) == ["instance"]
    status, _, err = run("eval", "runs/mine", "data.root=nowhere")
    assert status == 2 and "nowhere/val/instances.json does not exist" in err
    status, _, err = run("predict", "runs/mine", "mine/images/val", "--output", "results")
    assert status == 0 and list(Path("results").glob("*_overlay.jpg")), err


def test_what_was_imported_is_checked_by_its_folder(run: Run) -> None:
    imported(run)
    status, out, _ = run("data", "check", "mine")
    assert status == 0 and "mine/train/instances.json: 4 images" in out and "mine/val/instances.json: 2 images" in out
    next(Path("mine/images/train").iterdir()).unlink()
    assert run("data", "check", "mine")[0] == 2
    status, _, err = run("data", "check", "own")
    assert status == 2 and "'own' is no folder that `knet data import` made" in err
    status, _, err = run("data", "check", "citiscapes", "own")
    assert status == 2 and "did you mean 'cityscapes'?" in err
