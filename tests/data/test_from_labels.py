from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from knet.data.coco_panoptic import CocoPanoptic
from knet.data.from_labels import labels_to_panoptic, split_components
from knet.errors import ConfigError, DataError, OutputError

THINGS = [False, False, True, True]


label_maps = arrays(np.int32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(-1, 3))


@given(label_maps, st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_classes_survive_apart_from_dropped_components(label_map: np.ndarray, minimum_area: int) -> None:
    id_map, segments, dropped = split_components(label_map, THINGS, minimum_area)
    assert [id_ for id_, _ in segments] == list(range(1, len(segments) + 1))
    label_of = np.array([-1] + [label for _, label in segments])
    back = label_of[id_map]
    changed = back != label_map
    assert (back[changed] == -1).all()
    assert changed.any() == (len(dropped) > 0)
    assert set(label_map[changed].tolist()) == set(dropped) <= {2, 3}
    for id_, label in segments:
        area = int((id_map == id_).sum())
        assert area >= (minimum_area if THINGS[label] else 1)
    stuff = [label for _, label in segments if not THINGS[label]]
    assert stuff == sorted(set(stuff))


def test_diagonal_neighbours_are_one_thing() -> None:
    label_map = np.array([[2, 0, 2], [0, 2, 0], [0, 0, 0], [2, 0, 3]])
    id_map, segments, dropped = split_components(label_map, THINGS, 0)
    assert segments == [(1, 0), (2, 2), (3, 2), (4, 3)]
    assert id_map.tolist() == [[2, 1, 2], [1, 2, 1], [1, 1, 1], [3, 1, 4]]
    assert split_components(label_map, THINGS, 2)[1:] == ([(1, 0), (2, 2)], [2, 3])
    assert dropped == []


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    images, labels = tmp_path / "images", tmp_path / "labels"
    labels_of = {"town/a": np.zeros((24, 32), np.uint8), "b": np.full((10, 40), 11, np.uint8)}
    labels_of["town/a"][2:8, 3:9] = 8
    labels_of["town/a"][12:14, 3:5] = 8
    labels_of["town/a"][20:, 10:] = 9
    for name, values in labels_of.items():
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (labels / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", values.shape[::-1]).save(images / f"{name}.jpg")
        Image.fromarray(values).save(labels / f"{name}.png")
    return images, labels


def test_written_data_set(folders: tuple[Path, Path], tmp_path: Path) -> None:
    made = labels_to_panoptic(*folders, tmp_path / "out", "camvid", progress=False)
    assert made.images == 2
    assert {name: count for name, count in made.segments.items() if count} == {"Sky": 1, "Car": 1, "Pedestrian": 1}
    assert made.dropped == {"Car": 1, "Pedestrian": 0, "Bicyclist": 0}
    content = json.loads(made.json.read_text())
    for text in (made.note, content["info"]["description"]):
        assert "connected components" in text and "not annotated instances" in text
    reader = CocoPanoptic(folders[0], made.json, made.masks)
    assert [reader.name(index) for index in range(2)] == ["b", "town/a"]
    assert (reader.read(0).id_map == 0).all()
    sample = reader.read(1)
    assert [reader.categories[segment.label].name for segment in sample.segments] == ["Sky", "Car", "Pedestrian"]
    assert content["annotations"][1]["segments_info"][1] == {
        "id": 2,
        "category_id": 9,
        "area": 36,
        "bbox": [3, 2, 6, 6],
        "iscrowd": 0,
    }
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"panoptic.json", "panoptic"}


def test_same_input_gives_the_same_files(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("one", "two"):
        labels_to_panoptic(*folders, tmp_path / name, "camvid", progress=False)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")]
    assert len(files) == 3
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()


def test_nothing_is_overwritten_unasked(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    labels_to_panoptic(*folders, out, "camvid", progress=False)
    with pytest.raises(DataError, match="exists already"):
        labels_to_panoptic(*folders, out, "camvid", progress=False)
    made = labels_to_panoptic(*folders, out, "camvid", minimum_area=0, overwrite=True, progress=False)
    assert made.segments["Car"] == 2


def test_a_failed_conversion_leaves_nothing(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    Image.new("L", (32, 24), 77).save(folders[1] / "town/a.png")
    with pytest.raises(DataError, match=r"a\.png has the pixel value 77"):
        labels_to_panoptic(*folders, out, "camvid", progress=False)
    assert list(out.iterdir()) == []
    made = labels_to_panoptic(*folders, out, "camvid", void=77, progress=False)
    before = made.json.read_bytes()
    with pytest.raises(DataError, match="77"):
        labels_to_panoptic(*folders, out, "camvid", overwrite=True, progress=False)
    assert made.json.read_bytes() == before
    assert len(list(made.masks.rglob("*.png"))) == 2


def test_bad_options(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="minimum_area is -1"):
        labels_to_panoptic(*folders, tmp_path / "out", "camvid", minimum_area=-1, progress=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        labels_to_panoptic(*folders, tmp_path / "file", "camvid", progress=False)
