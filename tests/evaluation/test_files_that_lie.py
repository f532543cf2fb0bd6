"""Files of others that lie about sizes, numbers and names: a sentence, before memory is taken for them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from knet.cli.main import main
from knet.data.categories import load_table
from knet.data.files.masks import read_mask
from knet.data.make.mapillary import read_config
from knet.data.readers.mots import read_mots
from knet.errors import ConfigError, DataError
from knet.evaluation import cityscapes_instance_ap, mean_iou
from knet.evaluation.panoptic_files import under_ids_of_truth
from knet.evaluation.video_frames import frame_key


@pytest.mark.parametrize("name", ["a\0b.png", "circle/m.png", "m" * 300 + ".png", "../m.png", "/m.png", ""])
def test_a_name_that_cannot_be_is_one_sentence(tmp_path: Path, name: str) -> None:
    truth, found = tmp_path / "truth", tmp_path / "found"
    truth.mkdir(), found.mkdir()
    Image.fromarray(np.full((8, 12), 26001, np.uint16)).save(truth / "a_000000_000001_gtFine_instanceIds.png")
    (found / "circle").symlink_to("circle")
    (found / "a_000000_000001_pred.txt").write_text(f"{name} 26 0.9\n")
    with pytest.raises(DataError) as error:
        cityscapes_instance_ap(truth, found)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("mask", [[[0, 0, 9, 0, 9, 9]], [], {"size": [10**5, 10**5], "counts": [10**10]}])
def test_a_mask_of_an_image_that_cannot_be_read_is_refused(mask: object) -> None:
    with pytest.raises(DataError, match=r"100000x100000 \(height x width\) pixels; at most 400 million"):
        read_mask(mask, (10**5, 10**5), "annotation 1")


def test_numbers_of_5000_digits_are_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    endless = "7" * 5000
    path = tmp_path / "0002.txt"
    path.write_text(f"0 1001 1 8 {endless} abc\n")
    with pytest.raises(DataError, match="it must be: frame object class"):
        read_mots(path)
    assert frame_key(endless) == endless and frame_key("0002") == 2
    assert main(["eval", "--metric", "vpq", "--truth", "a", "--predictions", "b", "--windows", endless]) == 2
    assert "--windows takes numbers" in capsys.readouterr().err


@pytest.mark.parametrize("value", [2**24, 2**53 + 1])
def test_a_class_table_with_an_enormous_pixel_value_is_refused(tmp_path: Path, value: int) -> None:
    rows = [{"id": 1, "name": "a", "thing": False}, {"id": 2, "name": "b", "thing": False}]
    for table in (
        {"categories": [rows[0], rows[1] | {"id": value}]},
        {"categories": [rows[0], rows[1] | {"label_value": value}]},
        {"categories": rows, "void_id": [255, value]},
    ):
        path = tmp_path / "table.json"
        path.write_text(json.dumps(table))
        with pytest.raises(ConfigError, match=f"has the pixel value {value}; they go up to 16777215"):
            load_table(path)
    with pytest.raises(DataError, match="give each its own, 0 to 16777215"):
        mean_iou(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), classes={0: "a", value: "b"})


def test_a_list_of_images_that_is_none_is_left_alone() -> None:
    truth = {"annotations": [{"image_id": 1}], "images": [{"id": 1, "file_name": "a.png"}]}
    for images in (5, 1.5, True, "x", {"a": 1}, [3], None):
        assert under_ids_of_truth(truth, {"images": images}, {}) == {}


def test_an_infinite_colour_of_a_mapillary_config_is_one_sentence(tmp_path: Path) -> None:
    row = {"name": "a", "readable": "a", "evaluate": True, "instances": False, "color": [float("inf"), 0, 0]}
    (tmp_path / "config.json").write_text(json.dumps({"labels": [row]}))
    with pytest.raises(DataError, match="row 1 of 'labels' must have"):
        read_config(tmp_path / "config.json")
