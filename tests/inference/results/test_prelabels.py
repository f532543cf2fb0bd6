"""Results as labels to correct: what CVAT and Label Studio would draw is what the model found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from fake_results import CAR, TABLE, photo, street
from PIL import Image, ImageDraw

from knet.data.files.masks import pack_mask, read_mask, unpack_mask
from knet.data.make.from_export import import_export
from knet.errors import ConfigError
from knet.inference.results.formats import PRELABELS, check_formats
from knet.inference.results.predictions import check_all_formats, refuse_prelabels
from knet.inference.results.prelabels import PrelabelWriter
from knet.inference.results.segmentation import Segmentation


def written(folder: Path, *results: Segmentation) -> Path:
    (folder / "fotos ü").mkdir(parents=True)
    with PrelabelWriter(folder, PRELABELS, TABLE) as writer:
        for result in results:
            path = folder / "fotos ü" / f"{result.name}.png"
            Image.fromarray(photo(*result.id_map.shape)).save(path)
            writer.write(result, path)
    return folder


def test_cvat_gets_the_masks_and_they_can_be_imported_again(tmp_path: Path) -> None:
    folder = written(tmp_path / "own", street(name="a"), street(30, 50, "b"))
    document = json.loads((folder / "cvat.json").read_text())
    assert [row["file_name"] for row in document["images"]] == ["a.png", "b.png"]
    assert [row["id"] for row in document["annotations"]] == list(range(1, 9))
    for result, number in ((street(), 1), (street(30, 50), 2)):
        rows = [row for row in document["annotations"] if row["image_id"] == number]
        for row, segment in zip(rows, result.segments, strict=True):
            mask = unpack_mask(read_mask(row["segmentation"], result.id_map.shape, "it"))
            assert row["category_id"] == segment.category and np.array_equal(mask, result.mask(segment))
    made = import_export(folder, tmp_path / "made", form="coco", val=0.5)
    assert sum(made.images.values()) == 2
    assert [(row.name, row.segments) for row in made.reports[0].classes] == [("road", 1), ("sky", 1), ("car", 2)]


def test_label_studio_gets_the_same_in_percent_and_an_interface_that_knows_the_classes(tmp_path: Path) -> None:
    folder = written(tmp_path, street(name="a b"))
    ((task, *none),) = [json.loads((folder / "labelstudio.json").read_text())]
    assert not none and task["data"]["image"].startswith("/data/local-files/?d=")
    assert task["data"]["image"].endswith("fotos%20%C3%BC/a%20b.png")
    interface = ElementTree.fromstring((folder / "labelstudio.xml").read_text())
    labels, image = interface.find("PolygonLabels"), interface.find("Image")
    assert labels is not None and image is not None and image.get("value") == "$image"
    assert [label.get("value") for label in labels] == [category.name for category in TABLE]
    (prediction,) = task["predictions"]
    regions = prediction["result"]
    assert len({region["id"] for region in regions}) == len(regions)
    result = street()
    for region, segment in zip(regions, result.segments, strict=True):
        assert (region["from_name"], region["to_name"]) == (labels.get("name"), image.get("name"))
        assert region["value"]["polygonlabels"] == [segment.name]
        canvas = Image.new("1", (80, 60))
        corners = [(x * 80 / 100, y * 60 / 100) for x, y in region["value"]["points"]]
        ImageDraw.Draw(canvas).polygon(corners, fill=1)
        drawn, mask = np.asarray(canvas), result.mask(segment)
        assert (drawn & mask).sum() / (drawn | mask).sum() > 0.8


def test_guesses_of_objects_that_may_overlap_are_left_out(tmp_path: Path) -> None:
    result = street(name="a")
    cars = [segment for segment in result.segments if segment.category == CAR.id]
    cars[0] = replace(cars[0], score=0.1)
    masks = {segment.id: pack_mask(result.owned(segment)) for segment in cars}
    written(tmp_path, Segmentation(result.id_map, cars, TABLE, "a", masks=masks))
    assert len(json.loads((tmp_path / "cvat.json").read_text())["annotations"]) == 1


def test_an_image_without_objects_is_a_task_as_well(tmp_path: Path) -> None:
    written(tmp_path, Segmentation(np.zeros((9, 9), np.int32), [], TABLE, "none"))
    (task,) = json.loads((tmp_path / "labelstudio.json").read_text())
    assert task["predictions"][0]["result"] == []
    assert len(json.loads((tmp_path / "cvat.json").read_text())["images"]) == 1


def test_what_is_no_image_file_cannot_be_labelled() -> None:
    with pytest.raises(ConfigError, match="The format 'cvat' is about image files"):
        refuse_prelabels(["overlay", "cvat"], None)
    with pytest.raises(ConfigError, match="use `knet predict` on images, without --track"):
        check_all_formats(["labelstudio"], TABLE, track=True)
    with pytest.raises(ConfigError, match="did you mean 'labelstudio'"):
        check_formats(["label-studio"], TABLE)


def test_polygons_of_one_image(tmp_path: Path) -> None:
    (path,) = street().save(tmp_path, ["polygons"])
    assert path.name == "street_polygons.json"
    assert json.loads(path.read_text()) == json.loads(json.dumps(street().to_coco(form="polygons")))
