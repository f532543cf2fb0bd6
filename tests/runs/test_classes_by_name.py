"""Data sets that number the same classes differently: matched by name in every figure, or refused before any work."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_run import make_data, write_config

from knet.class_names import same_names
from knet.config import Data, load_config
from knet.data.categories import load_categories
from knet.data.readers.label_folder import LabelFolder
from knet.data.readers.open import open_data
from knet.data.readers.youtube_vis import YoutubeVis
from knet.errors import DataError
from knet.evaluation import mask_ap, panoptic_quality, vpq, ytvis_ap
from knet.runs.train import train
from knet.structures import Category

CLASSES = [Category(1, "road", False, (1, 0, 0)), Category(2, "car", True, (2, 0, 0))]
SWAPPED = {1: (2, "Road "), 2: (1, "CAR")}  # an id of `make_data` -> the id and the name of another tool


def rename(json_file: Path, renames: dict[int, tuple[int, str]], reverse: bool = False, lists: str = "images") -> None:
    """The same file with other ids and names of its classes."""
    content = json.loads(json_file.read_text())
    for row in content["categories"]:
        row["id"], row["name"] = renames[row["id"]]
    content["categories"].sort(key=lambda row: row["id"], reverse=reverse)
    for annotation in content["annotations"]:
        for segment in annotation.get("segments_info", [annotation]):
            segment["category_id"] = renames[segment["category_id"]][0]
    json_file.write_text(json.dumps(content))


def panoptic(folder: Path, **more: Any) -> Data:
    files = {"images": "images", "json": "panoptic.json", "masks": "masks"}
    return Data.model_validate({"root": folder, "train": files, "val": files, **more})


def test_names_are_the_same_but_for_capitals_spaces_and_hyphens() -> None:
    assert same_names(["Traffic Light", "car"], ["car", "traffic-light"]) == [1, 0]
    assert same_names(["car", "Car"], ["Car", "car"]) == [1, 0]
    assert same_names(["CAR"], ["Car", "car"]) == [None]
    assert same_names(["person"], ["pedestrian"]) == [None]


def test_validation_that_numbers_the_classes_otherwise_gives_the_same_figures(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "knet")
    short = ["iterations=2", "validate_every=2"]
    path = write_config(tmp_path)
    same = train(load_config(path, [*short, f"output={tmp_path / 'same'}"]))
    rename(make_data(tmp_path / "other") / "panoptic.json", SWAPPED, reverse=True)
    val = [f"data.val.images={tmp_path}/other/images", f"data.val.json={tmp_path}/other/panoptic.json"]
    assert "matched by name" not in caplog.text
    swapped = train(load_config(path, [*short, *val, f"output={tmp_path / 'swapped'}"]))
    assert (swapped / "val.csv").read_text() == (same / "val.csv").read_text()
    assert caplog.text.count("other/panoptic.json numbers 2 of its 2 classes otherwise ('road' is 2, here 1)") == 1


@pytest.mark.parametrize("lacking", [True, False])
def test_validation_with_other_classes_is_refused_before_training(tmp_path: Path, lacking: bool) -> None:
    path = write_config(tmp_path)
    rename(make_data(tmp_path / "other") / "panoptic.json", {1: (1, "road"), 2: (2, "truck")})
    if lacking:
        content = json.loads((tmp_path / "other/panoptic.json").read_text())
        content["categories"].pop()
        (tmp_path / "other/panoptic.json").write_text(json.dumps(content))
    difference = "only the table has 'car'" if lacking else "only the file has 'truck'; only the table has 'car'"
    with pytest.raises(DataError, match=f"other/panoptic.json has other classes .*: {difference}"):
        train(load_config(path, [f"data.val.json={tmp_path}/other/panoptic.json"]))
    assert not (tmp_path / "run").exists()


def test_a_published_class_table_does_not_name_the_classes_of_own_data(tmp_path: Path) -> None:
    data = panoptic(make_data(tmp_path / "data"), categories="coco_panoptic")
    with pytest.raises(DataError, match=r"only the table has 'person', .* more\. .*data\.categories=null"):
        open_data(data, data.train)


def test_instances_are_matched_by_name_too(tmp_path: Path) -> None:
    square = {"size": [4, 4], "counts": [0, 4, 12]}
    rows = [{"id": n, "image_id": 1, "category_id": c, "segmentation": square, "area": 4, "bbox": [0, 0, 1, 4]}
            for n, c in ((1, 7), (2, 3))]  # fmt: skip
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 4}],
        "categories": [{"id": 7, "name": "Cat"}, {"id": 3, "name": "dog"}],
        "annotations": rows,
    }
    (tmp_path / "objects.json").write_text(json.dumps(content))
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    table = [Category(1, "dog", True, (0, 0, 0)), Category(2, "cat", True, (0, 0, 0))]
    data = Data.model_validate({"root": tmp_path, "val": {"images": "", "json": "objects.json"}})
    reader: Any = open_data(data, data.val, table)
    assert [s.label for s in reader.read_truth(0).segments] == [1, 0]
    assert reader.category_ids == {1: 7, 0: 3}


def test_objects_of_videos_are_matched_by_name(tmp_path: Path) -> None:
    video = {"id": 1, "file_names": ["v/1.png"], "height": 4, "width": 4, "length": 1}
    track = {"id": 1, "video_id": 1, "category_id": 9, "segmentations": [{"size": [4, 4], "counts": [0, 4, 12]}]}
    rows = [{"id": 9, "name": "bird"}, {"id": 1, "name": "fish"}]
    (tmp_path / "v.json").write_text(json.dumps({"videos": [video], "categories": rows, "annotations": [track]}))
    table = [Category(1, "fish", True, (0, 0, 0)), Category(2, "bird", True, (0, 0, 0))]
    reader = YoutubeVis(None, tmp_path / "v.json", table)
    assert [s.label for s in reader.read_truth(0).segments] == [1]


def test_label_pngs_with_tables_that_number_the_classes_differently(tmp_path: Path) -> None:
    for folder, values in (("a", [[1, 2, 3]]), ("b", [[3, 1, 2]])):
        for kind in ("images", "labels"):
            (tmp_path / folder / kind).mkdir(parents=True)
        Image.fromarray(np.zeros((1, 3, 3), np.uint8)).save(tmp_path / folder / "images/1.png")
        Image.fromarray(np.array(values, np.uint8)).save(tmp_path / folder / "labels/1.png")
        order = ["road", "car", "sky"] if folder == "a" else ["car", "sky", "road"]
        rows = [{"id": n, "name": name, "thing": name == "car"} for n, name in enumerate(order, 1)]
        (tmp_path / f"{folder}.json").write_text(json.dumps({"categories": rows}))
    sets = [{"images": f"{f}/images", "labels": f"{f}/labels", "categories": str(tmp_path / f"{f}.json")} for f in "ab"]
    data = Data.model_validate({"root": tmp_path, "train": sets[0], "val": sets[1]})
    first = open_data(data, data.train)
    second = open_data(data, data.val, first.categories)
    assert isinstance(second, LabelFolder)
    assert second.read_label_map(0).tolist() == [[0, 1, 2]]
    assert [(c.id, c.name) for c in second.categories] == [(c.id, c.name) for c in first.categories]


def test_a_video_format_keeps_its_own_numbers(tmp_path: Path) -> None:
    """STEP PNGs have train ids; Cityscapes' table, with the same classes, has the ids of its own files."""
    folder = tmp_path / "video_sequence/val"
    folder.mkdir(parents=True)
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(folder / "0001_000000_leftImg8bit.png")
    Image.fromarray(np.full((2, 2, 3), (13, 0, 5), np.uint8)).save(folder / "0001_000000_panoptic.png")
    cityscapes = load_categories("cityscapes")
    named = Data.model_validate(
        {"root": tmp_path, "categories": "cityscapes", "val": {"format": "step", "split": "val"}}
    )
    plain = named.model_copy(update={"categories": None})
    for reader in (open_data(named, named.val), open_data(plain, plain.val, cityscapes)):
        (segment,) = reader.read(0).segments
        assert reader.categories[segment.label].name == "car"
        assert reader.categories[segment.label].id == 26


def test_results_on_disk_with_a_class_table_of_their_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "knet")
    truth, found = make_data(tmp_path / "truth"), make_data(tmp_path / "found")
    rename(found / "panoptic.json", SWAPPED)
    masks = {"truth_masks": truth / "masks", "prediction_masks": found / "masks"}
    assert panoptic_quality(truth / "panoptic.json", found / "panoptic.json", **masks)["all"]["pq"] == 1
    assert "found/panoptic.json numbers 2 of its 2 classes otherwise" in caplog.text
    rename(found / "panoptic.json", {2: (1, "road"), 1: (2, "vehicle")})
    with pytest.raises(
        DataError, match=r"the class 'vehicle' \(2\), .*: only it has 'vehicle'; only the truth has 'car'"
    ):
        panoptic_quality(truth / "panoptic.json", found / "panoptic.json", **masks)


def test_videos_on_disk_with_a_class_table_of_their_own(tmp_path: Path) -> None:
    rows = [{"id": 1, "name": "road", "isthing": 0}, {"id": 2, "name": "car", "isthing": 1}]
    other = [{"id": 2, "name": "Road", "isthing": 0}, {"id": 1, "name": "Car", "isthing": 1}]
    for folder, table, masks in (("truth", rows, "panoptic_video"), ("found", other, "pan_pred")):
        (tmp_path / folder / masks).mkdir(parents=True)
        ids = np.zeros((4, 4, 3), np.uint8)
        ids[:2, :, 0], ids[2:, :, 0] = 1, 2
        Image.fromarray(ids).save(tmp_path / folder / masks / "0001_0.png")
        car = next(row["id"] for row in table if str(row["name"]).lower() == "car")
        segments = [
            {"id": 1, "category_id": car, "iscrowd": 0},
            {"id": 2, "category_id": 3 - int(str(car)), "iscrowd": 0},
        ]
        annotation = {"image_id": "0001_0", "file_name": "0001_0.png", "segments_info": segments}
        content = {"images": [], "categories": table, "annotations": [annotation]}
        (tmp_path / folder / "pred.json").write_text(json.dumps(content))
    assert vpq(tmp_path / "truth/pred.json", tmp_path / "found/pred.json", windows=[1])["all"]["vpq"] == 1


def test_detections_in_a_file_with_a_class_table_of_its_own() -> None:
    square = {"size": [4, 4], "counts": [0, 8, 8]}
    row = {"id": 1, "image_id": 1, "category_id": 2, "segmentation": square, "area": 8, "iscrowd": 0}
    truth = {
        "images": [{"id": 1, "height": 4, "width": 4}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [row],
    }
    other = [{"id": 2, "name": "dog"}, {"id": 1, "name": "CAT"}]
    found: Any = {"categories": other, "annotations": [{**row, "category_id": 1, "score": 0.5}]}
    assert mask_ap(truth, found)["all"]["ap"] == 1


def test_ids_of_results_may_be_text_and_are_found_by_name_all_the_same(tmp_path: Path) -> None:
    truth, found = make_data(tmp_path / "truth"), make_data(tmp_path / "found")
    rename(found / "panoptic.json", SWAPPED)
    content = json.loads((found / "panoptic.json").read_text())
    for annotation in content["annotations"]:
        for number, segment in enumerate(annotation["segments_info"]):
            segment["category_id"] = (str, float)[number](segment["category_id"])
    (found / "panoptic.json").write_text(json.dumps(content))
    masks = {"truth_masks": truth / "masks", "prediction_masks": found / "masks"}
    assert panoptic_quality(truth / "panoptic.json", found / "panoptic.json", **masks)["all"]["pq"] == 1
    for categories, message in (
        ({"1": "car", "2": "road"}, "must be a list of rows with id and name"),
        (["car", "road"], "must be a list of rows with id and name"),
        ([{"id": 1, "name": "car"}] * 2, "has two classes with the id 1"),
        ([{"id": 1, "name": "car"}], "uses the category .*, which its own list of classes lacks"),
    ):
        (found / "panoptic.json").write_text(json.dumps({**content, "categories": categories}))
        with pytest.raises(DataError, match=message):
            panoptic_quality(truth / "panoptic.json", found / "panoptic.json", **masks)


def test_a_class_that_is_stuff_here_and_a_thing_there_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = make_data(tmp_path / "data") / "panoptic.json"
    content = json.loads(path.read_text())
    open_data(panoptic(tmp_path / "data"), panoptic(tmp_path / "data").val, CLASSES)
    assert not caplog.text
    content["categories"][1]["isthing"] = 0
    path.write_text(json.dumps(content))
    reader = open_data(panoptic(tmp_path / "data"), panoptic(tmp_path / "data").val, CLASSES)
    assert reader.categories[1].thing
    assert "panoptic.json takes 'car' for stuff, which the class table does not; the table counts" in caplog.text


def test_results_with_numbers_of_their_own_for_images_and_videos(caplog: pytest.LogCaptureFixture) -> None:
    square = {"size": [4, 4], "counts": [0, 8, 8]}
    images = [{"id": n, "file_name": name, "height": 4, "width": 4} for n, name in ((1, "a/0.png"), (2, "b/0.png"))]
    row = {"id": 1, "image_id": 1, "category_id": 2, "segmentation": square, "area": 8}
    classes = [{"id": 2, "name": "cat"}]
    truth: Any = {"images": images, "categories": classes, "annotations": [row]}
    swapped = [{**image, "id": 3 - int(str(image["id"]))} for image in images]
    theirs = [*classes, {"id": 9, "name": "a class of which nothing is found"}]
    found: Any = {"images": swapped, "categories": theirs, "annotations": [{**row, "image_id": 2, "score": 0.5}]}
    assert mask_ap(truth, found)["all"]["ap"] == 1
    found["annotations"][0]["category_id"] = 9
    with pytest.raises(DataError, match=r"something of the class 'a class of which .*; call the same classes alike"):
        mask_ap(truth, found)
    found["images"][1]["file_name"] = "c/0.png"
    found["annotations"][0] |= {"image_id": found["images"][1]["id"], "category_id": 2}
    with pytest.raises(DataError, match=r"a detection of the image 'c/0.png', which the truth does not list"):
        mask_ap(truth, found)
    videos = [
        {"id": n, "file_names": [f"{v}/0.png"], "height": 4, "width": 4, "length": 1} for n, v in ((1, "x"), (2, "y"))
    ]
    track = {"id": 1, "video_id": 1, "category_id": 2, "segmentations": [square]}
    clips: Any = {"videos": videos, "categories": classes, "annotations": [track]}
    turned = [{**video, "id": 3 - int(str(video["id"]))} for video in videos]
    tracks: Any = {"videos": turned, "categories": classes, "annotations": [{**track, "video_id": 2, "score": 0.5}]}
    assert ytvis_ap(clips, tracks)["all"]["ap"] == 1


def test_classes_that_only_one_side_has_are_taken_where_the_set_says_so(tmp_path: Path) -> None:
    folder = make_data(tmp_path / "data")
    table = [Category(7, "sky", False, (0, 0, 0)), Category(8, "CAR", True, (0, 0, 0))]
    data = panoptic(folder)
    with pytest.raises(DataError, match="only the file has 'road'; only the table has 'sky'"):
        open_data(data, data.val, table)
    said = panoptic(
        folder, val={"images": "images", "json": "panoptic.json", "masks": "masks", "classes": {"*": "void"}}
    )
    sample = open_data(said, said.val, table).read(0)
    assert [segment.label for segment in sample.segments] == [1]
    assert set(np.unique(sample.id_map)) == {0, 2}
