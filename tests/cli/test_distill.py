"""docs/distill.md as a reader follows it, with tiny networks; and what `knet data label` says of bad input."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Run, runner
from PIL import Image

from knet.cli.main import build_parser
from knet.data.categories import load_categories
from knet.inference.load import describe
from knet.models.zoo import create
from knet.structures import Preprocessing
from knet.weights.load import save_weights
from tiny_models import tiny_file

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "distill.md"
TINY = [
    *("iterations=2", "batch=2", "workers=0", "precision=fp32", "device=cpu", "short_edge=64", "losses.pixels=64"),
    *("augment.short_edges=[64]", "augment.crop=[64, 64]"),
]


def page_blocks(kind: str) -> list[str]:
    """The page's code blocks of a kind, such as "sh"."""
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def page_commands() -> list[list[str]]:
    """The arguments of every `knet` command of the page, in its order."""
    lines = "\n".join(page_blocks("sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("knet ")]


def quick(arguments: list[str]) -> list[str]:
    """The same command on small pictures."""
    if arguments[0] == "train":
        return [*arguments, *TINY]
    return [*arguments, "--size", "64", "--score", "0.1"] if arguments[:2] == ["data", "label"] else arguments


def save_teacher(path: str) -> None:
    """A tiny K-Net of random weights with COCO's classes, in place of the one on Swin-L."""
    torch.manual_seed(0)
    stuff = tuple(range(80, 133))
    arguments = {
        "classes": 133,
        "stuff": stuff,
        "backbone": "timm/resnet10t",
        "stages": 1,
        "kernels": 6,
        "channels": 32,
    }
    name, classes = "knet-swinl-coco-panoptic", load_categories("coco_panoptic")
    net = create(name, **arguments)
    with torch.no_grad():
        bias = net.decoder.stages[-1].to_class[-1].bias.zero_()
        bias[[label for label, row in enumerate(classes) if row.name in ("road", "sky-other-merged")]] = 4.0
    card = describe(name, arguments, classes, Preprocessing(64, 128, antialias=False), 0.0, 0.1)
    save_weights(Path(path), net.state_dict(), card)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("data", ...)` in a folder with the page's frames -> exit status, what it printed, what it said of errors."""
    monkeypatch.chdir(tmp_path)
    demo = sorted((ROOT / "src/knet/assets/demo").glob("*.jpg"))
    for number, split in enumerate(("train", "train", "val")):
        folder = Path("fleet/images", split)
        folder.mkdir(parents=True, exist_ok=True)
        Image.open(demo[number]).resize((128, 96)).save(folder / f"{number}.png")
    return runner(capsys)


@pytest.mark.large
def test_the_commands_of_the_page_lead_from_frames_to_a_light_model(run: Run) -> None:
    Path("configs").symlink_to(ROOT / "configs")
    (renames,) = page_blocks("yaml")
    Path("map.yaml").write_text(renames)
    for arguments in page_commands():
        if arguments[0] == "convert":
            save_teacher(arguments[2])
            continue
        status, out, err = run(*quick(arguments))
        assert status == 0, f"knet {shlex.join(arguments)}\n{out}{err}"
        if arguments[:2] == ["data", "label"] and "map.yaml" in arguments:
            assert err.splitlines()[0] in PAGE.read_text()
    content = json.loads(Path("city/train/panoptic.json").read_text())
    assert len(content["images"]) == 2
    assert [row["name"] for row in content["categories"]] == [row.name for row in load_categories("cityscapes")]
    for made in ("fleet", "city"):
        assert Path("runs", made, "last.safetensors").is_file()
    assert [path.name for path in Path("results").iterdir()] == ["2_overlay.jpg"]


def test_panoptic_and_semantic_models_of_other_tables_label_together(run: Run, tmp_path: Path) -> None:
    panoptic, semantic = tiny_file("panoptic", tmp_path), tiny_file("semantic", tmp_path)
    more = ["--map", "pavement=sidewalk", "--score", "0", "--minimum-area", "0", "--scales", "1,0.5", "--json"]
    status, out, err = run("data", "label", semantic, panoptic, "fleet/images", "--output", "out", *more)
    assert status == 0, err
    made = json.loads(out)
    assert made["images"] == 3
    assert "never in the labels" in err
    status, out, err = run(
        *("data", "check", "--images", "fleet/images", "--panoptic", "out/panoptic.json", "--masks", "out/panoptic")
    )
    errors = [line for line in out.splitlines() if line.startswith("error: ")]
    assert all("no image has a segment" in line for line in errors), out  # random networks may agree nowhere
    status, _, err = run("data", "label", semantic, "fleet/images", "--output", "other")
    assert (status, err.count("\n")) == (2, 1)
    assert "objects apart" in err


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_labelled(run: Run) -> None:
    Path("fleet/images/train/0.png").write_bytes(b"no image")
    status, out, err = run(
        "data", "label", "rtknet-lite-street", "fleet/images/train", "--output", "out", "--size", "64"
    )
    assert status == 2
    assert "0.png" in err
    assert "1 image, " in out
    assert "1 failed" in out
    assert [row["file_name"] for row in json.loads(Path("out/panoptic.json").read_text())["images"]] == ["1.png"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rtknet-lite-street", "nowhere"], "nowhere does not exist"),
        (["rtknet-lite-stret", "fleet/images"], "did you mean 'rtknet-lite-street'"),
        (["rtknet-slim-cityscapes", "fleet/images"], "no published weights"),
        (["rtknet-lite-street", "fleet/images", "--classes", "ade20k", "--map", "Car=carr"], "'carr'"),
        (["rtknet-lite-street", "fleet/images", "--map", "Car"], "--map 'Car' is neither"),
        (["rtknet-lite-street", "fleet/images", "--agree", "0.5"], "more than 0.5"),
        (["rtknet-lite-street", "fleet/images", "--score", "2"], "between 0 and 1"),
        (["rtknet-lite-street", "fleet/images", "--scales", "0"], "must be numbers above 0"),
        (["rtknet-lite-street", "fleet/images", "--weights", "a", "--weights", "b"], "1 models but 2 --weights"),
    ],
)
def test_bad_usage_is_one_sentence(run: Run, arguments: list[str], words: str) -> None:
    status, out, err = run("data", "label", *arguments, "--output", "out")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert not Path("out").exists()


def test_models_that_cannot_vote(run: Run, tmp_path: Path) -> None:
    for task in ("instance", "clip"):
        status, _, err = run("data", "label", tiny_file(task, tmp_path), "fleet/images", "--output", "out")
        assert (status, err.count("\n")) == (2, 1)
        assert f"for {task} segmentation" in err


def test_words_that_are_no_scales(run: Run) -> None:
    status, _, err = run("data", "label", "rtknet-lite-street", "fleet/images", "--output", "out", "--scales", "big")
    assert status == 2
    assert "'big' is not a list of numbers" in err


def test_help_has_examples_that_are_understood(run: Run) -> None:
    status, out, _ = run("data", "label", "--help")
    assert status == 0
    for line in out.split("example:")[1].strip().splitlines():
        parsed = build_parser().parse_args(shlex.split(line)[1:])
        assert parsed.images == "frames"
    assert parsed.models == ["swinl.safetensors", "other.safetensors"]


def test_the_page_has_the_defaults_of_the_program() -> None:
    from knet.runs.label import LabelSettings

    text, settings = PAGE.read_text(), LabelSettings()
    for option, value in (("--score S", settings.score), ("--minimum-area N", settings.minimum_area)):
        assert f"| `{option}` | {value} |" in text
    assert np.isclose(settings.agree, 1)
