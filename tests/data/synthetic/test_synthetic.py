from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from knet.data.categories import load_table
from knet.data.files.io import read_image, read_labels
from knet.data.synthetic.layouts import synthesize
from knet.data.synthetic.street import draw_street
from knet.errors import ConfigError, DataError, OutputError

CLASSES = {row.name for row in load_table("cityscapes").categories}


def test_a_scene_is_whole_and_repeats_itself() -> None:
    one, two = (draw_street(96, 192, np.random.default_rng(3)) for _ in range(2))
    assert one.image.shape == (96, 192, 3) and one.image.dtype == np.uint8
    assert one.numbers.shape == (96, 192)
    assert one.numbers.min() >= 1 and one.numbers.max() <= len(one.objects)
    assert np.array_equal(one.image, two.image) and np.array_equal(one.numbers, two.numbers)
    assert not np.array_equal(one.image, draw_street(96, 192, np.random.default_rng(4)).image)


def test_scenes_hold_what_a_network_must_cope_with() -> None:
    kinds: set[str] = set()
    groups = occluded = 0
    areas: dict[str, list[int]] = {}
    for seed in range(24):
        scene = draw_street(128, 256, np.random.default_rng(seed))
        visible = np.bincount(scene.numbers.ravel(), minlength=len(scene.objects) + 1)[1:]
        for thing, area in zip(scene.objects, visible.tolist(), strict=True):
            occluded += area == 0
            if area:
                kinds.add(thing.kind)
                groups += thing.group
                areas.setdefault(thing.kind, []).append(area)
    assert kinds >= CLASSES | {"ego vehicle", "out of roi", "static"}
    assert groups > 10 and occluded > 10
    assert max(areas["car"]) > 20 * np.median(areas["car"])  # near and far


def test_classes_look_different() -> None:
    """The mean colours of sky, road and vegetation lie apart in nearly every scene: there is something to learn."""
    apart = 0
    for seed in range(10):
        scene = draw_street(96, 192, np.random.default_rng(seed))
        kinds = np.array([""] + [thing.kind for thing in scene.objects])[scene.numbers]
        sky, road, green = (scene.image[kinds == kind].mean(0) for kind in ("sky", "road", "vegetation"))
        apart += np.abs(sky - road).max() > 25 and green[1] > green[2] + 5
    assert apart >= 8


def test_cityscapes_layout(tmp_path: Path) -> None:
    made = synthesize("cityscapes", tmp_path / "out", 5, (64, 128), seed=2)
    assert made.images == {"train": 5, "val": 1, "test": 1}
    images = sorted((tmp_path / "out/leftImg8bit").rglob("*_leftImg8bit.png"))
    assert len(images) == 7
    assert not (tmp_path / "out/gtFine/test").exists()
    for path in images:
        if path.parent.parent.name == "test":
            continue
        stem = path.name.removesuffix("_leftImg8bit.png")
        assert stem.startswith(path.parent.name) and stem.endswith("_000019")
        labels = tmp_path / "out/gtFine" / path.parent.parent.name / path.parent.name
        with Image.open(labels / f"{stem}_gtFine_instanceIds.png") as file:
            assert file.mode.startswith("I;16") or file.mode == "I"
        instances = read_labels(labels / f"{stem}_gtFine_instanceIds.png")
        ids = read_labels(labels / f"{stem}_gtFine_labelIds.png")
        assert read_image(path).shape[:2] == instances.shape == ids.shape == (64, 128)
        assert np.array_equal(np.where(instances < 1000, instances, instances // 1000), ids)
        train_ids = read_labels(labels / f"{stem}_gtFine_labelTrainIds.png")
        assert set(np.unique(train_ids)) <= {*range(19), 255}
        for raw in set(np.unique(instances // 1000).tolist()) - {0}:
            numbers = np.unique(instances[instances // 1000 == raw] % 1000)
            assert numbers.tolist() == list(range(len(numbers)))  # from 0 without gaps, as in the real files


def test_mapillary_layout(tmp_path: Path) -> None:
    made = synthesize("mapillary", tmp_path / "out", 2, (60, 90))
    assert made.images == {"training": 2, "validation": 1}
    config = json.loads((tmp_path / "out/config.json").read_text())["labels"]
    assert len(config) == 66 and config[65]["evaluate"] is False
    assert config[0]["name"] == "animal--bird" and config[55]["readable"] == "Car"
    for path in (tmp_path / "out/training/images").iterdir():
        instances = read_labels(tmp_path / "out/training/instances" / f"{path.stem}.png")
        labels = read_labels(tmp_path / "out/training/labels" / f"{path.stem}.png")
        assert path.suffix == ".jpg" and read_image(path).shape[:2] == labels.shape == (60, 90)
        assert np.array_equal(instances // 256, labels) and labels.max() == 65
        for label in np.unique(labels).tolist():
            if not config[label]["instances"]:
                assert (instances[labels == label] % 256 == 0).all()


def test_equal_seeds_give_equal_files(tmp_path: Path) -> None:
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        synthesize("mapillary", tmp_path / name, 1, (48, 64), seed)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")]
    assert len(files) == 7
    equal = [(tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes() for path in files]
    assert all(equal)
    image = next(path for path in files if path.suffix == ".jpg")
    assert (tmp_path / "one" / image).read_bytes() != (tmp_path / "three" / image).read_bytes()


def test_refuses(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="no layout 'kitti'; choose from cityscapes, mapillary"):
        synthesize("kitti", out, 1, (64, 64))
    with pytest.raises(ConfigError, match="0 images with seed 0"):
        synthesize("mapillary", out, 0, (64, 64))
    with pytest.raises(ConfigError, match="16x64 pixels is too small"):
        synthesize("mapillary", out, 1, (16, 64))
    assert list(tmp_path.iterdir()) == []
    out.write_text("")
    with pytest.raises(DataError, match="out exists already"):
        synthesize("mapillary", out, 1, (64, 64))
    with pytest.raises(OutputError, match="Cannot write"):
        synthesize("mapillary", out / "below", 1, (64, 64))
