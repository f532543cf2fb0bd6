"""What is said of a data set before a training: nothing to learn, or more than the model has kernels for."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_run import write_config

from knet.cli.main import main
from knet.config import load_config
from knet.data.readers.label_folder import LabelFolder
from knet.data.readers.open import open_data
from knet.data.readers.reader import Kernels
from knet.errors import DataError
from knet.models.image import KNet
from knet.models.realtime import RTKNet
from knet.runs.learnable import check_learnable, kernels_of
from knet.runs.train import train


def change_segments(config: Path, **change: object) -> None:
    path = config.parent / "data/panoptic.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        for row in annotation["segments_info"]:
            row.update(change)
    path.write_text(json.dumps(content))


def test_a_data_set_in_which_all_is_crowd_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    change_segments(config, iscrowd=1)
    assert main(["train", str(config)]) == 2
    assert "nothing to learn: none of its 4 images has a segment that is no crowd" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_label_pngs_that_are_all_void_are_refused(tmp_path: Path) -> None:
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        for number in range(3):
            Image.new("L", (8, 6), 255).save(tmp_path / kind / f"{number}.png")
    table = tmp_path / "table.json"
    table.write_text(json.dumps({"void_id": 255, "categories": [{"id": 1, "name": "a", "thing": 0}]}))
    reader = LabelFolder(tmp_path / "images", tmp_path / "labels", table)
    with pytest.raises(DataError, match="none of its 3 images"):
        check_learnable(reader, Kernels())
    Image.fromarray(np.ones((6, 8), np.uint8)).save(tmp_path / "labels/2.png")
    assert check_learnable(LabelFolder(tmp_path / "images", tmp_path / "labels", table), Kernels()) == ""


def test_more_segments_than_kernels_are_said_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, iterations=1)
    train(load_config(config, ["arguments.kernels=2"]))
    assert "kernels" not in capsys.readouterr().err
    assert main(["train", str(config), "arguments.kernels=1", f"output={tmp_path / 'other'}"]) == 0
    said = "4 of 4 images have more segments than the model has kernels (1), up to 2 (0)"
    out = "".join(capsys.readouterr())
    assert said in out and "give arguments.kernels=2" in out
    files = [f"--{kind}={tmp_path / 'data' / name}" for kind, name in (("images", "images"), ("masks", "masks"))]
    check = ["data", "check", *files, f"--panoptic={tmp_path / 'data/panoptic.json'}"]
    assert main(check) == 0
    assert "more segments" not in capsys.readouterr().out
    config.write_text(config.read_text().replace("kernels: 6", "kernels: 1"))
    assert main([*check, "--model", str(config)]) == 0
    assert "warning: images have more segments than kernels (4): 2 in 0 (1 kernels)" in capsys.readouterr().out


def test_label_pngs_of_other_classes_than_a_published_table_has(tmp_path: Path) -> None:
    """Pixels of 1 to 3 fit any table, so own classes would train as walls, buildings and skies without a word."""
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        for number in range(3):
            Image.new("L", (8, 6), number + 1).save(tmp_path / kind / f"{number}.png")
    said = check_learnable(LabelFolder(tmp_path / "images", tmp_path / "labels", "ade20k"), Kernels(sys.maxsize))
    assert said.startswith("only 3 of the 150 classes occur in the 3 images that were looked at (wall, building, sky)")
    rows = [{"id": n, "name": f"class {n}", "thing": False} for n in range(1, 5)]
    (tmp_path / "own.json").write_text(json.dumps({"categories": rows}))
    assert (
        check_learnable(LabelFolder(tmp_path / "images", tmp_path / "labels", tmp_path / "own.json"), Kernels()) == ""
    )


def test_sets_of_a_mixture_count_in_its_classes(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    table = load_config(config)
    files = table.data.train
    assert files is not None and not isinstance(files, tuple)
    mixed = open_data(table.data, [files.model_copy(update={"classes": {"road": "void"}})])
    assert check_learnable(mixed, Kernels(1)) == ""
    assert "up to 2" in check_learnable(open_data(table.data, files), Kernels(1))


def test_kernels_of_models() -> None:
    assert kernels_of("rtknet-cityscapes") == Kernels(100, stuff=True)
    assert kernels_of("knet-r50-coco-panoptic") == Kernels(100, stuff=False)
    assert kernels_of("rtknet-lite-street") == Kernels(64, stuff=True)
    assert kernels_of("knet-fcn-r50-ade20k").count == sys.maxsize
    assert all(inspect.signature(kind).parameters["kernels"].default == Kernels().count for kind in (RTKNet, KNet))
