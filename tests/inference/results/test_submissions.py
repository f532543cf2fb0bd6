"""Submissions: what the test servers read is what was predicted, shown with evaluators equal to the servers' own."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_results import names_in, segments_of
from PIL import Image
from pycocotools import mask as official

from knet.data.categories import load_categories
from knet.data.files.masks import unpack_mask
from knet.errors import ConfigError, DataError, OutputError
from knet.evaluation import mask_ap, mean_iou, panoptic_quality
from knet.evaluation.instance_cityscapes import cityscapes_instance_ap
from knet.inference.results.segmentation import Segmentation
from knet.inference.results.submissions import (
    KINDS,
    SubmissionWriter,
    check_kind,
    coco_instance_results,
    submission_name,
)
from knet.structures import Category, Segment

CITYSCAPES = load_categories("cityscapes")
MAPILLARY = tuple(
    Category(i, row.name, row.thing, row.color)
    for i, row in enumerate(sorted(load_categories("mapillary"), key=lambda c: c.id), 1)
)
TABLES = {"cityscapes": CITYSCAPES, "mapillary": MAPILLARY}
TABLES |= {"coco": load_categories("coco_panoptic"), "ade20k": load_categories("ade20k")}
NAMES = {"cityscapes": "bonn_000003_000019", "mapillary": "bonn_000003_000019"}
NAMES |= {"coco": "000000000139", "ade20k": "ADE_test_00000001"}
PANOPTIC = {  # truth, its masks, predictions, their masks
    "cityscapes_panoptic_a": (
        "gtFine/cityscapes_panoptic_val.json",
        "gtFine/cityscapes_panoptic_val",
        "results/cityscapes_panoptic_val.json",
        "results/cityscapes_panoptic_val",
    ),
    "mapillary_panoptic_a": ("panoptic_2018.json", "panoptic", "pred.json", "pred"),
}


def near(value: float | None) -> object:
    return None if value is None else pytest.approx(value, abs=1e-6)


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path)).astype(np.int32)


def result(id_map: np.ndarray, of: dict[int, int], data: str, name: str) -> Segmentation:
    """A result from an id map and the category id of every segment."""
    rows = {category.id: category for category in TABLES[data]}
    return Segmentation(id_map, segments_of(id_map, {i: rows[c] for i, c in of.items()}), TABLES[data], name)


def from_labels(path: Path, data: str) -> Segmentation:
    """A label map as a result of one segment a class; labels outside the table are void."""
    labels, shift = pixels(path), 1 if data == "mapillary" else 0
    known = {c.id for c in TABLES[data]}
    id_map = np.where(np.isin(labels + shift, list(known)), labels + shift, 0)
    return result(id_map, {int(i): int(i) for i in np.unique(id_map) if i}, data, path.stem)


def from_panoptic(document: Path, masks: Path, data: str) -> list[Segmentation]:
    """The images of a COCO panoptic file."""
    found = []
    for row in json.loads(document.read_text())["annotations"]:
        red, green, blue = np.moveaxis(pixels(masks / row["file_name"]), 2, 0)
        of = {s["id"]: s["category_id"] for s in row["segments_info"]}
        found.append(result(red + 256 * green + 65536 * blue, of, data, row["image_id"]))
    return found


def from_instances(path: Path) -> Segmentation:
    """Cityscapes instance ids as a result; what has no category in the table is void."""
    ids = pixels(path)
    known = {c.id for c in CITYSCAPES if c.thing}
    of = {int(i): int(i) // 1000 for i in np.unique(ids) if i >= 1000 and i // 1000 in known}
    return result(np.where(np.isin(ids, list(of)), ids, 0), of, "cityscapes", path.stem)


def submit(folder: Path, kind: str, results: list[Segmentation]) -> Path:
    with SubmissionWriter(folder, kind, TABLES[kind.split("-")[0]]) as writer:
        for one in results:
            writer.write(one)
    assert writer.folder == folder / kind and not list(writer.folder.rglob(".*"))
    return writer.folder


def small(name: str, data: str = "cityscapes") -> Segmentation:
    """Two things of one class, stuff, void, and a thing without pixels."""
    id_map = np.zeros((6, 8), np.int32)
    id_map[0, 1:], id_map[3:, :3], id_map[3:, 5:] = 9, 2, 300
    ids = {"cityscapes": (26, 7), "mapillary": (56, 14), "coco": (3, 100), "ade20k": (21, 1)}[data]
    found = result(id_map, {2: ids[0], 300: ids[0], 9: ids[1]}, data, name)
    found.segments.append(Segment(5, ids[0], "car", True, 0.5, 0, (0, 0, 0, 0)))
    return found


# Read back by the evaluators


def test_cityscapes_semantic(goldens: Path, tmp_path: Path) -> None:
    case = goldens / "metrics" / "cityscapes_semantic_a"
    expected = json.loads((case / "expected.json").read_text())
    truth = [from_labels(path, "cityscapes") for path in sorted(case.rglob("*_gtFine_labelIds.png"))]
    folder = submit(tmp_path / "truth", "cityscapes-semantic", truth)
    assert names_in(folder) == ["tinytown_000000_000019.png", "tinytown_000001_000020.png"]
    assert all(Image.open(path).mode == "L" for path in folder.iterdir())
    perfect = mean_iou(case / "gtFine", folder, protocol="cityscapes")
    assert perfect["miou"] == perfect["mniou"] == perfect["category_miou"] == perfect["pixel_accuracy"] == 1
    predicted = [from_labels(path, "cityscapes") for path in sorted((case / "results").iterdir())]
    folder = submit(tmp_path / "predicted", "cityscapes-semantic", predicted)
    again = mean_iou(case / "gtFine", folder, protocol="cityscapes")
    assert again["miou"] == near(expected["averageScoreClasses"])
    assert again["mniou"] == near(expected["averageScoreInstClasses"])
    assert {row["name"]: row["iou"] for row in again["classes"].values()} == {
        row["name"]: near(expected["classScores"][row["name"]]) for row in again["classes"].values()
    }


def test_mapillary_semantic(goldens: Path, tmp_path: Path) -> None:
    case = goldens / "metrics" / "mapillary_semantic_a"
    expected = json.loads((case / "expected.json").read_text())
    labels = json.loads((case / "config.json").read_text())["labels"]
    classes = {value: label["readable"] for value, label in enumerate(labels) if label["evaluate"]}
    for source, miou in (("labels", 1.0), ("predictions", expected["mIoU"])):
        paths = sorted((case / source).iterdir())
        folder = submit(tmp_path / source, "mapillary-semantic", [from_labels(path, "mapillary") for path in paths])
        assert names_in(folder) == [path.name for path in paths]
        for path in paths:
            assert np.array_equal(pixels(folder / path.name), pixels(path))  # void included: Unlabeled is 65
        found = mean_iou(case / "labels", folder, classes=classes, protocol="mapillary")
        assert found["miou"] == near(miou)


@pytest.mark.parametrize("case", PANOPTIC)
def test_panoptic(goldens: Path, tmp_path: Path, case: str) -> None:
    data, folder = case.split("_")[0], goldens / "metrics" / case
    truth, truth_masks, predictions, prediction_masks = (folder / name for name in PANOPTIC[case])
    expected = json.loads((folder / "expected.json").read_text())
    done = submit(tmp_path / "truth", f"{data}-panoptic", from_panoptic(truth, truth_masks, data))
    assert names_in(done) == ["panoptic", "panoptic.json"]
    perfect = panoptic_quality(truth, done / "panoptic.json")
    assert [perfect[group][key] for group in ("all", "things", "stuff") for key in ("pq", "sq", "rq")] == [1.0] * 9
    predicted = from_panoptic(predictions, prediction_masks, data)
    done = submit(tmp_path / "predicted", f"{data}-panoptic", predicted)
    again = panoptic_quality(truth, done / "panoptic.json")
    for group in ("all", "things", "stuff"):
        assert again[group] == near(expected[group.title()])
    for row in json.loads((done / "panoptic.json").read_text())["annotations"]:
        assert row["file_name"] == f"{row['image_id']}.png"
        assert all(set(segment) == {"id", "category_id"} for segment in row["segments_info"])


def test_cityscapes_instance(goldens: Path, tmp_path: Path) -> None:
    case = goldens / "metrics" / "cityscapes_instance_ap_a"
    truth = [from_instances(path) for path in sorted(case.rglob("*_instanceIds.png"))]
    folder = submit(tmp_path, "cityscapes-instance", truth)
    perfect = cityscapes_instance_ap(case / "gtFine", folder)
    assert perfect["ap"] == perfect["ap50"] == 1
    assert {p.name for p in folder.glob("*.txt")} == {f"tinytown_{n:06d}_{19 + n:06d}.txt" for n in range(4)}


@pytest.mark.parametrize(("data", "label"), [("cityscapes", 26), ("mapillary", 55)])
def test_instances_line_by_line(tmp_path: Path, data: str, label: int) -> None:
    name = "bonn_000003_000019"
    one = small(f"{name}_leftImg8bit" if data == "cityscapes" else name, data)
    folder = submit(tmp_path, f"{data}-instance", [one])
    assert names_in(folder) == [f"{name}.txt", "masks"]
    lines = [line.split(" ") for line in (folder / f"{name}.txt").read_text().splitlines()]
    assert [line[1:] for line in lines] == [[str(label), "0.998000000"], [str(label), "0.700000000"]]
    for line, segment in zip(lines, (2, 300), strict=True):
        mask = Image.open(folder / line[0])
        assert mask.mode == "L" and np.array_equal(np.array(mask), np.where(one.id_map == segment, 255, 0))


def test_an_image_without_things_has_an_empty_list(tmp_path: Path) -> None:
    empty = Segmentation(np.zeros((4, 4), np.int32), [], CITYSCAPES, "bonn_000003_000019")
    folder = submit(tmp_path, "cityscapes-instance", [empty])
    assert names_in(folder) == ["bonn_000003_000019.txt"]
    assert (folder / "bonn_000003_000019.txt").read_text() == ""


def test_coco_instances(goldens: Path, tmp_path: Path) -> None:
    """Objects that do not overlap, back from the file, are the truth."""
    case = goldens / "metrics" / "coco_panoptic_real_perfect"
    truth = from_panoptic(case / "gt.json", case / "gt", "coco")
    for one in truth:
        one.name = f"{int(one.name):012d}"
    folder = submit(tmp_path, "coco-instance", truth)
    assert names_in(folder) == ["detections.json"]
    found = json.loads((folder / "detections.json").read_text())
    things = [(int(one.name), s) for one in truth for s in one.segments if s.thing]
    assert [(row["image_id"], row["category_id"]) for row in found] == [(image, s.category) for image, s in things]
    assert all(set(row) == {"image_id", "category_id", "segmentation", "score"} for row in found)
    images = [dict(zip(("id", "height", "width"), (int(one.name), *one.id_map.shape), strict=True)) for one in truth]
    categories = [{"id": c.id, "name": c.name} for c in TABLES["coco"] if c.thing]
    result = mask_ap({"images": images, "annotations": found, "categories": categories}, folder / "detections.json")
    assert result["all"]["ap"] == near(1)
    for row, (image, segment) in zip(found, things, strict=True):
        mask = unpack_mask(row["segmentation"])
        (one,) = [one for one in truth if int(one.name) == image]
        assert np.array_equal(mask, one.id_map == segment.id)
    empty = Segmentation(np.zeros((4, 4), np.int32), [], TABLES["coco"], "000000000139")
    assert json.loads((submit(tmp_path / "no", "coco-instance", [empty]) / "detections.json").read_text()) == []


def test_coco_instance_results_may_overlap() -> None:
    masks = np.zeros((3, 5, 6), bool)
    masks[0, 1:3], masks[1, 2:4] = True, True
    rows = coco_instance_results(139, masks, [1, 90, 3], np.array([0.5, 0.25, 0.9], np.float32))
    assert [(row["category_id"], row["score"]) for row in rows] == [(1, 0.5), (90, 0.25)]  # the third has no pixel
    assert json.loads(json.dumps(rows)) == rows
    assert all(
        np.array_equal(official.decode(row["segmentation"]), mask) for row, mask in zip(rows, masks, strict=False)
    )


def test_coco_panoptic(goldens: Path, tmp_path: Path) -> None:
    case = goldens / "metrics" / "coco_panoptic_real_a"
    expected = json.loads((case / "expected.json").read_text())
    predicted = from_panoptic(case / "pred.json", case / "pred", "coco")
    for one in predicted:
        one.name = f"{int(one.name):012d}"
    done = submit(tmp_path, "coco-panoptic", predicted)
    assert names_in(done) == ["panoptic", "panoptic.json"]
    for row in json.loads((done / "panoptic.json").read_text())["annotations"]:
        assert row["file_name"] == f"{row['image_id']:012d}.png"
    assert panoptic_quality(case / "gt.json", done / "panoptic.json")["all"] == near(expected["All"])


def test_ade20k(goldens: Path, tmp_path: Path) -> None:
    case = goldens / "metrics" / "ade20k_miou_a"
    expected = json.loads((case / "expected.json").read_text())
    paths = sorted((case / "predictions").iterdir())
    folder = submit(tmp_path, "ade20k-semantic", [from_labels(path, "ade20k") for path in paths])
    assert names_in(folder) == [path.name for path in paths]
    assert all(np.array_equal(pixels(folder / path.name), pixels(path)) for path in paths)
    again = mean_iou(case / "annotations", folder, protocol="ade20k")
    assert again["sceneparsing"]["score"] == near(expected["final_score_official"])


@pytest.mark.parametrize(("kind", "name"), [("coco-instance", "139"), ("coco-panoptic", "x"), ("ade20k-semantic", "1")])
def test_names_that_the_other_servers_do_not_know(kind: str, name: str) -> None:
    with pytest.raises(DataError, match=rf"'{name}' is no name of an? (COCO|ADE20K) image.*give the original files"):
        submission_name(kind, name)


def test_class_tables_of_coco_and_ade20k() -> None:
    check_kind("coco-instance", load_categories("coco_instance"))
    check_kind("coco-instance", TABLES["coco"])
    with pytest.raises(
        ConfigError, match=r"'coco-panoptic' needs a model with the 133 category ids of the class table"
    ):
        check_kind("coco-panoptic", load_categories("coco_instance"))
    with pytest.raises(ConfigError, match=r"'ade20k-semantic' needs a model with the 150 category ids .* has 7, 8, 11"):
        check_kind("ade20k-semantic", CITYSCAPES)


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_do_not_mix(tmp_path: Path, kind: str) -> None:
    data = kind.split("-")[0]
    for other in KINDS:
        submit(tmp_path, other, [small(NAMES[other.split("-")[0]], other.split("-")[0])])
    alone = submit(tmp_path / "alone", kind, [small(NAMES[data], data)])
    assert [p.name for p in sorted((tmp_path / kind).rglob("*"))] == [p.name for p in sorted(alone.rglob("*"))]


# Mistakes


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("berlin_000000_000019_leftImg8bit", "berlin_000000_000019"),
        ("berlin_000000_000019", "berlin_000000_000019"),
        ("bad-toelz_000000_000019_x/../y", "bad-toelz_000000_000019"),
    ],
)
def test_cityscapes_names(name: str, image: str) -> None:
    assert submission_name("cityscapes-panoptic", name) == image


@pytest.mark.parametrize("name", ["berlin", "berlin_0_19", "../x_000000_000019", "frame_00012", "_000000_000019", ""])
def test_names_that_the_cityscapes_server_does_not_know(tmp_path: Path, name: str) -> None:
    for kind in KINDS[:3]:
        with (
            SubmissionWriter(tmp_path, kind, CITYSCAPES) as writer,
            pytest.raises(DataError, match=r"no name of a Cityscapes image.*give the original files"),
        ):
            writer.write(small(name))
        assert not names_in(writer.folder)


@pytest.mark.parametrize("name", ["a/b", "a b", "..", "a.b", "ä", "", "a\n"])
def test_names_that_the_mapillary_server_does_not_know(tmp_path: Path, name: str) -> None:
    for kind in KINDS[3:6]:
        with (
            SubmissionWriter(tmp_path, kind, MAPILLARY) as writer,
            pytest.raises(DataError, match=r"no name of a Mapillary Vistas image"),
        ):
            writer.write(small(name, "mapillary"))
        assert not names_in(writer.folder)


def test_an_image_counts_once(tmp_path: Path) -> None:
    with SubmissionWriter(tmp_path, "cityscapes-panoptic", CITYSCAPES) as writer:
        writer.write(small("bonn_000003_000019_leftImg8bit"))
        with pytest.raises(DataError, match="'bonn_000003_000019' was written already"):
            writer.write(small("bonn_000003_000019"))
    assert len(json.loads((writer.folder / "panoptic.json").read_text())["annotations"]) == 1


@pytest.mark.parametrize("kind", KINDS[:3])
def test_a_category_that_the_table_lacks(tmp_path: Path, kind: str) -> None:
    strange = small("bonn_000003_000019")
    strange.segments[0] = Segment(2, 99, "tram", True, 0.9, 9, (0, 3, 3, 6))
    with SubmissionWriter(tmp_path, kind, CITYSCAPES) as writer, pytest.raises(DataError, match="category 99, which"):
        writer.write(strange)
    assert not names_in(writer.folder)


def test_kinds_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'cityscapes-semantics'; known are .*did you mean 'cityscapes-semantic'"):
        check_kind("cityscapes-semantics", CITYSCAPES)
    train_ids = [Category(i, c.name, c.thing, c.color) for i, c in enumerate(CITYSCAPES)]
    with pytest.raises(ConfigError, match=r"raw label ids .*; this one has 0, 1, 2, 3, 4 and 14 more"):
        SubmissionWriter(tmp_path / "out", "cityscapes-semantic", train_ids)
    for table in (CITYSCAPES, MAPILLARY[1:], MAPILLARY[:-1], load_categories("camvid"), []):
        with pytest.raises(ConfigError, match=r"'mapillary-panoptic' needs a model with category ids 1 to 65"):
            check_kind("mapillary-panoptic", table)
    assert not names_in(tmp_path)
    check_kind("mapillary-semantic", [*MAPILLARY, Category(66, "more", False, (0, 0, 0))])
    check_kind("cityscapes-panoptic", CITYSCAPES[3:])


def test_an_error_on_the_way_keeps_what_is_done(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), SubmissionWriter(tmp_path, "cityscapes-panoptic", CITYSCAPES) as writer:
        writer.write(small("bonn_000003_000019"))
        raise KeyboardInterrupt
    assert not (tmp_path / "cityscapes-panoptic" / "panoptic.json").exists()
    document = json.loads((tmp_path / "cityscapes-panoptic" / "panoptic_unfinished.json").read_text())
    assert [row["image_id"] for row in document["annotations"]] == ["bonn_000003_000019"]
    assert writer.close() == []


@pytest.mark.parametrize("kind", KINDS[:3])
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with SubmissionWriter(tmp_path, kind, CITYSCAPES) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", full)
            with pytest.raises(OutputError, match="No space left"):
                writer.write(small("bonn_000003_000019"))
        assert not [p for p in writer.folder.rglob("*") if p.is_file()]
        writer.write(small("bonn_000003_000019"))  # freed again: the image is not taken for written


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"Cannot write '.*file"):
        SubmissionWriter(tmp_path / "file", "cityscapes-semantic", CITYSCAPES)
