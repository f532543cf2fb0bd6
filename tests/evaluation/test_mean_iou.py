"""Mean IoU: equal to the Cityscapes and Mapillary evaluators, and lawful."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from knet.errors import DataError, KNetError
from knet.evaluation import ConfusionMatrix, mean_iou
from knet.structures import Category

SCENES = ["cityscapes_semantic_a", "cityscapes_semantic_single"]


def near(value: float | None) -> object:
    return None if value is None else pytest.approx(value, abs=1e-6)


# Goldens


@pytest.mark.parametrize("case", SCENES)
def test_equals_the_cityscapes_evaluator(goldens: Path, case: str) -> None:
    folder = goldens / "metrics" / case
    expected = json.loads((folder / "expected.json").read_text())
    result = mean_iou(folder / "gtFine", folder / "results", protocol="cityscapes", progress=True)
    assert result["miou"] == near(expected["averageScoreClasses"])
    assert result["mniou"] == near(expected["averageScoreInstClasses"])
    assert result["category_miou"] == near(expected["averageScoreCategories"])
    assert result["category_mniou"] == near(expected["averageScoreInstCategories"])
    assert len(result["classes"]) == 19
    for row in result["classes"].values():
        assert row["iou"] == near(expected["classScores"].pop(row["name"]))
        assert row["niou"] == near(expected["classInstScores"].pop(row["name"]))
    assert len(result["categories"]) == 7
    for name, row in result["categories"].items():
        assert row["iou"] == near(expected["categoryScores"].pop(name))
        assert row["niou"] == near(expected["categoryInstScores"].pop(name))
    left = {**expected["classScores"], **expected["classInstScores"], **expected["categoryScores"]}
    assert set(left.values()) == {None}  # what the official code does not judge
    matrix = np.array(expected["confMatrix_rows_gt_cols_pred"])
    judged = list(result["classes"])
    assert [row["pixels"] for row in result["classes"].values()] == matrix[judged].sum(axis=1).tolist()
    assert result["pixel_accuracy"] == near(np.trace(matrix[np.ix_(judged, judged)]) / matrix[judged].sum())


@pytest.mark.parametrize("case", SCENES)
def test_cityscapes_from_arrays_and_files_is_the_same(goldens: Path, case: str) -> None:
    folder = goldens / "metrics" / case
    whole = mean_iou(folder / "gtFine", folder / "results", protocol="cityscapes")
    truth = sorted(folder.rglob("*_labelIds.png"))
    files, predictions = [p for p in truth if "gtFine" in p.parts], sorted((folder / "results").iterdir())
    maps = [[np.asarray(Image.open(p)) for p in paths] for paths in (files, predictions)]
    instances = [np.asarray(Image.open(p)) for p in sorted(folder.rglob("*_instanceIds.png"))]
    assert mean_iou(files, predictions, protocol="cityscapes") == whole
    assert mean_iou(*maps, protocol="cityscapes", instances=instances) == whole
    without = mean_iou(*maps, protocol="cityscapes")
    assert (without["miou"], without["mniou"]) == (whole["miou"], None)
    assert {row["niou"] for row in without["categories"].values()} == {None}


def test_equals_the_mapillary_evaluator(goldens: Path) -> None:
    folder = goldens / "metrics" / "mapillary_semantic_a"
    expected = json.loads((folder / "expected.json").read_text())
    labels = json.loads((folder / "config.json").read_text())["labels"]
    classes = {value: label["readable"] for value, label in enumerate(labels) if label["evaluate"]}
    result = mean_iou(folder / "labels", folder / "predictions", classes=classes, protocol="mapillary")
    assert result["miou"] == near(expected["mIoU"])
    assert {row["name"]: row["iou"] for row in result["classes"].values()} == {
        name: near(value) for name, value in expected["class_iou"].items()
    }
    strict = mean_iou(folder / "labels", folder / "predictions", classes=classes)
    assert strict["miou"] < result["miou"]  # "mean" counts pixels that are predicted as Unlabeled as missed


# Hand-made numbers


def test_void_by_protocol() -> None:
    truth, predicted = np.array([[0, 0, 1, 9]]), np.array([[0, 9, 1, 0]])
    strict = mean_iou(truth, predicted, classes=["a", "b", "c"])
    assert [row["iou"] for row in strict["classes"].values()] == [0.5, 1.0, None]
    assert (strict["miou"], strict["pixel_accuracy"]) == (0.75, near(2 / 3))
    lenient = mean_iou(truth, predicted, classes=["a", "b", "c"], protocol="mapillary")
    assert (lenient["miou"], lenient["pixel_accuracy"]) == (1.0, 1.0)


def test_nothing_labelled_gives_none() -> None:
    result = mean_iou(np.full((2, 2), 255, np.uint8), np.zeros((2, 2), np.uint8), classes=["a"])
    assert (result["miou"], result["pixel_accuracy"], result["classes"][0]["iou"]) == (None, None, None)
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize(
    ("option", "value"),
    [("protocol", np.array([])), ("classes", np.array(0.5)), ("predictions", np.float64(0.5)), ("classes", 3)],
)
def test_options_that_are_arrays_or_numbers(option: str, value: Any) -> None:
    maps = [np.zeros((2, 2), np.uint8)]
    options: dict[str, Any] = {"truth": maps, "predictions": maps, "classes": ["a"], "protocol": "mean", option: value}
    with pytest.raises(KNetError):
        mean_iou(**options)


def test_class_tables_mean_the_same() -> None:
    truth, predicted = np.array([[7, 8, 8]], np.uint8), np.array([[7, 8, 7]], np.uint8)
    table = [Category(7, "road", False, (0, 0, 0)), Category(8, "sidewalk", False, (0, 0, 0))]
    assert mean_iou(truth, predicted, classes=table) == mean_iou(truth, predicted, classes={7: "road", 8: "sidewalk"})
    assert mean_iou(truth - 7, predicted - 7, classes=["road", "sidewalk"])["miou"] == 0.5


def test_an_unjudged_class_of_the_category_finds_an_instances_category() -> None:
    truth, instances = np.full((2, 5), 26), np.full((2, 5), 26001)
    predicted = np.array([[26] * 5, [30] * 5])  # half of the car is called a trailer
    result = mean_iou(truth, predicted, protocol="cityscapes", instances=instances)
    assert (result["classes"][26]["niou"], result["categories"]["vehicle"]["niou"]) == (0.5, 1.0)
    assert result["categories"]["vehicle"]["iou"] == 0.5


def test_instances_weigh_the_same_whatever_their_size() -> None:
    instances = np.array([[26001] * 8 + [26002] * 2 + [29001, 26]])
    predicted = np.array([[26] * 8 + [7] * 4])
    result = mean_iou(instances // 1000, predicted, protocol="cityscapes", instances=instances)
    assert result["classes"][26]["niou"] == pytest.approx(0.5)
    assert result["classes"][26]["iou"] == pytest.approx(0.8)


# Laws


maps = st.integers(1, 8).flatmap(
    lambda n: st.tuples(
        *[st.lists(st.integers(-1, 5), min_size=n, max_size=n).map(lambda row: np.array([row])) for _ in range(2)]
    )
)
NAMES = ["a", "b", "c", "d"]


@given(maps)
@settings(deadline=None)  # machines that do other work, too, must not fail a test by being slow
def test_truth_against_itself_is_perfect(pair: tuple) -> None:
    result = mean_iou(pair[0], pair[0], classes=NAMES)
    labelled = bool(((pair[0] >= 0) & (pair[0] < 4)).any())
    assert (result["miou"], result["pixel_accuracy"]) == ((1.0, 1.0) if labelled else (None, None))


@given(maps)
@settings(deadline=None)  # machines that do other work, too, must not fail a test by being slow
def test_equals_the_definition(pair: tuple) -> None:
    truth, predicted = pair
    known = (truth >= 0) & (truth < 4)
    rows = mean_iou(truth, predicted, classes=NAMES)["classes"]
    for value, row in rows.items():
        union = (known & ((truth == value) | (predicted == value))).sum()
        both = ((truth == value) & (predicted == value)).sum()
        assert row["iou"] == (both / union if union else None)


@given(maps)
@settings(deadline=None)  # machines that do other work, too, must not fail a test by being slow
def test_without_void_truth_and_prediction_may_swap(pair: tuple) -> None:
    truth, predicted = (np.clip(labels, 0, 3) for labels in pair)
    one, other = (mean_iou(*p, classes=NAMES) for p in ((truth, predicted), (predicted, truth)))
    assert one["miou"] == other["miou"]
    assert one["pixel_accuracy"] == other["pixel_accuracy"]


@given(maps, st.permutations(range(4)))
@settings(deadline=None)
def test_the_order_of_the_classes_changes_nothing(pair: tuple, order: list) -> None:
    names = np.array([*order, 5, 5, 5])  # the last entry is void's, for -1
    first = mean_iou(*pair, classes=NAMES)
    second = mean_iou(names[pair[0]], names[pair[1]], classes=NAMES)
    assert second["miou"] == near(first["miou"])


@given(st.lists(maps, min_size=2, max_size=4), st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_merged_matrices_equal_one(pairs: list, cut: int) -> None:
    whole, left, right = ConfusionMatrix(4), ConfusionMatrix(4), ConfusionMatrix(4)
    for index, pair in enumerate(pairs):
        whole.add(*pair)
        (left if index < cut else right).add(*pair)
    left.merge(right)
    assert (left.counts == whole.counts).all()


@given(maps)
@settings(deadline=None)  # machines that do other work, too, must not fail a test by being slow
def test_grouping_counts_equals_grouping_labels(pair: tuple) -> None:
    fine, coarse = ConfusionMatrix(4), ConfusionMatrix(2)
    fine.add(*pair)
    table = np.array([0, 1, 0, 9, 9, 9, 9])
    coarse.add(*(table[labels] for labels in pair))
    assert (fine.group([[0, 2], [1]]).counts == coarse.counts).all()


# Folders


def label_map(path: Path, values: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array([values], np.uint8)).save(path)


def test_folders_are_paired_by_path_then_by_name(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png", "2.png"):
        label_map(tmp_path / "truth" / name, [0, 1])
    for name, values in (("a/1.png", [0, 1]), ("b/1.png", [0, 0]), ("deep/2.png", [0, 1]), ("extra.png", [0])):
        label_map(tmp_path / "found" / name, values)
    assert mean_iou(tmp_path / "truth", tmp_path / "found", classes=NAMES)["pixel_accuracy"] == near(5 / 6)


def test_palette_images_give_their_indices(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putdata([3, 1])
    image.putpalette([9] * 768)
    image.save(tmp_path / "palette.png")
    assert mean_iou(np.array([[3, 1]]), tmp_path / "palette.png", classes=NAMES)["miou"] == 1


def test_one_wide_map_is_counted(tmp_path: Path) -> None:
    truth = np.random.default_rng(0).integers(0, 65536, (16, 16)).astype(np.uint16)
    assert mean_iou(truth, truth.astype(np.int64), classes={int(truth[0, 0]): "one"})["miou"] == 1


# Errors


@pytest.mark.parametrize(
    ("truth", "predicted", "options", "message"),
    [
        ([[0]], [[0]], {"classes": ["a"], "protocol": "best"}, "no protocol 'best'.*mean, mapillary, cityscapes"),
        ([[0]], [[0]], {}, "'mean' needs `classes`"),
        ([[0]], [[0]], {"protocol": "mapillary"}, "'mapillary' needs `classes`"),
        ([[7]], [[7]], {"protocol": "cityscapes", "classes": ["a"]}, "has its own classes"),
        ([[7]], [[255]], {"protocol": "cityscapes"}, r"\(prediction\).*255.*road is 7.*not on training labels"),
        ([[-1]], [[7]], {"protocol": "cityscapes"}, r"\(truth\): pixel values run from -1"),
        ([[7]], [[7]], {"protocol": "cityscapes", "instances": [[[7001]]]}, "7001 is of label 7, which has no"),
        ([[7]], [[7]], {"protocol": "cityscapes", "instances": [[[7, 7]]]}, r"\(instances\).*\(1, 2\)"),
        ([[0]], [[0]], {"classes": ["a"], "instances": [[[1]]]}, "which the protocol 'mean' does not have"),
        ([[0]], [[0]], {"classes": []}, "at least one class"),
        ([[0]], [[0]], {"classes": {-1: "a"}}, "'a' has the pixel value -1"),
        ([[0]], [[0]], {"classes": [Category(4, n, False, (0, 0, 0)) for n in "ab"]}, "'b' has the pixel value 4"),
        ([[0]], [[0, 0]], {"classes": ["a"]}, r"image 0: the prediction has \(1, 2\) pixels"),
        ([[0]], [0], {"classes": ["a"]}, r"image 0 \(prediction\).*integer array, not \(1,\)"),
        ([[0.5]], [[0]], {"classes": ["a"]}, r"image 0 \(truth\).*float64"),
    ],
)
def test_refuses_what_contradicts(truth: list, predicted: list, options: dict, message: str) -> None:
    if "instances" in options:
        options = {**options, "instances": [np.array(item) for item in options["instances"]]}
    with pytest.raises(DataError, match=message):
        mean_iou(np.array(truth), np.array(predicted), **options)


def test_refuses_unequal_numbers() -> None:
    with pytest.raises(DataError, match="1 truth images and 0 predictions"):
        mean_iou([np.zeros((1, 1), int)], [], classes=NAMES)
    with pytest.raises(DataError, match="0 truth images"):
        mean_iou([], [], classes=NAMES)
    with pytest.raises(DataError, match="4 and 3 classes cannot be merged"):
        ConfusionMatrix(4).merge(ConfusionMatrix(3))


def test_a_prediction_of_another_folder_is_not_taken_for_its_bare_name(tmp_path: Path) -> None:
    truth, found = tmp_path / "truth", tmp_path / "found"
    for camera in ("cam1", "cam2"):
        label_map(truth / camera / "0.png", [0])
    label_map(found / "cam2/0.png", [0])
    with pytest.raises(DataError, match=r"found holds no prediction for .*cam1/0\.png"):
        mean_iou(truth, found, classes=NAMES)


def test_refuses_folders_that_do_not_fit(tmp_path: Path) -> None:
    truth, found = tmp_path / "truth", tmp_path / "found"
    label_map(truth / "1.png", [0])
    found.mkdir()
    with pytest.raises(DataError, match=r"found holds no prediction for .*1\.png"):
        mean_iou(truth, found, classes=NAMES)
    label_map(found / "a/1.png", [0])
    label_map(found / "b/1.png", [0])
    with pytest.raises(DataError, match=r"found holds 2 predictions for .*1\.png"):
        mean_iou(truth, found, classes=NAMES)
    with pytest.raises(DataError, match=r"truth holds no \*_labelIds\.png"):
        mean_iou(truth, found, protocol="cityscapes")
    with pytest.raises(DataError, match=r"absent\.png does not exist"):
        mean_iou(tmp_path / "absent.png", truth / "1.png", classes=NAMES)
    (truth / "1.png").write_text("no image")
    with pytest.raises(DataError, match=r"1\.png cannot be read"):
        mean_iou(truth / "1.png", truth / "1.png", classes=NAMES)
    Image.new("RGB", (2, 2)).save(truth / "1.png")
    with pytest.raises(DataError, match=r"1\.png is a colour picture; a label PNG must have one channel"):
        mean_iou(truth / "1.png", truth / "1.png", classes=NAMES)


def test_refuses_instance_maps_for_some_images_only(goldens: Path, tmp_path: Path) -> None:
    shutil.copytree(goldens / "metrics" / SCENES[0], tmp_path / "case")
    next((tmp_path / "case").rglob("*_instanceIds.png")).unlink()
    with pytest.raises(DataError, match="1 instance maps for 2 truth images"):
        mean_iou(tmp_path / "case/gtFine", tmp_path / "case/results", protocol="cityscapes")


def test_pixels_are_category_ids_only_in_what_predict_wrote(tmp_path: Path) -> None:
    values = np.array([[0, 1, 1, 0]], np.uint8)
    ids = np.array([7, 9], np.uint8)
    paths = {name: tmp_path / name for name in ("truth.png", "other.png", "image_semantic.png")}
    for name, pixels in zip(paths, (values, values, ids[values]), strict=True):
        Image.fromarray(pixels).save(paths[name])
    truth, names = paths["truth.png"], {0: "road", 1: "car"}
    for name in ("other.png", "image_semantic.png"):
        assert mean_iou(truth, paths[name], classes=names, ids=[7, 9])["miou"] == 1
    with pytest.raises(DataError, match=r"the ids 7, 9, which the class table lacks"):
        mean_iou(truth, paths["image_semantic.png"], classes=names)
    assert mean_iou(truth, ids[values], classes=names, ids=[7, 9])["miou"] == 0  # an array has no name


def test_pixel_values_of_classes_reach_from_0_to_the_largest() -> None:
    image = np.array([[0, 2**24 - 1]])
    assert mean_iou(image, image, classes={0: "first", 2**24 - 1: "last"})["miou"] == 1
    for value in (-1, 2**24):
        with pytest.raises(DataError, match=f"pixel value {value}; give each its own, 0 to 16777215"):
            mean_iou(image, image, classes={value: "none"})
