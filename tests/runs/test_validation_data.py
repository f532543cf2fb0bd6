"""Validation data: looked over before training, with the forgiveness that training data gets, or none at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from tiny_run import make_data, rows, write_config

from knet.cli.main import main
from knet.config import Data, load_config
from knet.data.readers.open import open_data
from knet.errors import ConfigError, DataError
from knet.evaluation import mask_ap
from knet.runs.evaluate import figures
from knet.runs.look_over import look_over, without
from knet.runs.train import train


def with_bad_validation(folder: Path, *bad: int) -> Path:
    """A config whose validation images of these numbers are no pictures."""
    data = make_data(folder / "val")
    for number in bad:
        (data / "images" / f"{number}.png").write_bytes(b"no picture")
    files = {"images": str(data / "images"), "json": str(data / "panoptic.json"), "masks": str(data / "masks")}
    train_files = {"images": "images", "json": "panoptic.json", "masks": "masks"}
    root = make_data(folder / "train")
    (folder / "own").mkdir()
    path = write_config(folder / "own", iterations=2, validate_every=2, save_every=1)
    table = {"root": str(root), "train": train_files, "val": files}
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(config | {"data": table}))
    return path


def test_a_bad_row_of_validation_data_is_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "knet")
    folder = train(with_bad_validation(tmp_path, 2))
    assert caplog.text.count("left out of validation: The image") == 1 and "2.png" in caplog.text
    assert [row["iteration"] for row in rows(folder, "val")] == ["2"]
    train(folder / "config.yaml", resume=True, iterations=3)
    assert [row["iteration"] for row in rows(folder, "val")] == ["2", "3"]


def test_more_than_may_be_left_out_stops_before_training(tmp_path: Path) -> None:
    path = with_bad_validation(tmp_path, 1, 2)
    with pytest.raises(DataError, match="2 of 4 validation images cannot be used, and skip_images=1 may be left out"):
        train(load_config(path, ["skip_images=1"]))
    assert not (tmp_path / "own/run").exists()
    with pytest.raises(DataError, match="2 of 4 validation images"):
        train(load_config(path, ["skip_images=0"]))


def test_a_bad_annotation_is_left_out_with_its_image(tmp_path: Path) -> None:
    square: Any = {"size": [40, 40], "counts": [0, 800, 800]}
    sound = {"image_id": 1, "category_id": 1, "segmentation": square, "area": 800, "bbox": [0, 0, 20, 40]}
    damaged = sound | {"image_id": 2, "area": 800, "segmentation": {"size": [40, 40], "counts": [7]}}
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 40, "width": 40} for n in (1, 2)],
        "categories": [{"id": 1, "name": "box"}],
        "annotations": [sound | {"id": 1}, damaged | {"id": 2}],
    }
    (tmp_path / "o.json").write_text(json.dumps(content))
    for n in (1, 2):
        Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / f"{n}.png")
    data = Data.model_validate({"root": tmp_path, "val": {"images": "", "json": "o.json"}})
    config = load_config(write_config(tmp_path / "run"), [])
    reader: Any = open_data(data, data.val)
    faults = look_over(reader, config)
    assert list(faults) == [1] and "annotation 2" in faults[1]
    with pytest.raises(DataError, match="annotation 2"):
        mask_ap(reader.json, [])
    assert mask_ap(without(reader.json, "image", [2]), [{**sound, "score": 1.0}])["all"]["ap"] == 1


def test_training_without_validation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_config(tmp_path, iterations=2, validate_every=1)
    assert main(["train", str(path), "data.val=null"]) == 0
    said = capsys.readouterr().out
    assert "no validation (data.val=null)" in said and "last.safetensors IMAGE" in said
    assert (tmp_path / "run/last.safetensors").is_file() and not (tmp_path / "run/best.safetensors").exists()
    assert main(["train", "--resume", str(tmp_path / "run"), "iterations=3"]) == 0
    assert main(["eval", str(tmp_path / "run/config.yaml"), "--weights", str(tmp_path / "run/last.safetensors")]) == 2
    assert "has no validation data" in capsys.readouterr().err


def test_judging_a_reader_that_numbers_the_classes_otherwise_is_refused(tmp_path: Path) -> None:
    from knet.inference.load import load
    from knet.structures import Category

    folder = train(write_config(tmp_path, iterations=1, validate_every=1))
    segmenter = load(folder / "best.safetensors")
    data = load_config(folder / "config.yaml").data
    swapped = [Category(1, "car", True, (0, 0, 0)), Category(2, "road", False, (0, 0, 0))]
    with pytest.raises(ConfigError, match="or numbers them otherwise"):
        figures(segmenter, open_data(data, data.val, swapped))
