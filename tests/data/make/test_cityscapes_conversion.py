from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from knet.data.categories import load_categories
from knet.data.make.cityscapes import instance_ids_to_panoptic
from knet.data.readers.coco_panoptic import CocoPanoptic
from knet.errors import DataError


@pytest.mark.parametrize("train_ids", [False, True])
def test_equals_the_official_conversion(goldens: Path, tmp_path: Path, train_ids: bool) -> None:
    golden = goldens / "metrics" / "cityscapes_conversion_a"
    name = "cityscapes_panoptic_val" + ("_trainId" if train_ids else "")
    out = tmp_path / f"{name}.json"
    count = instance_ids_to_panoptic(golden / "gtFine/val", out, tmp_path / name, train_ids=train_ids)
    assert count == 2
    assert json.loads(out.read_text()) == json.loads((golden / "expected" / f"{name}.json").read_text())
    pictures = sorted((golden / "expected" / name).iterdir())
    assert [path.name for path in pictures] == sorted(path.name for path in (tmp_path / name).iterdir())
    for path in pictures:
        assert np.array_equal(np.array(Image.open(path)), np.array(Image.open(tmp_path / name / path.name)))


def test_the_result_is_read_with_the_class_table(goldens: Path, tmp_path: Path) -> None:
    golden = goldens / "metrics" / "cityscapes_conversion_a"
    instance_ids_to_panoptic(golden / "gtFine/val", tmp_path / "a.json", tmp_path / "a")
    categories = load_categories("cityscapes")
    reader = CocoPanoptic(None, tmp_path / "a.json", tmp_path / "a", categories)
    for index in range(len(reader)):
        for segment in reader.read_truth(index).segments:
            raw = segment.id if segment.id < 1000 else segment.id // 1000
            assert categories[segment.label].id == raw
            assert segment.crowd == (segment.id < 1000 and categories[segment.label].thing)


def test_refuses(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no"):
        instance_ids_to_panoptic(tmp_path, tmp_path / "a.json", tmp_path / "a")
    Image.fromarray(np.full((2, 2), 65000, np.uint16)).save(tmp_path / "x_0_1_gtFine_instanceIds.png")
    with pytest.raises(DataError, match=r"instanceIds\.png has the value .* no Cityscapes class"):
        instance_ids_to_panoptic(tmp_path, tmp_path / "a.json", tmp_path / "a")
