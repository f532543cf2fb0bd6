"""What `knet predict` writes is judged by `knet eval` as it lies there, without renaming."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Run, runner
from PIL import Image

from knet.data.categories import load_table
from knet.data.files.masks import pack_mask
from knet.inference.results.encoding import rle_text
from knet.inference.results.predictions import PredictionWriter
from knet.inference.results.segmentation import Segmentation
from knet.inference.results.track_writers import TrackWriter
from knet.inference.results.writers import ResultWriter
from knet.inference.sources.paths import expand_sources
from knet.inference.sources.plan import plan_images
from knet.inference.sources.streams import Frame
from knet.inference.sources.videos import Item
from knet.structures import Category, Segment

TABLE = (Category(1, "floor", False, (9, 9, 9)), Category(7, "box", True, (200, 0, 0)))
IMAGE = np.zeros((20, 30, 3), np.uint8)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


def scene(name: str, left: int, table: tuple[Category, ...] = TABLE, overlapping: bool = False) -> Segmentation:
    """A box on a floor."""
    stuff, thing = (next(c for c in table if c.thing == kind) for kind in (False, True))
    id_map = np.full((20, 30), 1, np.int32)
    id_map[5:15, left : left + 10] = 2
    floor = Segment(1, stuff.id, stuff.name, False, 0.9, 500, (0, 0, 30, 20))
    box = Segment(2, thing.id, thing.name, True, 0.8, 100, (left, 5, left + 10, 15), track=3)
    masks = {2: pack_mask(id_map == 2)} if overlapping else None
    return Segmentation(id_map, [box] if overlapping else [floor, box], table, name, masks=masks)


def figures(run: Run, *arguments: object) -> dict[str, Any]:
    status, out, err = run("eval", *arguments, "--json")
    assert status == 0, err
    return json.loads(out)


def test_classes_of_data_whose_label_values_are_not_its_ids(run: Run, tmp_path: Path) -> None:
    table = load_table("camvid")
    value_of = {c.id: value for c, value in zip(table.categories, table.label_values, strict=True)}
    assert any(value != id_ for id_, value in value_of.items())
    (tmp_path / "labels").mkdir()
    for name, left in (("1", 3), ("2", 12)):
        result = scene(name, left, table.categories)
        labels = np.vectorize(value_of.get)(result.semantic_map()).astype(np.uint8)
        Image.fromarray(labels).save(tmp_path / "labels" / f"{name}.png")
        result.save(tmp_path / "results", ["semantic", "panoptic", "instances", "overlay"], image=IMAGE)
    asked = ("--metric", "miou", "--classes", "camvid", "--truth", tmp_path / "labels")
    found = figures(run, *asked, "--predictions", tmp_path / "results")
    assert found["semantic"]["miou"] == 1
    renamed = tmp_path / "as_before"  # masks of other programs hold the data set's values
    (tmp_path / "labels").rename(renamed)
    assert figures(run, *asked[:-1], renamed, "--predictions", renamed)["semantic"]["miou"] == 1


def panoptic_truth(folder: Path, images: dict[int, tuple[str, int]]) -> Path:
    """A data set of its own numbers: id -> file name, place of the box."""
    rows: dict[str, list[Any]] = {"images": [], "annotations": []}
    for number, (name, left) in images.items():
        png = f"mask_{number}.png"
        result = scene("x", left)
        result.save(folder, ["panoptic"], name="x")
        (folder / "x_panoptic.png").rename(folder / png)
        document = json.loads((folder / "x_panoptic.json").read_text())
        row = document["annotations"][0]
        rows["images"].append({"id": number, "file_name": name, "height": 20, "width": 30})
        rows["annotations"].append({**row, "image_id": number, "file_name": png})
    (folder / "truth.json").write_text(json.dumps({**rows, "categories": document["categories"]}))
    return folder / "truth.json"


def test_images_are_paired_by_name_where_the_ids_of_the_truth_are_its_own(run: Run, tmp_path: Path) -> None:
    truth = panoptic_truth(tmp_path / "truth", {1: ("2.jpg", 3), 2: ("1.jpg", 12), 90: ("a/street.jpg", 18)})
    with ResultWriter(tmp_path / "results", ["panoptic"], TABLE) as writer:
        for name, left in (("1", 12), ("2", 3), ("street", 18), ("another", 0)):
            writer.write(scene(name, left), IMAGE, path=Path(f"{name}.jpg"))
    for predictions in ("results", "results/panoptic.json"):
        found = figures(run, "--metric", "pq", "--truth", truth, "--predictions", tmp_path / predictions)
        assert found["panoptic"]["all"]["pq"] == 1


def test_images_of_one_name_in_several_folders(run: Run, tmp_path: Path) -> None:
    for camera in ("cam1", "cam2"):
        (tmp_path / "img" / camera).mkdir(parents=True)
        Image.fromarray(IMAGE).save(tmp_path / "img" / camera / "0.jpg")
    Image.fromarray(IMAGE).save(tmp_path / "img/cam2/1.jpg")
    plan = plan_images(expand_sources([tmp_path / "img/cam1", tmp_path / "img/cam2"]))
    out = tmp_path / "results"
    with PredictionWriter(out, ["panoptic", "semantic"], TABLE, plan=plan) as writer:
        for place, left in enumerate((3, 12, 18)):
            writer.write(scene("0", left), plan.frame(place))
    rows = json.loads((out / "panoptic.json").read_text())["images"]
    assert [row["file_name"] for row in rows] == ["cam1/0.jpg", "cam2/0.jpg", "cam2/1.jpg"]
    # The truth has other numbers: 0 and 1 are not the images that results call so.
    truth = panoptic_truth(tmp_path / "truth", {0: ("cam2/1.png", 18), 1: ("cam2/0.png", 12), 2: ("val/cam1/0.png", 3)})
    found = figures(run, "--metric", "pq", "--truth", truth, "--predictions", out)
    assert found["panoptic"]["all"]["pq"] == 1
    truth = panoptic_truth(tmp_path / "truth", {0: ("cam2/1.png", 18), 1: ("cam2/0.png", 12), 2: ("cam3/0.png", 3)})
    status, _, err = run("eval", "--metric", "pq", "--truth", truth, "--predictions", out)
    assert status == 2 and "no prediction for image_id 2" in err
    for camera in ("cam1", "cam2"):
        (tmp_path / "labels" / camera).mkdir(parents=True)
        Image.fromarray(np.ones((20, 30), np.uint8)).save(tmp_path / "labels" / camera / "0.png")
    labels = ("--truth", tmp_path / "labels", "--classes", "camvid")
    status, _, err = run("eval", "--metric", "miou", *labels, "--predictions", out)
    assert status == 2 and "as 2 images are called 0, put those of each folder into" in err


@pytest.mark.parametrize(
    ("form", "metric"), [("step", "stq"), ("step", "vpq"), ("vipseg", "stq"), ("vipseg-json", "vpq")]
)
def test_tracks_with_other_numbers_of_the_same_classes(run: Run, tmp_path: Path, form: str, metric: str) -> None:
    swapped = (Category(7, "Floor", False, (9, 9, 9)), Category(3, "BOX", True, (200, 0, 0)))
    for folder, table in (("truth", TABLE), ("out", swapped)):
        with TrackWriter(tmp_path / folder, [form], table) as writer:
            writer.write(scene("drive", 3, table), Frame(Item(IMAGE, "drive_000000"), "drive", 0, 0, first=True))
    place = {"step": "panoptic", "vipseg": "vipseg", "vipseg-json": "vipseg_json/pred.json"}[form]
    truth = tmp_path / "truth" / place
    (truth / "val.txt" if form == "vipseg" else tmp_path / "other.txt").write_text("drive\n")
    if form == "vipseg-json":
        content = json.loads(truth.read_text())
        truth.write_text(json.dumps({**content, "videos": [{"video_id": "drive"}]}))
        (truth.parent / "pan_pred").rename(truth.parent / "panomasksRGB")
    asked = ("--metric", metric, "--truth", truth, "--predictions", tmp_path / "out")
    options = ("--protocol", "vipseg", *(("--windows", "1") if metric == "vpq" else ()))
    assert figures(run, *asked, *options)[metric]["all"][metric] == 1
    if form == "step":
        rows = json.loads((tmp_path / "out/semantic_classes.json").read_text())["categories"]
        rows[1]["name"] = "crate"
        (tmp_path / "out/semantic_classes.json").write_text(json.dumps({"categories": rows}))
        status, _, err = run("eval", *asked, *options)
        assert status == 2 and "something of the class 'crate' (3), which the truth lacks" in err


def test_tracks_of_both_forms_of_vpq_in_one_folder(run: Run, tmp_path: Path) -> None:
    with TrackWriter(tmp_path / "out", ["vipseg-json", "cityscapes-vps-json"], TABLE) as writer:
        writer.write(scene("drive", 3), Frame(Item(IMAGE, "drive_000000"), "drive", 0, 0, first=True))
    kinds = [{"id": c.id, "name": c.name, "isthing": int(c.thing)} for c in TABLE]
    for form, more in (("vipseg", {"videos": [{"video_id": "drive"}]}), ("cityscapes_vps", {})):
        content = json.loads((tmp_path / "out" / f"{form}_json/pred.json").read_text())
        masks = tmp_path / form / ("panomasksRGB" if more else "panoptic_video")
        shutil.copytree(tmp_path / "out" / f"{form}_json/pan_pred", masks)
        truth = masks.parent / "truth.json"
        truth.write_text(json.dumps({**content, **more, "categories": kinds}))
        asked = ("--truth", truth, "--predictions", tmp_path / "out", "--protocol", "vipseg")
        assert figures(run, "--metric", "stq", *asked)["stq"]["all"]["stq"] == 1


def test_the_folders_of_masks_are_options(run: Run, tmp_path: Path) -> None:
    truth = panoptic_truth(tmp_path / "truth", {1: ("1.jpg", 3)})
    with ResultWriter(tmp_path / "results", ["panoptic"], TABLE) as writer:
        writer.write(scene("1", 3), IMAGE, path=Path("1.jpg"))
    for name, json_file in (("truth", "truth.json"), ("results", "panoptic.json")):
        (tmp_path / name / json_file).rename(tmp_path / json_file)
    asked = ("--metric", "pq", "--truth", tmp_path / "truth.json", "--predictions", tmp_path / "panoptic.json")
    assert run("eval", *asked)[0] == 2
    masks = ("--truth-masks", truth.parent, "--prediction-masks", tmp_path / "results")
    assert figures(run, *asked, *masks)["panoptic"]["all"]["pq"] == 1
    status, _, err = run("eval", "--metric", "miou", *asked[2:], "--truth-masks", truth.parent)
    assert status == 2 and "--truth-masks belongs to --metric pq" in err


def test_objects_of_own_data(run: Run, tmp_path: Path) -> None:
    found, truth = scene("street", 3, overlapping=True), tmp_path / "truth.json"
    box = {"category_id": 7, "segmentation": rle_text(found.rle(found.segments[0])), "area": 100, "iscrowd": 0}
    images = [{"id": 41, "file_name": "val/street.jpg", "height": 20, "width": 30}]
    content = {"images": images, "annotations": [{"id": 1, "image_id": 41, "bbox": [3, 5, 10, 10], **box}]}
    truth.write_text(json.dumps({**content, "categories": [{"id": 7, "name": "box"}]}))
    found.save(tmp_path / "results", ["json", "overlay"], image=IMAGE)
    asked = ("--metric", "ap", "--truth", truth, "--predictions", tmp_path / "results")
    assert figures(run, *asked)["instance"]["all"]["ap"] == pytest.approx(1)
    scene("street", 3).save(tmp_path / "results", ["json"])
    status, _, err = run("eval", *asked)
    assert status == 2 and "holds no masks" in err and "--metric pq" in err
    (tmp_path / "results" / "street_segments.json").rename(tmp_path / "results" / "other_segments.json")
    status, _, err = run("eval", *asked)
    assert status == 2 and "holds no street_segments.json for val/street.jpg" in err


def test_tracks_beside_other_results(run: Run, tmp_path: Path) -> None:
    table = (Category(7, "road", False, (1, 2, 3)), Category(13, "car", True, (4, 5, 6)))
    for folder, formats in (("truth", ["step"]), ("results", ["step", "vipseg", "cityscapes-vps"])):
        with (
            TrackWriter(tmp_path / folder, formats, table) as writer,
            ResultWriter(tmp_path / folder, ["panoptic"] if folder == "results" else [], table) as others,
        ):
            for number in range(3):
                result = scene(f"0007_{number:06d}", 3 + 2 * number, table)
                writer.write(result, Frame(Item(IMAGE, result.name), "0007", number, number, number == 0))
                others.write(result, IMAGE)
    asked = ("--metric", "stq", "--classes", "kitti_step", "--truth", tmp_path / "truth" / "panoptic")
    assert figures(run, *asked, "--predictions", tmp_path / "results")["stq"]["all"]["stq"] == pytest.approx(1)
