"""COCO instances to COCO panoptic: every form of mask, and who owns the pixels where objects overlap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from knet.cli.main import main
from knet.data.files.masks import pack_mask, run_lengths
from knet.data.make.from_coco import coco_to_panoptic
from knet.data.readers.coco_panoptic import CocoPanoptic
from knet.errors import ConfigError, DataError

HEIGHT, WIDTH = 30, 40
LARGE = (slice(0, 20), slice(0, 20))
SMALL = (slice(10, 20), slice(10, 24))


def mask_of(place: tuple[slice, slice]) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[place] = True
    return mask


def polygon(place: tuple[slice, slice]) -> list[list[int]]:
    (y, x) = place
    return [[x.start, y.start, x.stop, y.start, x.stop, y.stop, x.start, y.stop]]


def runs(place: tuple[slice, slice]) -> dict[str, Any]:
    return {"size": [HEIGHT, WIDTH], "counts": run_lengths(pack_mask(mask_of(place)))}


def packed(place: tuple[slice, slice]) -> dict[str, Any]:
    return {"size": [HEIGHT, WIDTH], "counts": pack_mask(mask_of(place))["counts"].decode()}


FORMS = (polygon, runs, packed)


def write(folder: Path, *annotations: dict[str, Any]) -> tuple[Path, Path]:
    (folder / "images/a").mkdir(parents=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "images/a/0.png")
    content = {
        "images": [{"id": 7, "file_name": "a/0.png", "height": HEIGHT, "width": WIDTH}],
        "annotations": [{"image_id": 7, "category_id": 3, **row} for row in annotations],
        "categories": [{"id": 3, "name": "car"}, {"id": 4, "name": "road"}],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return folder / "images", folder / "instances.json"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("overlap", "small_first", "small_on_top"),
    [("area", True, True), ("area", False, True), ("order", True, False), ("order", False, True)],
)
def test_overlaps_have_one_owner(
    tmp_path: Path, form: Any, overlap: Any, small_first: bool, small_on_top: bool
) -> None:
    places = (SMALL, LARGE) if small_first else (LARGE, SMALL)
    images, path = write(tmp_path, *({"segmentation": form(place)} for place in places))
    made = coco_to_panoptic(images, path, tmp_path / "out", overlap=overlap)
    sample = CocoPanoptic(images, made.json, made.masks).read(0)
    expected = np.zeros((HEIGHT, WIDTH), int)
    for place in (LARGE, SMALL) if small_on_top else (SMALL, LARGE):
        expected[place] = places.index(place) + 1
    np.testing.assert_array_equal(sample.id_map, expected)
    assert (made.segments, made.overlapping, made.hidden) == ({"car": 2, "road": 0}, 100, 0)


def test_stuff_is_one_segment_and_crowds_lie_below(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right = (slice(0, 20), slice(30, 40))
    rows = [
        {"segmentation": polygon(LARGE), "category_id": 4},
        {"segmentation": polygon(right), "category_id": 4},
        {"segmentation": polygon(SMALL), "iscrowd": 1},
        {"segmentation": polygon((slice(15, 20), slice(10, 20)))},
        {"segmentation": []},
    ]
    images, path = write(tmp_path, *rows)
    command = [
        "data",
        "from-coco",
        "--images",
        str(images),
        "--instances",
        str(path),
        "--output",
        str(tmp_path / "out"),
    ]
    assert main([*command, "--stuff", "road"]) == 0
    out = capsys.readouterr().out
    assert "smaller one is on top" in out and "left out: 1 objects without a mask" in out
    reader = CocoPanoptic(images, tmp_path / "out/panoptic.json", tmp_path / "out/panoptic")
    sample = reader.read(0)
    assert [(s.id, reader.categories[s.label].name, s.crowd) for s in sample.segments] == [
        (1, "road", False),
        (2, "car", True),
        (3, "car", False),
    ]
    assert (sample.id_map[5, 5], sample.id_map[5, 35], sample.id_map[12, 22], sample.id_map[17, 15]) == (1, 1, 2, 3)
    check = ["data", "check", "--images", str(images), "--panoptic", str(tmp_path / "out/panoptic.json")]
    assert main([*check, "--masks", str(tmp_path / "out/panoptic")]) == 0
    assert main([*command, "--stuff", "raod", "--overwrite"]) == 2
    assert "did you mean 'road'?" in capsys.readouterr().err


def test_what_cannot_be_converted_is_said(tmp_path: Path) -> None:
    images, path = write(tmp_path, {"segmentation": [], "bbox": [1, 1, 5, 5]})
    with pytest.raises(DataError, match="boxes are not enough"):
        coco_to_panoptic(images, path, tmp_path / "out")
    with pytest.raises(ConfigError, match="no rule 'top'"):
        coco_to_panoptic(images, path, tmp_path / "out", overlap="top")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
