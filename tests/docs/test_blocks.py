"""Every block of every document is run: as it stands, or as small as its row in the table of its page makes it."""

from __future__ import annotations

import itertools
import json
import logging
import re
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from pages import COMMANDS, ROOT, Change, Reader, agrees, blocks_of, commands_in, shapes, synopsis
from town import build, run, served_weights, shrink_the_zoo

import knet
from knet.runs.choose import choose

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

# What every command of a verb gets as well. A page's own options stay, but for those that it shares with these.
_CROP = "augment.short_edges=[64] augment.crop=[64,64] augment.pad=null augment.max_edge=256"
_RUN = "iterations=1 batch=2 workers=0 log_every=1 validate_every=1 precision=fp32 short_edge=64 max_edge=128"
SMALL = {"train": f"{_RUN} losses.pixels=64 {_CROP}"}
_WORDS = [word.partition("=") for word in SMALL["train"].split()]
FOR_PYTHON = {key.replace(".", "__"): yaml.safe_load(value) for key, _, value in _WORDS}


def synth(form: str, folder: str, images: int) -> None:
    """A data set as `knet data synth` draws it."""
    run("data", "synth", form, folder, "--images", str(images), "--size", "256x512", "--seed", "1")


def synth_and_prepare() -> None:
    """A small set of the page's before it is made there."""
    synth("cityscapes", "synthetic", 4)
    run("data", "prepare", "cityscapes", "synthetic")


def compare_reasons(_: dict[str, Any], text: str) -> None:
    """Reasons are printed for what is chosen, and figures have the names that are shown."""
    reasons, _, figures = text.partition("...\n")
    chosen = choose("data/parts", []).reasons
    assert set(shapes(reasons)) <= set(shapes("\n".join(chosen))), chosen
    columns = Path("runs/parts/val.csv").read_text().splitlines()[0].split(",")
    assert set(re.findall(r"[a-z]\w+", figures)) <= set(columns), columns


def forget_labels() -> None:
    """Leaves data/camvid/val to be made."""
    Path("data/camvid/val/panoptic.json").unlink()
    shutil.rmtree("data/camvid/val/panoptic")


def lose_an_image() -> None:
    """Deletes an image of the validation set."""
    next(Path("synthetic/leftImg8bit/val").rglob("*.png")).unlink()


def train_parts() -> None:
    """The run of custom-data.md."""
    run("data", "import", "exports/yolo", "--output", "data/parts", "--val", "0.2")
    run("train", "data/parts", "output=runs/parts", *SMALL["train"].split())


def convert_video() -> None:
    """Weights under the name that they have on the page before they are made there."""
    run("convert", "video_knet_step_r50.pth", "video-knet-r50.safetensors", "--model", "video-knet-r50-kitti-step")
    Path("video-knet-r50.safetensors").rename("before.safetensors")
    Path("before.safetensors").rename("video-knet-r50.safetensors")


def draw_clips() -> None:
    """Clips of the yard's boxes, each with its folder."""
    for kind in ("images", "labels", "instances"):
        for split in ("train", "val"):
            shutil.copytree(Path("yard", kind, split), Path("clips", kind, split, "walk"))
    shutil.copy("yard/classes.json", "clips/classes.json")


def fake_opencv() -> None:
    """A camera of OpenCV that gives three frames."""
    frames = iter([(True, np.zeros((64, 96, 3), np.uint8))] * 3)
    times = itertools.count(0, 40)
    camera = SimpleNamespace(read=lambda: next(frames, (False, None)), get=lambda _: next(times))
    sys.modules["cv2"] = SimpleNamespace(  # type: ignore[assignment]
        VideoCapture=lambda _: camera, CAP_PROP_POS_MSEC=0, imshow=lambda *_: None, waitKey=lambda _: 0
    )


def call_ros(names: dict[str, Any], _: str) -> None:
    """A message reaches the node."""
    del sys.modules["cv2"]
    names["follow"].reset()
    bridge = SimpleNamespace(imgmsg_to_cv2=lambda *_: np.zeros((64, 96, 3), np.uint8))
    stamp = SimpleNamespace(sec=1, nanosec=5)
    node = SimpleNamespace(bridge=bridge, follow=names["follow"])
    names["on_image"](node, SimpleNamespace(header=SimpleNamespace(stamp=stamp)))


def compare_tracks(_: dict[str, Any], text: str) -> None:
    """The shown line of tracks.jsonl has the keys of the real one."""
    shown = json.loads(text.replace(", ...]", "]"))
    made = json.loads(Path("results/tracks.jsonl").read_text().splitlines()[0])
    assert list(shown) == list(made), list(made)
    assert list(shown["segments"][0]) in [list(segment) for segment in made["segments"]], made["segments"][:1]


# All commands that are not run, by a part of them, and why.
NOT_RUN = {
    "pip install": "needs the net",
    "make ": "works on the checkout, for minutes or hours",
    "python benchmarks/": "needs a whole data set",
    "s3://": "needs a bucket",
    "knet batch": "starts a cluster: tests/apps/test_batch.py",
    "--serve": "serves until it is ended: tests/apps/test_page_in_browser.py",
}

# Blocks without a language that show no output, but names of files or a drawing.
NO_OUTPUT = (
    *("image -> backbone", "load_image   ", "src/knet/\n", "yard/images/train/000.jpg  ", "leftImg8bit/{train"),
    *("vistas/{training", "kitti-step/training/image_02", "clips/images/train/walk"),
)

MIXTURE = "knet train mixture.yaml model=rtknet-lite-street output=runs/mixture"

CHANGES: dict[str, list[Change]] = {
    "README": [
        Change("knet export", more="--size 64x128 --images street.jpg"),
        Change("knet data from-labels", before=forget_labels),
    ],
    "custom-data": [
        Change("short_edge=128: images", call=compare_reasons),
        Change("knet export runs/parts", more="--size 64x128 --images street.jpg"),
    ],
    "datasets": [
        Change("knet data prepare cityscapes synthetic", before=partial(synth, "cityscapes", "synthetic", 20)),
        Change("knet data prepare mapillary vistas", before=partial(synth, "mapillary", "vistas", 8)),
        Change("knet data check cityscapes synthetic", before=lose_an_image, status=2),
        Change("knet data synth cityscapes synthetic", before=partial(shutil.rmtree, "synthetic")),
    ],
    "distill": [
        Change("pavement-merged", file="map.yaml"),
        Change("knet data label swinl", more="--size 64 --score 0.1"),
    ],
    "export": [
        Change("--weights W", swap={"W": "youtube_vis.pth"}, more="--size 64x128 --images CLIP_FOLDER"),
        Change("--precision int8", more="--size 64x128 --images street.jpg"),
        Change("--format tensorrt", more="--images street.jpg"),
        Change("knet export rtknet-lite-street", more="--size 64x128 --images street.jpg photos"),
    ],
    "mixtures": [
        Change("root: data", file="mixture.yaml", then=(MIXTURE,)),
    ],
    "models": [
        Change("knet convert upernet.pth", swap={"channels=256": "channels=24"}),
        Change("--weights W", swap={"W": "ade20k.pth"}),
    ],
    "predict": [Change("knet predict runs/parts", before=train_parts)],
    "training": [
        Change("batch=auto", more="batch=auto output=runs/auto"),
        Change("batch=4 workers=1", before=synth_and_prepare),
        Change("torchrun", more="output=runs/torchrun"),
        Change("srun", more="output=runs/slurm"),
        Change("knet data synth cityscapes synthetic", before=partial(shutil.rmtree, "synthetic")),
    ],
    "video": [
        Change('"video": "drive"', call=compare_tracks),
        Change("import cv2", before=fake_opencv),
        Change("def on_image", call=call_ros),
        Change("--track-classes car", status=2),
        Change("video-knet-r50.safetensors step-data/images", before=convert_video),
        Change("configs/custom.yaml model=rt-video", before=draw_clips, more="weights=null freeze_norms=null"),
    ],
}


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that each page gets a copy of."""
    folder = tmp_path_factory.mktemp("town")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        shrink_the_zoo(monkeypatch)
        build()
        with served_weights(tmp_path_factory.mktemp("served"), monkeypatch):
            yield folder


@pytest.mark.large
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_page_runs(page: Path, town: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(town, tmp_path / "town", symlinks=True)
    monkeypatch.chdir(tmp_path / "town")
    monkeypatch.setenv("KNET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KNET_OFFLINE", "0")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    monkeypatch.setattr(knet, "read_config", partial(knet.read_config, **FOR_PYTHON))
    monkeypatch.setattr(knet, "export", partial(knet.export, size=(64, 128)))
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)  # there is one already here
    reader = Reader(page, CHANGES.get(page.stem, []), SMALL, NOT_RUN, NO_OUTPUT)
    reader.follow()
    assert not reader.faults, "\n\n".join(reader.faults)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_tables_are_of_blocks_that_there_are(page: Path) -> None:
    blocks = blocks_of(page)
    assert {block.kind for block in blocks} <= {"sh", "console", "text", "python", "py", "yaml", "json", ""}
    assert page.read_text().count("```") == 2 * len(blocks)
    commands = [command for block in blocks if block.kind in COMMANDS for command, _ in commands_in(block)]
    parts = [*commands, *(block.text for block in blocks)]
    for change in CHANGES.get(page.stem, []):
        assert any(change.at in part for part in parts), change.at
    for command in commands:
        first = command.split()[0]
        assert first in ("knet", "torchrun", "srun") or any(part in command for part in NOT_RUN), command


def test_nothing_is_excused_that_is_not_there() -> None:
    text = "".join(page.read_text() for page in PAGES)
    assert not [part for part in (*NOT_RUN, *NO_OUTPUT) if part not in text]


TABLE = """class    PQ  TP   N
-------------------
Road   96.4  12   -
Car     7.4   3   -
-------------------
all    51.9   -   2
"""


def test_outputs_agree_whatever_their_numbers_classes_and_widths() -> None:
    other = TABLE.replace("96.4", " 100.0").replace("Car     7.4   3   -\n", "Pole  7.4e-05  3  -\nsky  0.0  0  -\n")
    assert agrees(TABLE, other)
    assert agrees("...\nall    51.9   -   2\n", other)
    assert agrees("7 images, 26 ms each, ... saved to out/\n", "1,200 images, 4.5 ms each, step, mots saved to out/\n")
    assert agrees("city: 3 segments (Car, Road)\n", "city: 12 segments (Sky)\n")


@pytest.mark.parametrize(
    "old",
    [
        TABLE.replace("PQ", "SQ"),
        TABLE.replace("  N\n", "\n").replace("  -\n", "\n").replace("  2\n", "\n"),
        TABLE.replace("all ", "mean"),
        TABLE + "things  3.4  -  2\n",
        TABLE.removesuffix("all    51.9   -   2\n"),
    ],
)
def test_outputs_of_another_form_do_not_agree(old: str) -> None:
    assert not agrees(old, TABLE)


def test_usage_lines_are_compared_with_the_parser() -> None:
    options = "--help --format --output --json and all others"
    faults = synopsis("export MODEL --format onnx|openvino [--outptu FILE] [--json FILE] [--batch]", options)
    assert [fault for fault in faults if "the page" not in fault] == [
        "knet export --format takes onnx|openvino|tensorrt, not onnx|openvino",
        "knet export has no option --outptu",
        "knet export --json: a value is shown and none is taken, or the reverse",
        "knet export --batch: a value is shown and none is taken, or the reverse",
    ]
    assert "the page says nothing of --opset" in faults and "the page says nothing of --json" not in faults
