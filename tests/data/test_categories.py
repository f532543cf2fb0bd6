from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from knet.data.categories import category_tables, load_categories, load_table
from knet.errors import ConfigError

ROWS = [{"id": 4, "name": "road", "thing": False, "color": [1, 2, 3]}, {"id": 9, "name": "car", "thing": True}]


@pytest.mark.parametrize(
    ("table", "dataset"),
    [("cityscapes", "cityscapes_fine_panoptic_train"), ("mapillary", "mapillary_vistas_panoptic_train")],
)
def test_table_equals_the_official_one(goldens: Path, table: str, dataset: str) -> None:
    official = json.loads((goldens / "rtknet" / "datasets_meta.json").read_text())[dataset]
    categories = load_categories(table)
    labels = {category.id: label for label, category in enumerate(categories) if category.thing}
    assert labels == {int(id_): label for id_, label in official["thing_dataset_id_to_contiguous_id"].items()}
    labels = {category.id: label for label, category in enumerate(categories) if not category.thing}
    assert labels == {int(id_): label for id_, label in official["stuff_dataset_id_to_contiguous_id"].items()}
    assert [list(category.color) for category in categories] == official["colors"]
    if table == "cityscapes":
        assert [category.name for category in categories] == official["names"]


@pytest.mark.parametrize("table", ["cityscapes", "mapillary", "camvid"])
def test_stuff_labels_come_before_things(table: str) -> None:
    things = [category.thing for category in load_categories(table)]
    assert things == sorted(things) and any(things) and not all(things)


def test_cocos_tables_have_80_things_then_53_kinds_of_stuff_with_gaps_in_their_ids() -> None:
    panoptic, instance = load_categories("coco_panoptic"), load_categories("coco_instance")
    assert [category.thing for category in panoptic] == [True] * 80 + [False] * 53
    assert panoptic[:80] == instance
    assert (panoptic[79].id, panoptic[80].id, panoptic[132].id) == (90, 92, 200)
    assert (panoptic[0].name, panoptic[79].name, panoptic[80].name) == ("person", "toothbrush", "banner")


@pytest.mark.parametrize("table", category_tables())
def test_every_table_is_consistent(table: str) -> None:
    whole = load_table(table)
    assert whole.name == table
    assert whole.source
    assert len(set(whole.label_values)) == len(whole.categories)
    assert not whole.void_values & set(whole.label_values)
    assert whole.image_size is not None  # which `knet models` and `knet bench` ask for


def test_camvid_ids_are_label_values_plus_one() -> None:
    table = load_table("camvid")
    assert [category.id for category in table.categories] == list(range(1, 12))
    assert table.label_values == tuple(range(11))
    assert table.void_values == {11}
    assert len({category.color for category in table.categories}) == 11
    assert [category.name for category in table.categories if category.thing] == ["Car", "Pedestrian", "Bicyclist"]


@pytest.mark.parametrize("ending", [".json", ".yaml"])
def test_users_own_table(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"mine{ending}"
    content = {"name": "mine", "void_id": [0, 255], "categories": ROWS}
    path.write_text(json.dumps(content) if ending == ".json" else yaml.safe_dump(content))
    table = load_table(path)
    assert [(row.id, row.name, row.thing) for row in table.categories] == [(4, "road", False), (9, "car", True)]
    assert table.categories[0].color == (1, 2, 3)
    assert table.label_values == (4, 9)
    assert table.void_values == {0, 255}
    assert table.image_size is None


def test_classes_that_a_mirror_swaps(tmp_path: Path) -> None:
    rows = [
        {"id": 7, "name": "left", "thing": False, "flip_to": 3},
        {"id": 5, "name": "up", "thing": False},
        {"id": 3, "name": "right", "thing": False, "flip_to": 7},
    ]
    path = tmp_path / "arrows.json"
    path.write_text(json.dumps({"categories": rows}))
    assert load_table(path).flip_labels == (2, 1, 0)
    assert load_table("camvid").flip_labels == tuple(range(11))


def test_coco_panoptic_json_as_table(tmp_path: Path) -> None:
    path = tmp_path / "panoptic.json"
    rows = [{"id": 1, "name": "person", "isthing": 1, "color": [9, 9, 9], "supercategory": "person"}]
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": rows}))
    assert load_categories(str(path))[0].thing


def test_unknown_name_gives_the_nearest_and_the_list() -> None:
    with pytest.raises(ConfigError, match=r"'cityscape'.*Did you mean 'cityscapes'.*camvid, cityscapes, .*mapillary"):
        load_categories("cityscape")
    with pytest.raises(ConfigError, match=r"nowhere\.json does not exist"):
        load_categories("nowhere.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"categories": []}, "at least one row"),
        ({"categories": ROWS, "image_size": [480]}, r"image_size = \[480\]; give \[height, width\]"),
        ({"categories": ROWS, "image_size": [480, 0]}, "image_size"),
        ({"categories": ROWS, "image_size": "480x640"}, "image_size"),
        ({"categories": "road"}, "must be a list"),
        ({"categories": ["road"]}, "row 1 of 'categories' is 'road'"),
        ({"categories": [ROWS[0], {**ROWS[1], "id": 4}]}, "two rows with the id 4"),
        ({"categories": [ROWS[0], {**ROWS[1], "name": "road"}]}, "two rows with the name 'road'"),
        ({"categories": [ROWS[0], {**ROWS[1], "label_value": 4}]}, "two rows with the label_value 4"),
        ({"categories": [{**ROWS[0], "id": "four"}]}, "id 'four'"),
        ({"categories": [{**ROWS[0], "name": ""}]}, "name ''"),
        ({"categories": [{"id": 1, "name": "a"}]}, "thing = None"),
        ({"categories": [{**ROWS[0], "label_value": -1}]}, "label_value -1"),
        ({"categories": [{**ROWS[0], "color": [0, 0, 256]}]}, "color"),
        ({"categories": ROWS, "void_id": 9}, "value 9 for void and for 'car'"),
        ({"categories": ROWS, "void_id": "none"}, "void_id = 'none'"),
        ({"categories": [ROWS[0], {**ROWS[1], "flip_to": 77}]}, "flip_to = 77 for 'car'"),
        ({"categories": [ROWS[0], {**ROWS[1], "flip_to": "road"}]}, "flip_to = 'road'"),
        ({"categories": [{**ROWS[0], "flip_to": 9}, ROWS[1]]}, "flips 'road' to 'car' but not back"),
        ({"categories": [{**ROWS[0], "flip_to": 9}, {**ROWS[1], "flip_to": 4}]}, "both be things or both stuff"),
    ],
)
def test_broken_table(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "table.json"
    path.write_text(json.dumps(change))
    with pytest.raises(ConfigError, match=message) as caught:
        load_categories(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
@pytest.mark.parametrize("ending", [".json", ".yaml"])
def test_file_that_is_no_table(tmp_path: Path, text: str, ending: str) -> None:
    path = tmp_path / f"table{ending}"
    path.write_text(text)
    with pytest.raises(ConfigError, match="table"):
        load_categories(path)
