"""Training K-Net as a user does, on small drawn images in the three forms of data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from test_processes import finish, start

import knet
from knet.cli.main import main
from knet.config import load_config
from knet.data.readers.open import open_data
from knet.errors import ConfigError, DataError
from knet.runs import train as loop
from knet.runs.train import train
from knet.weights.load import read_checkpoint

CLASSES = [("road", False), ("sky", False), ("car", True)]
KNET = {"backbone": "timm/resnet10t", "kernels": 20, "channels": 32}


def draw(folder: Path, images: int = 3) -> Path:
    """Roads below skies with bright cars: images, and truth as panoptic PNGs, as instances and as label PNGs."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks", "labels"):
        (folder / kind).mkdir(parents=True)
    rows = [
        {"id": n, "name": name, "isthing": int(thing), "color": [40 * n, 0, 0]}
        for n, (name, thing) in enumerate(CLASSES, 1)
    ]
    panoptic: dict[str, Any] = {"images": [], "annotations": [], "categories": rows}
    instances: dict[str, Any] = {"images": [], "annotations": [], "categories": [rows[2]]}
    for i in range(images):
        image = rng.integers(60, 90, (64, 96, 3), dtype=np.uint8)
        ids = np.full((64, 96), 2, np.uint8)
        ids[32:] = 1
        image[:32, :, 2] += 100
        for car in range(2):  # the second one lies over the first
            y, x = int(rng.integers(20, 40)), int(rng.integers(10 + 20 * car, 30 + 20 * car))
            image[y : y + 20, x : x + 30, car] += 60
            ids[y : y + 20, x : x + 30] = 3 + car
            box = {"bbox": [x, y, 30, 20], "area": 600, "segmentation": [[x, y, x + 30, y, x + 30, y + 20, x, y + 20]]}
            number = len(instances["annotations"]) + 1
            instances["annotations"].append({"id": number, "image_id": i, "category_id": 3, "iscrowd": 0, **box})
        Image.fromarray(image).save(folder / "images" / f"{i}.png")
        Image.fromarray(np.stack([ids, ids * 0, ids * 0], -1)).save(folder / "masks" / f"{i}.png")
        Image.fromarray(np.minimum(ids, 3)).save(folder / "labels" / f"{i}.png")
        for content in (panoptic, instances):
            content["images"].append({"id": i, "file_name": f"{i}.png", "height": 64, "width": 96})
        segments = [{"id": n, "category_id": min(n, 3), "iscrowd": 0} for n in np.unique(ids).tolist()]
        panoptic["annotations"].append({"image_id": i, "file_name": f"{i}.png", "segments_info": segments})
    (folder / "panoptic.json").write_text(json.dumps(panoptic))
    (folder / "instances.json").write_text(json.dumps(instances))
    (folder / "classes.json").write_text(json.dumps({"categories": rows, "void_id": 0}))
    return folder


FORMS: dict[str, dict[str, Any]] = {
    "panoptic": {
        "model": "knet-r50-coco-panoptic",
        "arguments": KNET,
        "files": {"images": "images", "json": "panoptic.json", "masks": "masks"},
        "augment": {"short_edges": [48, 64], "between": True, "max_edge": 96, "antialias": False, "color": False},
    },
    "instance": {
        "model": "knet-r50-coco-instance",
        "arguments": KNET,
        "files": {"images": "images", "json": "instances.json"},
        "augment": {"short_edges": [64], "max_edge": 96, "antialias": False, "color": False},
    },
    "semantic": {
        "model": "knet-upernet-r50-ade20k",
        "arguments": {"backbone": "timm/resnet10t", "channels": 32, "update_channels": 32, "hidden": 64},
        "files": {"images": "images", "labels": "labels"},
        "augment": {
            **{"short_edges": [64], "max_edge": 256, "ratio": [0.5, 2.0], "antialias": False},
            **{"crop": [64, 64], "largest_class": 0.75, "pad": [64, 64], "pad_color": [124, 116, 104]},
        },
        "losses": {"semantic": 0.4},
    },
}


def write_config(folder: Path, task: str, **more: Any) -> Path:
    table = dict(FORMS[task])
    files = table.pop("files")
    root = draw(folder / "data")
    table |= {
        "data": {"root": str(root), "train": files, "val": files},
        "optimizer": {"undecayed": None, "backbone_multiplier": 0.25, "warmup": 1, "power": 0, "steps": [2]},
        **{"short_edge": 64, "max_edge": 96, "iterations": 3, "batch": 2, "workers": 0},
        **{"validate_every": 3, "save_every": 3, "log_every": 1, "output": str(folder / "run"), **more},
    }
    if task == "semantic":
        table["data"]["categories"] = str(root / "classes.json")
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(table))
    return path


@pytest.mark.parametrize(
    ("task", "figures", "losses"),
    [
        ("panoptic", {"pq", "miou"}, {"loss_seg", "s1_loss_rank", "s4_loss_cls"}),
        ("instance", {"ap", "ap50"}, {"loss_seg", "s1_loss_dice", "s4_loss_cls"}),
        ("semantic", {"miou"}, {"loss_seg", "s1_loss_seg", "s4_loss_seg"}),
    ],
)
def test_three_iterations_give_weights_that_predict(
    task: str, figures: set[str], losses: set[str], tmp_path: Path
) -> None:
    folder = train(load_config(write_config(tmp_path, task)))
    assert figures <= set((folder / "val.csv").read_text().splitlines()[0].split(","))
    lines = [line.split(",") for line in (folder / "train.csv").read_text().splitlines()]
    assert losses <= set(lines[0]) and len(lines) == 4
    assert all(np.isfinite([float(value) for value in line]).all() for line in lines[1:])
    rate = lines[0].index("rate")
    assert [float(line[rate]) for line in lines[1:]] == pytest.approx([2e-7, 2e-4, 2e-5])
    segmenter = knet.load(folder / "best.safetensors")
    assert segmenter.preprocessing.short_edge == 64 and not segmenter.preprocessing.antialias
    segmenter(np.zeros((64, 96, 3), np.uint8))


def test_a_run_starts_from_the_weights_of_a_backbone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "resnet10t.safetensors"
    save_file(timm.create_model("resnet10t").state_dict(), path)
    command = ["train", str(write_config(tmp_path, "panoptic", iterations=1))]
    assert main([*command, f"backbone_weights={path}"]) == 0
    assert f"84 of the 84 tensors of the backbone are from '{path}'; the rest of" in capsys.readouterr().out
    assert (
        main([*command, f"backbone_weights={path}", "arguments.backbone=timm/resnet18", f"output={tmp_path / 'b'}"])
        == 2
    )
    assert "do not fit the backbone of this model" in capsys.readouterr().err


@pytest.mark.large  # test_parity_over_time.py has FSDP with another network
@pytest.mark.parametrize("task", ["panoptic", "semantic"])
def test_two_processes_that_share_the_weights(task: str, tmp_path: Path) -> None:
    """FSDP where a layer's weights are kernels, too: the same losses as with a copy of the weights each."""
    path = write_config(tmp_path, task, iterations=1, validate_every=9)
    losses = []
    for parallel in ("ddp", "fsdp"):
        folder = tmp_path / parallel
        codes, said = finish(start(["train", str(path), f"parallel={parallel}", f"output={folder}", "device=cpu"]))
        assert codes == [0, 0], said
        names, values = (folder / "train.csv").read_text().splitlines()
        row = dict(zip(names.split(","), map(float, values.split(",")), strict=True))
        losses.append({name: value for name, value in row.items() if "loss" in name or name == "gradient_norm"})
    assert len(losses[0]) > 5 and losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.large
def test_norms_of_timm_see_the_batches_of_both_processes(tmp_path: Path) -> None:
    """Its norms that activate, too (BatchNormAct2d): their statistics after a step are those of one process."""
    path = write_config(tmp_path, "panoptic", iterations=1, validate_every=1)
    options = ["arguments.backbone=timm/mobilenetv3_small_050", "device=cpu"]
    train(load_config(path, [*options, f"output={tmp_path / 'one'}"]))
    codes, said = finish(start(["train", str(path), *options, f"output={tmp_path / 'two'}"]))
    assert codes == [0, 0], said
    one, two = (read_checkpoint(tmp_path / name / "last.safetensors").state for name in ("one", "two"))
    statistics = [key for key in one if key.startswith("backbone.") and "running_" in key]
    assert len(statistics) > 50 and one.keys() == two.keys()
    for key in statistics:
        torch.testing.assert_close(two[key], one[key], rtol=1e-4, atol=1e-5, msg=key)


def test_the_tiny_config_trains_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = draw(tmp_path / "data")
    (root / "annotations").mkdir()
    content = json.loads((root / "instances.json").read_text())
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    (root / "images").rename(root / "train2017")
    options = [
        f"data.root={root}",
        "iterations=3",
        f"output={tmp_path / 'run'}",
        "workers=0",
        "augment.short_edges=[64]",
        "data.categories=null",
    ]
    assert main(["train", "knet-tiny-coco-instance", *options]) == 0
    assert (tmp_path / "run" / "best.safetensors").is_file(), capsys.readouterr()


def test_an_image_without_objects_or_with_a_crowd_alone_is_no_training_image_but_is_judged(tmp_path: Path) -> None:
    path = write_config(tmp_path, "instance")
    file = tmp_path / "data" / "instances.json"
    content = json.loads(file.read_text())
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] != 0]
    crowd = [row for row in content["annotations"] if row["image_id"] == 1]
    for row in crowd:
        row["iscrowd"] = 1
    file.write_text(json.dumps(content))
    config = load_config(path)
    training, validation = open_data(config.data, config.data.train), open_data(config.data, config.data.val)
    assert [training.name(i) for i in range(len(training))] == ["2"] and len(validation) == 3
    assert (train(config) / "last.safetensors").is_file()
    for row in content["annotations"]:
        row["iscrowd"] = 1
    file.write_text(json.dumps(content))
    with pytest.raises(
        DataError, match="has nothing to learn; its images are: 1 without an object; 2 with crowds only"
    ):
        open_data(config.data, config.data.train)


def test_a_panoptic_image_of_crowds_alone_is_void_to_the_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "check_learnable", lambda *_: "")  # which refuses a set of such images alone
    monkeypatch.setattr(loop, "require_segments", lambda *_: None)
    path = write_config(tmp_path, "panoptic")
    file = tmp_path / "data" / "panoptic.json"
    content = json.loads(file.read_text())
    for annotation in content["annotations"]:
        for segment in annotation["segments_info"]:
            segment["iscrowd"] = 1
    file.write_text(json.dumps(content))
    lines = (train(load_config(path)) / "train.csv").read_text().splitlines()
    row = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    assert float(row["s4_loss_mask"]) == float(row["s4_loss_rank"]) == 0 < float(row["s4_loss_cls"])


def test_ade20k_labels_above_150_are_named(tmp_path: Path) -> None:
    path = write_config(tmp_path, "semantic", skip_images=0)
    labels = tmp_path / "data" / "labels"
    for file in labels.iterdir():
        Image.fromarray(np.full((64, 96), 151, np.uint8)).save(file)
    config = load_config(path, ["data.categories=ade20k"])
    with pytest.raises(DataError, match=r"pixel value 151, which is neither a class of the table nor void"):
        train(config)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ("{images: images}", "needs images, and json and masks"),
        ("{images: images, masks: masks}", "needs images, and json and masks"),
        ("{images: images, json: instances.json, labels: labels}", "needs images, and json and masks"),
        ("{images: images, labels: labels}", "give a class table with data.categories"),
    ],
)
def test_files_of_no_known_form(files: str, sentence: str, tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path, "instance"), [f"data.train={files}"])
    with pytest.raises(ConfigError, match=sentence):
        train(config)
