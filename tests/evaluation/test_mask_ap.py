"""COCO's AP: equal to pycocotools, lawful, and clear about bad input."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as official_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from knet.cli.main import main
from knet.errors import DataError
from knet.evaluation import mask_ap, report
from knet.structures import Category

KEYS = ("ap", "ap50", "ap75", "aps", "apm", "apl", "ar1", "ar10", "ar100", "ars", "arm", "arl")
NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium")
KEY_OF = dict(zip((*NAMES, "AR_large"), KEYS, strict=True))
EDGE_CASES = ["perfect", "crowd_absorbs_many", "crowd_only", "duplicate_detection", "iou_exactly_threshold"]
EDGE_CASES += ["wrong_class", "class_without_gt", "score_ties", "area_ranges"]
SIZE = (40, 60)


def near(value: float) -> object:
    """An official figure: -1 is none."""
    return None if value == -1 else pytest.approx(value, abs=1e-6)


def area(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


A, B = area(0, 0, 20, 20), area(20, 30, 40, 60)


def truth_of(*objects: dict[str, Any], images: int = 2) -> dict[str, Any]:
    rows = [{"id": n, "file_name": f"{n}.jpg", "height": SIZE[0], "width": SIZE[1]} for n in range(1, images + 1)]
    annotations = [{"id": n, "image_id": 1, "category_id": 3, "iscrowd": 0, **row} for n, row in enumerate(objects, 1)]
    return {
        "images": rows,
        "annotations": annotations,
        "categories": [{"id": 3, "name": "car"}, {"id": 5, "name": "b"}],
    }


def hit(mask: Any, score: Any = 0.9, category: Any = 3, image: Any = 1) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "segmentation": mask, "score": score}


def rle_of(mask: np.ndarray) -> dict[str, Any]:
    rle = official_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def officially(truth: dict[str, Any], predictions: list[dict[str, Any]], kind: str) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = copy.deepcopy(truth)
        known.createIndex()
        judge = COCOeval(known, known.loadRes(copy.deepcopy(predictions)), kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge


# Goldens


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_equals_pycocotools_on_real_annotations(goldens: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    folder = goldens / "metrics" / "coco_mask_ap_real_a"
    expected = json.loads((folder / "expected.json").read_text())[kind]
    result = mask_ap(folder / "gt.json", folder / "pred.json", kind)
    assert result["all"] == {KEY_OF[name]: near(value) for name, value in expected["stats"].items()}
    judged = {str(category) for category, row in result["classes"].items() if row["ap"] is not None}
    assert judged == set(expected["per_category"])
    for category, official in expected["per_category"].items():
        row = result["classes"][int(category)]
        assert (row["ap"], row["ap50"]) == (near(official["AP"]), near(official["AP50"]))
    assert sum(row["objects"] for row in result["classes"].values()) == 226 - 5  # without crowds
    assert sum(row["predictions"] for row in result["classes"].values()) == 425
    assert capfd.readouterr() == ("", "")
    truth, predictions = (json.loads((folder / f"{name}.json").read_text()) for name in ("gt", "pred"))
    before = copy.deepcopy((truth, predictions))
    assert mask_ap(truth, predictions, kind) == result
    assert (truth, predictions) == before  # what is given stays as it is


@pytest.mark.parametrize("kind", ["segm", "bbox"])
@pytest.mark.parametrize("case", EDGE_CASES)
def test_equals_pycocotools_on_edge_cases(goldens: Path, case: str, kind: str) -> None:
    folder = goldens / "metrics" / "coco_ap_edge_cases"
    expected = json.loads((folder / "expected.json").read_text())["cases"][case][kind]
    result = mask_ap(folder / case / "gt.json", folder / case / "pred.json", kind)
    assert result["all"] == {KEY_OF[name]: near(value) for name, value in expected["stats"].items()}
    for category, row in result["classes"].items():
        official = expected["per_category"].get(str(category), {"AP": -1, "AP50": -1})
        assert (row["ap"], row["ap50"]) == (near(official["AP"]), near(official["AP50"]))


def test_no_predictions_are_ap_zero(goldens: Path) -> None:
    folder = goldens / "metrics" / "coco_ap_edge_cases" / "empty_predictions"
    result = mask_ap(folder / "gt.json", folder / "pred.json")
    assert (result["all"]["ap"], result["all"]["ar100"], result["all"]["aps"]) == (0.0, 0.0, None)


# The oracle itself


@st.composite
def scenes(draw: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Rectangles and triangles of all sizes, crowds, near hits, ties of scores, two classes, three images."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def mask() -> np.ndarray:
        top, left = rng.integers(0, 30), rng.integers(0, 50)
        return area(top, left, top + 1 + rng.integers(0, 30), left + 1 + rng.integers(0, 50))

    objects, found = [], []
    for number in range(1, draw(st.integers(1, 12)) + 1):
        shape = mask()
        row = {"id": number, "image_id": int(rng.integers(1, 4)), "category_id": int(rng.choice([3, 5]))}
        row |= {"iscrowd": int(rng.random() < 0.2), "area": float(shape.sum()), "segmentation": rle_of(shape)}
        row["bbox"] = official_masks.toBbox(row["segmentation"]).tolist()
        if not row["iscrowd"] and rng.random() < 0.3:
            row["segmentation"] = [rng.uniform(-10, 70, 2 * rng.integers(3, 6)).tolist()]
        objects.append(row)
        for _ in range(rng.integers(0, 4)):
            near_by = np.roll(shape, rng.integers(-3, 4, 2), (0, 1)) if rng.random() < 0.7 else mask()
            category = row["category_id"] if rng.random() < 0.9 else 8 - row["category_id"]
            found.append(hit(rle_of(near_by), float(rng.integers(1, 5) / 4), category, row["image_id"]))
    return truth_of(*objects, images=3), found


@settings(max_examples=40)
@given(scenes(), st.sampled_from(["segm", "bbox"]))
def test_equals_pycocotools_on_random_scenes(scene: tuple[dict[str, Any], list[dict[str, Any]]], kind: str) -> None:
    truth, found = scene
    result = mask_ap(truth, found, kind)
    if not found:
        assert result["all"]["ap"] == (None if all(row["iscrowd"] for row in truth["annotations"]) else 0)
        return
    judge = officially(truth, found, kind)
    assert [result["all"][key] for key in KEYS] == [near(value) for value in judge.stats]
    for k, category in enumerate((3, 5)):
        precision = judge.eval["precision"][:, :, k, 0, -1]
        assert result["classes"][category]["ap"] == near(
            precision[precision > -1].mean() if precision.max() > -1 else -1
        )


def test_more_detections_than_count() -> None:
    """Of an image and class the 100 best count, so one more wrong detection with a high score pushes the right out."""
    truth = truth_of({"segmentation": rle_of(A), "area": 400, "bbox": [0, 0, 20, 20]})
    found = [hit(rle_of(B), 0.5 + n / 1000) for n in range(100)] + [hit(rle_of(A), 0.4)]
    assert mask_ap(truth, found)["all"]["ap50"] == 0
    assert mask_ap(truth, found[1:])["all"]["ap50"] == near(officially(truth, found[1:], "segm").stats[1])
    assert mask_ap(truth, found[1:])["all"]["ap50"] == pytest.approx(0.01, abs=1e-6)


# Laws


def test_the_truth_itself_is_perfect_in_every_form() -> None:
    polygon = [[0, 0, 20, 0, 20, 20, 0, 20]]
    runs = {"size": list(SIZE), "counts": [0, *[20, 20] * 20, SIZE[0] * 40]}
    runs["counts"][-2:] = [20 + SIZE[0] * 40]
    for form in (A, polygon, runs, rle_of(A), {**rle_of(A), "counts": rle_of(A)["counts"].encode()}):
        for kind in ("segm", "bbox"):
            result = mask_ap(truth_of({"segmentation": form}), [hit(rle_of(A))], kind)
            assert result["all"]["ap"] == result["all"]["ar1"] == pytest.approx(1)
            assert result["classes"][5]["ap"] is None
    boxes = mask_ap(truth_of({"bbox": [0, 0, 20, 20]}), [{**hit(None), "bbox": np.array([0.0, 0, 20, 20])}], "bbox")
    assert boxes["all"]["ap"] == pytest.approx(1)


def test_a_result_s_box_does_not_change_figures_by_size() -> None:
    truth = truth_of({"segmentation": rle_of(A), "area": 400})
    thin = {**hit(rle_of(area(0, 0, 1, 60)), 0.99), "bbox": [0, 0, 60, 40]}
    with_box, without = mask_ap(truth, [thin, hit(A)]), mask_ap(truth, [{**thin, "bbox": None}, hit(A)])
    assert with_box == without


def test_ids_may_be_text_and_ties_go_by_image() -> None:
    truth = truth_of({"segmentation": A}, {"segmentation": A, "image_id": 2})
    found = [hit(A, image=2), hit(B, image=1)]
    numbers = mask_ap(truth, found)
    for rows in (truth["images"], truth["annotations"], found):
        for row in rows:
            key = "image_id" if "image_id" in row else "id"
            row[key] = f"town_{row[key]}"
    assert mask_ap(truth, found) == numbers
    assert numbers["all"]["ap50"] == pytest.approx(51 / 101 * 0.5)  # the wrong one in the first image comes first


def test_classes_choose_and_name() -> None:
    truth = truth_of({"segmentation": A}, {"segmentation": B, "category_id": 5})
    both = mask_ap(truth, [hit(A)], progress=True)
    assert [(row["name"], row["ap"]) for row in both["classes"].values()] == [("car", pytest.approx(1)), ("b", 0)]
    for classes in ([Category(3, "auto", True, (0, 0, 0))], {3: "auto"}):
        one = mask_ap(truth, [hit(A), hit(B, category=5)], classes=classes)
        assert list(one["classes"]) == [3] and one["classes"][3]["name"] == "auto"
        assert one["all"]["ap"] == pytest.approx(1)


def test_classes_without_a_name_are_called_by_their_ids() -> None:
    truth = truth_of({"segmentation": A}) | {"categories": [{"id": 3}, {"id": 5}]}
    assert [row["name"] for row in mask_ap(truth, [hit(A)])["classes"].values()] == ["3", "5"]


def test_an_object_without_pixels_is_missed() -> None:
    truth = truth_of({"segmentation": A}, {"segmentation": [[100, 100, 110, 100, 110, 110]]}, {"segmentation": []})
    result = mask_ap(truth, [hit(A)])
    assert (result["all"]["ar100"], result["classes"][3]["objects"]) == (pytest.approx(1 / 3), 3)


# Reports and the command line


def test_report() -> None:
    result = mask_ap(truth_of({"segmentation": A}), [hit(A)])
    assert report.table(result).splitlines() == [
        "class               AP   AP50   AP75    APs  APm  APl    AR1   AR10  AR100    ARs  ARm  ARl  objects",
        "-" * 100,
        "car              100.0  100.0  100.0  100.0    -    -  100.0  100.0  100.0  100.0    -    -        1",
        "b                    -      -      -      -    -    -      -      -      -      -    -    -        0",
        "-" * 100,
        "mean of classes  100.0  100.0  100.0  100.0    -    -  100.0  100.0  100.0  100.0    -    -        1",
    ]
    rows = report.rows(result)
    assert [row["level"] for row in rows] == ["class", "class", "mean"]
    assert rows[0] == {
        "level": "class",
        "id": 3,
        "name": "car",
        **{k: result["classes"][3][k] for k in (*KEYS, "objects")},
    }


def test_command_line(goldens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = goldens / "metrics" / "coco_ap_edge_cases" / "area_ranges"
    command = ["eval", "--metric", "ap", "--json", "--truth", str(case / "gt.json"), "--output", str(tmp_path)]
    assert main([*command, "--predictions", str(case / "pred.json")]) == 0
    expected = mask_ap(case / "gt.json", case / "pred.json")
    assert json.loads(capsys.readouterr().out)["instance"] == json.loads(json.dumps(expected))
    assert {path.name for path in tmp_path.iterdir()} == {"instance.json", "instance.csv"}
    assert main([*command, "--predictions", str(tmp_path / "none")]) == 2
    assert "none does not exist" in capsys.readouterr().err


# Mistakes

SHORT = {"size": list(SIZE), "counts": "0b1"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": None}, r"detection 1 has the score None; every detection needs a number"),
        ({"score": float("nan")}, r"detection 1 has the score nan"),
        ({"score": "0.9"}, r"detection 1 has the score '0.9'"),
        ({"score": True}, r"detection 1 has the score True"),
        ({"image_id": 9}, r"detection 1 is of the image 9, which the truth does not list"),
        ({"image_id": [1]}, r"detection 1 is of the image \[1\]"),
        ({"category_id": 4}, r"detection 1 has the category 4, which the truth does not list"),
        ({"category_id": None}, r"detection 1 has the category None"),
        ({"segmentation": None}, r"detection 1 has no segmentation; add it"),
        ({"segmentation": rle_of(A.T)}, r"detection 1: the RLE has the size \[60, 40\], but its image \[40, 60\]"),
        ({"segmentation": SHORT}, r"detection 1: the runs of the RLE add up to \d+ pixels, its image has 2400"),
        ({"segmentation": {**SHORT, "counts": "hello"}}, r"detection 1: the counts of the RLE are damaged"),
        ({"segmentation": {**SHORT, "counts": [2401]}}, r"the runs of the RLE add up to 2401 pixels"),
        ({"segmentation": {**SHORT, "counts": [-1, 2401]}}, r"the counts of the RLE are \[-1, 2401\]; give whole"),
        ({"segmentation": [[0, 0, 5, 0, 5]]}, r"detection 1: \[0, 0, 5, 0, 5\] is no polygon"),
        ({"segmentation": [["a"] * 6]}, r"detection 1: \['a'.* is no polygon"),
        ({"segmentation": [[0, 0, 5, 0, 5, 1e12]]}, r"a corner at 1000000000000.0, far outside the image"),
        ({"segmentation": [[0, 0, 5, 0, 5, float("nan")]]}, r"a corner at nan"),
        ({"segmentation": "0b1"}, r"the segmentation is '0b1'; give polygons or RLE"),
        ({"segmentation": A.T}, r"the mask must be a \(40, 60\) array"),
    ],
)
def test_refuses_damaged_detections(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        mask_ap(truth_of({"segmentation": A}), [hit(A) | change])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [0, 0, 5]}, r"detection 1 has the box \[0, 0, 5\]; give left, top, width and height"),
        ({"bbox": [0, 0, -5, 5]}, r"has the box \[0, 0, -5, 5\]"),
        ({"segmentation": None}, r"detection 1 has no segmentation and no bbox; add it"),
    ],
)
def test_refuses_damaged_boxes(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        mask_ap(truth_of({"segmentation": A}), [hit(A) | change], "bbox")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, r"The truth must hold lists `images` and `annotations`"),
        ({"images": []}, r"The truth lists no images"),
        ({"images": [{"id": 1}]}, r"every image needs id, height and width"),
        ({"images": [{"id": 1, "height": -4, "width": -6}]}, r"every image needs id, height and width"),
        ({"images": [{"id": 1, "height": 40, "width": 60}] * 2}, r"lists the image 1 twice"),
        ({"categories": None}, r"The truth: 'categories' must be a list"),
        ({"categories": [{"id": 3}, {"id": 3}]}, r"The truth has two rows with the id 3"),
        ({"annotations": [5]}, r"annotation 1 is 5; it must hold"),
        ({"annotations": [{"image_id": 1, "category_id": 9}]}, r"annotation 1 has the category 9"),
        ({"annotations": [hit(A) | {"area": -1}]}, r"annotation 1 has the area -1; give the number of pixels"),
    ],
)
def test_refuses_damaged_truth(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        mask_ap(truth_of({"segmentation": A}) | change, [])


def test_refuses_files_that_are_no_json(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"images": [')
    with pytest.raises(DataError, match=r"The JSON file .*broken.json cannot be read"):
        mask_ap(broken, [])
    with pytest.raises(DataError, match=r"The JSON file .*nowhere.json does not exist"):
        mask_ap(truth_of(), tmp_path / "nowhere.json")
    with pytest.raises(DataError, match=r"The predictions must hold a list of detections"):
        mask_ap(truth_of(), {"annotations": []})  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"There is no kind 'mask' of average precision; use segm or bbox"):
        mask_ap(truth_of(), [], "mask")
