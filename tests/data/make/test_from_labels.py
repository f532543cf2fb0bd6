from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from knet.data.categories import load_table
from knet.data.make.from_labels import labels_to_panoptic, split_segments
from knet.data.readers.coco_panoptic import CocoPanoptic
from knet.data.readers.label_folder import LabelFolder
from knet.errors import ConfigError, DataError, OutputError
from knet.structures import Category, SegmentInfo

THINGS = [False, False, True, True]


label_maps = arrays(np.int32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(-1, 3))


@given(label_maps, st.integers(0, 5))
@settings(max_examples=80)
def test_classes_survive_apart_from_dropped_components(label_map: np.ndarray, minimum_area: int) -> None:
    id_map, segments, dropped = split_segments(label_map, THINGS, minimum_area)
    assert [segment.id for segment in segments] == list(range(1, len(segments) + 1))
    label_of = np.array([-1] + [segment.label for segment in segments])
    back = label_of[id_map]
    changed = back != label_map
    assert (back[changed] == -1).all()
    assert changed.any() == (len(dropped) > 0)
    assert set(label_map[changed].tolist()) == set(dropped) <= {2, 3}
    for segment in segments:
        area = int((id_map == segment.id).sum())
        assert area >= (minimum_area if THINGS[segment.label] else 1)
        assert not segment.crowd
    stuff = [segment.label for segment in segments if not THINGS[segment.label]]
    assert stuff == sorted(set(stuff))


@given(st.data(), label_maps)
@settings(max_examples=80)
def test_things_are_one_object_where_class_and_number_are_equal(data: st.DataObject, label_map: np.ndarray) -> None:
    numbers = data.draw(arrays(np.int32, label_map.shape, elements=st.sampled_from([0, 1, 2, 65535, 16777215])))
    id_map, segments, dropped = split_segments(label_map, THINGS, 0, numbers)
    assert dropped == []
    thing = (label_map >= 2).ravel()
    truth = list(zip(label_map.ravel(), np.where(thing, numbers.ravel(), -1), strict=True))
    meaning: dict[int, tuple[int, int]] = {}
    for id_, pair in zip(id_map.ravel().tolist(), truth, strict=True):
        assert meaning.setdefault(id_, pair) == pair  # void has the id 0 and is one pair, too
    assert len(segments) == len({pair for pair in truth if pair[0] >= 0})
    for segment in segments:
        label, number = meaning[segment.id]
        assert (segment.label, segment.crowd) == (label, number == 0)


def test_diagonal_neighbours_are_one_thing() -> None:
    label_map = np.array([[2, 0, 2], [0, 2, 0], [0, 0, 0], [2, 0, 3]])
    id_map, segments, dropped = split_segments(label_map, THINGS, 0)
    assert segments == [SegmentInfo(1, 0), SegmentInfo(2, 2), SegmentInfo(3, 2), SegmentInfo(4, 3)]
    assert id_map.tolist() == [[2, 1, 2], [1, 2, 1], [1, 1, 1], [3, 1, 4]]
    assert split_segments(label_map, THINGS, 2)[1:] == ([SegmentInfo(1, 0), SegmentInfo(2, 2)], [2, 3])
    assert dropped == []


def test_numbers_split_what_touches_and_join_what_does_not() -> None:
    label_map = np.array([[2, 2, 2, 0, 2], [3, 3, 2, 0, 1]])
    numbers = np.array([[7, 9, 9, 5, 7], [7, 0, 0, 4, 0]])
    id_map, segments, dropped = split_segments(label_map, THINGS, 2, numbers)
    assert segments == [
        SegmentInfo(1, 0),
        SegmentInfo(2, 1),
        SegmentInfo(3, 2, crowd=True),  # of any size
        SegmentInfo(4, 2),
        SegmentInfo(5, 2),
        SegmentInfo(6, 3, crowd=True),
    ]
    assert id_map.tolist() == [[4, 5, 5, 1, 4], [0, 6, 3, 1, 2]]
    assert dropped == [3]


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
    made = labels_to_panoptic(*folders, tmp_path / "out", "camvid")
    assert made.images == 2
    assert {name: count for name, count in made.segments.items() if count} == {"Sky": 1, "Car": 1, "Pedestrian": 1}
    assert made.dropped == {"Car": 1, "Pedestrian": 0, "Bicyclist": 0}
    assert made.crowds == {"Car": 0, "Pedestrian": 0, "Bicyclist": 0}
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


Numbered = Callable[[str], Path]


@pytest.fixture
def numbered(folders: tuple[Path, Path], tmp_path: Path) -> Numbered:
    """`numbered("I;16")`: instance PNGs for `folders`; the large car is two, the small one a group of cars."""

    def make(mode: str) -> Path:
        for path in folders[1].rglob("*.png"):
            numbers = np.zeros(np.asarray(Image.open(path)).shape, np.uint16)
            numbers[2:5, 3:9], numbers[5:8, 3:9], numbers[20:] = 1, 200, 1
            if mode == "I;16":
                picture = Image.fromarray(numbers * 300)
            elif mode == "RGB":
                picture = Image.fromarray(np.stack([numbers % 2 * 255, numbers // 2, numbers], -1).astype(np.uint8))
            else:
                picture = Image.fromarray(numbers.astype(np.uint8))
            target = tmp_path / "instances" / path.relative_to(folders[1])
            target.parent.mkdir(parents=True, exist_ok=True)
            picture.save(target)
        return tmp_path / "instances"

    return make


@pytest.mark.parametrize("mode", ["L", "I;16", "RGB"])
def test_instance_pngs_tell_objects_apart(
    folders: tuple[Path, Path], numbered: Numbered, tmp_path: Path, mode: str
) -> None:
    made = labels_to_panoptic(*folders, tmp_path / "out", "camvid", instances=numbered(mode))
    assert {name: count for name, count in made.segments.items() if count} == {"Sky": 1, "Car": 3, "Pedestrian": 1}
    assert made.crowds == {"Car": 1, "Pedestrian": 0, "Bicyclist": 0}
    assert not any(made.dropped.values())
    content = json.loads(made.json.read_text())
    assert "components" not in made.note + content["info"]["description"]
    assert "crowd" in content["info"]["description"]
    rows = content["annotations"][1]["segments_info"]
    assert [(row["category_id"], row["area"], row["iscrowd"]) for row in rows if row["category_id"] == 9] == [
        (9, 4, 1),
        (9, 18, 0),
        (9, 18, 0),
    ]
    assert len(CocoPanoptic(folders[0], made.json, made.masks).read(1).segments) == 5
    made = labels_to_panoptic(*folders, tmp_path / "large", "camvid", instances=tmp_path / "instances", minimum_area=20)
    assert (made.segments["Car"], made.crowds["Car"], made.dropped["Car"]) == (1, 1, 2)
    assert "less than 20 pixels" in json.loads(made.json.read_text())["info"]["description"]


def test_instance_pngs_that_do_not_fit(folders: tuple[Path, Path], numbered: Numbered, tmp_path: Path) -> None:
    instances = numbered("L")

    def convert() -> None:
        labels_to_panoptic(*folders, tmp_path / "out", "camvid", instances=instances)

    Image.new("L", (5, 5)).save(instances / "b.png")
    with pytest.raises(DataError, match=r"instances/b\.png is 5x5 pixels but its image .*b\.jpg is 40x10"):
        convert()
    (instances / "b.png").rename(instances / "c.png")
    with pytest.raises(DataError, match=r"images has b but .*instances has no file of that name"):
        convert()
    Image.new("L", (40, 10)).save(instances / "b.png")
    with pytest.raises(DataError, match=r"instances has c but .*images has no file of that name"):
        convert()
    (instances / "c.png").unlink()
    (instances / "b.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"label PNG .*instances/b\.png cannot be read"):
        convert()
    Image.new("L", (40, 10)).save(instances / "b.jpg")
    (instances / "b.png").unlink()
    with pytest.raises(DataError, match=r"instances has b\.jpg, in a format that changes pixel values"):
        convert()
    with pytest.raises(DataError, match=r"The folder .*nowhere does not exist"):
        labels_to_panoptic(*folders, tmp_path / "out", "camvid", instances=tmp_path / "nowhere")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_labels_in_colours_give_what_their_numbers_give(folders: tuple[Path, Path], tmp_path: Path) -> None:
    by_number = labels_to_panoptic(*folders, tmp_path / "numbers", "camvid")
    table = load_table("camvid")
    palette = np.zeros((256, 4), np.uint8)  # void is black
    palette[list(table.label_values), :3] = [category.color for category in table.categories]
    palette[:, 3] = 255
    for path, channels in zip(sorted(folders[1].rglob("*.png")), (3, 4), strict=True):
        Image.fromarray(palette[np.asarray(Image.open(path)), :channels]).save(path)
    by_color = labels_to_panoptic(*folders, tmp_path / "colours", "camvid")
    assert by_color.json.read_bytes() == by_number.json.read_bytes()
    for path in by_number.masks.rglob("*.png"):
        assert (by_color.masks / path.relative_to(by_number.masks)).read_bytes() == path.read_bytes()


@given(label_maps)
@settings(max_examples=30)
def test_colours_are_looked_up_exactly(label_map: np.ndarray) -> None:
    colors = [(255, 0, 0), (0, 0, 0), (254, 0, 0), (0, 0, 1)]
    black_is_void = [Category(n, f"class {n}", False, color) for n, color in enumerate(colors) if n != 1]
    with TemporaryDirectory() as folder:
        path = Path(folder)
        for kind in ("images", "labels"):
            (path / kind).mkdir()
            picture = np.array([*colors, (0, 0, 0)], np.uint8)[label_map]  # label -1 is the last
            Image.fromarray(picture).save(path / kind / "a.png")
        found = LabelFolder(path / "images", path / "labels", black_is_void).read_label_map(0)
        assert (found == np.array([0, -1, 1, 2, -1])[label_map]).all()
        black_is_a_class = [Category(n, f"class {n}", False, color) for n, color in enumerate(colors)]
        found = LabelFolder(path / "images", path / "labels", black_is_a_class).read_label_map(0)
        assert (found == np.array([0, 1, 2, 3, 1])[label_map]).all()


def test_colours_that_no_class_has(folders: tuple[Path, Path], tmp_path: Path) -> None:
    picture = Image.new("RGB", (32, 24))
    picture.putpixel((3, 3), (9, 8, 7))
    picture.putpixel((30, 20), (9, 8, 8))
    picture.save(folders[1] / "town/a.png")
    with pytest.raises(DataError, match=r"town/a\.png has the colour \(9, 8, 7\) and 1 more, which is neither"):
        labels_to_panoptic(*folders, tmp_path / "out", "camvid")
    twice = [Category(number, f"class {number}", False, (9, 8, 7)) for number in (0, 8, 9, 11)]
    with pytest.raises(DataError, match=r"the colour \(9, 8, 7\) for 'class 0' and for 'class 8'"):
        labels_to_panoptic(*folders, tmp_path / "out", twice)


def test_same_input_gives_the_same_files(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("one", "two"):
        labels_to_panoptic(*folders, tmp_path / name, "camvid")
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")]
    assert len(files) == 3
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()


def test_nothing_is_overwritten_unasked(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    labels_to_panoptic(*folders, out, "camvid")
    with pytest.raises(DataError, match="exists already"):
        labels_to_panoptic(*folders, out, "camvid")
    made = labels_to_panoptic(*folders, out, "camvid", minimum_area=0, overwrite=True)
    assert made.segments["Car"] == 2


def test_a_failed_conversion_leaves_nothing(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    Image.new("L", (32, 24), 77).save(folders[1] / "town/a.png")
    with pytest.raises(DataError, match=r"a\.png has the pixel value 77"):
        labels_to_panoptic(*folders, out, "camvid")
    assert list(out.iterdir()) == []
    camvid = load_table("camvid")
    table = replace(camvid, void_values=camvid.void_values | {77})
    made = labels_to_panoptic(*folders, out, table)
    before = made.json.read_bytes()
    with pytest.raises(DataError, match="77"):
        labels_to_panoptic(*folders, out, "camvid", overwrite=True)
    assert made.json.read_bytes() == before
    assert len(list(made.masks.rglob("*.png"))) == 2


def test_bad_options(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="minimum_area is -1"):
        labels_to_panoptic(*folders, tmp_path / "out", "camvid", minimum_area=-1)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        labels_to_panoptic(*folders, tmp_path / "file", "camvid")
