from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from knet.data.categories import load_table
from knet.data.files.io import read_labels
from knet.data.make.mapillary import instances_to_panoptic, read_config, table_from_config
from knet.data.make.prepare import prepare_cityscapes, prepare_mapillary
from knet.data.readers.coco_panoptic import CocoPanoptic
from knet.data.readers.roots import find_mapillary
from knet.data.synthetic.layouts import synthesize
from knet.errors import DataError

SIZE = (48, 96)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    for layout in ("cityscapes", "mapillary"):
        synthesize(layout, folder / layout, 3, SIZE)
    return folder


@pytest.fixture
def cityscapes(raw: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(raw / "cityscapes", tmp_path / "cityscapes"))


@pytest.fixture
def mapillary(raw: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(raw / "mapillary", tmp_path / "mapillary"))


def as_v2(root: Path, also_v1: bool = False) -> None:
    """Makes the v2.0 zip's layout of a v1.2 download: two classes more, an arrow to the left and one to the right."""
    config = json.loads((root / "config.json").read_text())
    (root / "config.json").rename(root / "config_v1.2.json")
    label = {"evaluate": True, "instances": False, "color": [1, 2, 3]}
    config["labels"] += [
        {**label, "name": f"marking--discrete--arrow--{a}", "readable": f"Arrow ({a})"}
        for a in ("left", "right", "straight", "split-left-or-straight", "split-right-or-straight", "bright")
    ]
    (root / "config_v2.0.json").write_text(json.dumps(config))
    for split in ("training", "validation"):
        for version in ("v1.2", "v2.0") if also_v1 else ("v2.0",):
            for kind in ("instances", "labels"):
                shutil.copytree(root / split / kind, root / split / version / kind)
        for kind in ("instances", "labels"):
            shutil.rmtree(root / split / kind)
    if not also_v1:
        (root / "config_v1.2.json").unlink()


def test_cityscapes_is_prepared_and_read(cityscapes: Path) -> None:
    made = prepare_cityscapes(cityscapes)
    assert [(split.name, split.images, split.made, split.unlabelled) for split in made] == [
        ("train", 3, True, []),
        ("val", 1, True, []),
    ]
    assert made[0].json == cityscapes / "gtFine" / "cityscapes_panoptic_train.json"
    table = load_table("cityscapes")
    reader = CocoPanoptic(cityscapes / "leftImg8bit/train", made[0].json, made[0].masks, table.categories)
    for index in range(len(reader)):
        sample = reader.read(index)
        assert sample.image.shape == (*SIZE, 3)
        city = sample.name.split("_")[0]
        raw = read_labels(cityscapes / "gtFine/train" / city / f"{sample.name}_gtFine_instanceIds.png")
        kept = sample.id_map > 0
        assert np.array_equal(sample.id_map[kept], raw[kept])
        train_ids = read_labels(cityscapes / "gtFine/train" / city / f"{sample.name}_gtFine_labelTrainIds.png")
        assert np.array_equal(kept, train_ids != 255)
        for segment in sample.segments:
            assert (train_ids[sample.id_map == segment.id] == segment.label).all()


def test_what_is_there_is_kept(cityscapes: Path) -> None:
    before = prepare_cityscapes(cityscapes, ["val"])[0].json.stat().st_mtime_ns
    again = prepare_cityscapes(cityscapes)
    assert [split.made for split in again] == [True, False]
    assert again[1].json.stat().st_mtime_ns == before
    assert all(split.made for split in prepare_cityscapes(cityscapes, overwrite=True))
    with_train_ids = prepare_cityscapes(cityscapes, ["val"], train_ids=True)[0]
    assert with_train_ids.json.name == "cityscapes_panoptic_val_trainId.json" and with_train_ids.images == 1


def test_an_existing_form_that_lies(cityscapes: Path) -> None:
    split = prepare_cityscapes(cityscapes, ["val"])[0]
    next(split.masks.iterdir()).unlink()
    with pytest.raises(DataError, match=r"does not exist.*--overwrite makes cityscapes_panoptic_val\.json anew"):
        prepare_cityscapes(cityscapes, ["val"])
    assert prepare_cityscapes(cityscapes, ["val"], overwrite=True)[0].images == 1


def test_cityscapes_without_what_it_needs(cityscapes: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no labelled split 'tset'; choose from train, val"):
        prepare_cityscapes(cityscapes, ["tset"])
    with pytest.raises(DataError, match="nowhere does not exist"):
        prepare_cityscapes(tmp_path / "nowhere")
    image = next((cityscapes / "leftImg8bit/train").rglob("*.png"))
    image.rename(image.with_name("knetburg_000077_000019_leftImg8bit.png"))
    with pytest.raises(DataError, match=r"gtFine/train has .* without an image in .*leftImg8bit/train"):
        prepare_cityscapes(cityscapes)
    assert not (cityscapes / "gtFine/cityscapes_panoptic_val.json").exists()
    shutil.rmtree(cityscapes / "leftImg8bit/val")
    with pytest.raises(DataError, match=r"lacks leftImg8bit/val; .*cityscapes-dataset\.com.*--splits"):
        prepare_cityscapes(cityscapes)


def test_images_without_a_label_are_named(cityscapes: Path) -> None:
    label = next((cityscapes / "gtFine/train").rglob("*_gtFine_instanceIds.png"))
    label.unlink()
    made = prepare_cityscapes(cityscapes, ["train"])[0]
    assert made.images == 2
    assert [Path(name).name for name in made.unlabelled] == [label.name.replace("gtFine_instanceIds", "leftImg8bit")]


def test_table_of_the_v12_config_is_the_packages_own(goldens: Any) -> None:
    labels = read_config(goldens / "metrics" / "mapillary_semantic_a" / "config.json")
    table, own = table_from_config(labels, "1.2"), load_table("mapillary")
    rows = [(row["id"], row["name"], row["thing"], tuple(row["color"])) for row in table["categories"]]
    assert rows == [(row.id, row.name, row.thing, row.color) for row in own.categories]
    assert [row["label_value"] for row in table["categories"]] == list(own.label_values)
    assert table["void_id"] == [65] and not any("flip_to" in row for row in table["categories"])


def test_mapillary_is_prepared_and_read(mapillary: Path) -> None:
    made = prepare_mapillary(mapillary)
    assert made.version == "1.2" and made.table == mapillary / "knet_categories.json"
    assert load_table(made.table).categories == load_table("mapillary").categories
    train = made.splits[0]
    assert train.json == mapillary / "training/panoptic/panoptic_2018.json"
    reader = CocoPanoptic(mapillary / "training/images", train.json, train.masks, load_table(made.table).categories)
    assert len(reader) == train.images == 3
    values = np.array(load_table(made.table).label_values)
    for index in range(3):
        sample = reader.read(index)
        raw = read_labels(mapillary / "training/instances" / f"{sample.name}.png")
        assert np.array_equal(sample.id_map == 0, raw // 256 == 65)
        for segment in sample.segments:
            inside = raw[sample.id_map == segment.id]
            assert (inside // 256 == values[segment.label]).all() and not segment.crowd
            assert len(np.unique(inside)) == 1
    rows = json.loads(train.json.read_text())["categories"]
    assert [row["id"] for row in rows] == list(range(1, 66))
    assert [split.made for split in prepare_mapillary(mapillary).splits] == [False, False]


@pytest.mark.parametrize("also_v1", [False, True])
def test_mapillary_v20(mapillary: Path, also_v1: bool) -> None:
    as_v2(mapillary, also_v1)
    assert find_mapillary(mapillary).version == ("1.2" if also_v1 else "2.0")
    made = prepare_mapillary(mapillary, version="2.0")
    assert made.splits[1].json == mapillary / "validation/v2.0/panoptic/panoptic_2020.json"
    table = load_table(made.table)
    assert table.name == "mapillary_vistas_v2.0" and len(table.categories) == 71
    names = [row.name for row in table.categories]
    swapped = {names[label]: names[flip] for label, flip in enumerate(table.flip_labels) if label != flip}
    assert swapped == {
        "Arrow (left)": "Arrow (right)",
        "Arrow (right)": "Arrow (left)",
        "Arrow (split-left-or-straight)": "Arrow (split-right-or-straight)",
        "Arrow (split-right-or-straight)": "Arrow (split-left-or-straight)",
    }
    assert made.table.name == "knet_categories_v2.0.json"
    if also_v1:
        assert prepare_mapillary(mapillary).table.name == "knet_categories_v1.2.json"
        assert made.table.exists() and made.splits[1].json.exists()


def test_a_table_in_the_way(mapillary: Path) -> None:
    (mapillary / "knet_categories.json").write_text('{"name": "mine"}')
    with pytest.raises(
        DataError, match=r"knet_categories\.json is not the class table that config\.json gives; remove"
    ):
        prepare_mapillary(mapillary, overwrite=True)


def test_the_official_panoptic_json_is_kept(mapillary: Path, goldens: Any) -> None:
    golden = goldens / "metrics" / "mapillary_panoptic_a"
    root = mapillary / "validation"
    shutil.rmtree(root)
    shutil.copytree(golden / "panoptic", root / "panoptic")
    shutil.copy(golden / "panoptic_2018.json", root / "panoptic")
    for kind, ending, mode in (("images", ".jpg", "RGB"), ("instances", ".png", "I;16")):
        (root / kind).mkdir()
        for path in (golden / "panoptic").iterdir():
            Image.new(mode, Image.open(path).size).save(root / kind / f"{path.stem}{ending}")
    made = prepare_mapillary(mapillary, ["validation"]).splits[0]
    assert not made.made and made.images == len(list((golden / "panoptic").iterdir()))


def test_mapillary_without_what_it_needs(mapillary: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no labelled split 'train'; choose from training, validation"):
        prepare_mapillary(mapillary, ["train"])
    with pytest.raises(DataError, match=r"lacks config_v2\.0\.json, .*mapillary\.com"):
        prepare_mapillary(mapillary, version="2.0")
    with pytest.raises(DataError, match=r"no Mapillary Vistas version '3'"):
        find_mapillary(mapillary, version="3")
    image = next((mapillary / "training/images").iterdir())
    image.rename(image.with_name("other.jpg"))
    with pytest.raises(DataError, match=f"has {image.stem}.png without an image"):
        prepare_mapillary(mapillary)
    shutil.rmtree(mapillary / "validation/instances")
    with pytest.raises(DataError, match=r"lacks validation/instances; .*mapillary\.com"):
        prepare_mapillary(mapillary)
    with pytest.raises(DataError, match=r"lacks config\.json or config_v1\.2\.json or config_v2\.0\.json"):
        prepare_mapillary(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "no list 'labels'"),
        ("[]", "no list 'labels'"),
        ('{"labels": []}', "no list 'labels'"),
        ('{"labels": [{"name": "a"}]}', "row 1 of 'labels' must have"),
        ("{", "cannot be read"),
    ],
)
def test_config_that_is_none(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_config(tmp_path / "config.json")


def test_instances_that_do_not_fit(mapillary: Path, tmp_path: Path) -> None:
    split = mapillary / "validation"
    files = split / "images", split / "instances", mapillary / "config.json", tmp_path / "a.json", tmp_path / "a"
    label = next((split / "instances").iterdir())
    Image.fromarray(np.full(SIZE, 66 * 256, np.uint16)).save(label)
    with pytest.raises(DataError, match=r"has the label 66, but .*config\.json lists 66 labels"):
        instances_to_panoptic(*files)
    label.rename(label.with_name("lonely.png"))
    with pytest.raises(DataError, match=r"lonely\.png has no image in"):
        instances_to_panoptic(*files)
    label.with_name("lonely.png").unlink()
    with pytest.raises(DataError, match="holds no PNG"):
        instances_to_panoptic(*files)
    assert not (tmp_path / "a.json").exists() and not (tmp_path / "a").exists()


def test_a_failed_preparation_leaves_nothing(mapillary: Path) -> None:
    label = next((mapillary / "validation/instances").iterdir())
    label.write_bytes(b"no picture")
    with pytest.raises(DataError, match="cannot be read"):
        prepare_mapillary(mapillary, ["validation"])
    assert {path.name for path in (mapillary / "validation").iterdir()} == {"images", "instances", "labels"}
