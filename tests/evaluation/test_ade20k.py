"""ADE20K: both conventions of mean IoU, and the label PNGs as training data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from knet.data.readers.label_folder import LabelFolder
from knet.errors import DataError
from knet.evaluation import mean_iou, report

CASE = "ade20k_miou_a"


def near(value: float) -> object:
    return pytest.approx(value, abs=1e-6)


def test_equals_the_official_evaluator_and_mmsegmentation(goldens: Path) -> None:
    folder = goldens / "metrics" / CASE
    expected = json.loads((folder / "expected.json").read_text())
    result = mean_iou(folder / "annotations", folder / "predictions", protocol="ade20k", progress=True)
    assert result["sceneparsing"] == {
        "miou": near(expected["mean_iou_official_all_150_classes"]),
        "pixel_accuracy": near(expected["pixel_accuracy"]),
        "score": near(expected["final_score_official"]),
    }
    present = expected["present_class_protocol"]
    assert result["mmsegmentation"] == {
        "miou": near(present["mIoU"]),
        "macc": near(present["mAcc"]),
        "pixel_accuracy": near(present["aAcc"]),
    }
    assert result["miou"] == result["mmsegmentation"]["miou"]
    assert list(result["classes"]) == list(range(1, 151))
    for value, row in result["classes"].items():
        union = expected["area_union"].get(str(value))
        official = None if union is None else near(expected["area_intersection"][str(value)] / union)
        assert row["iou"] == official


def test_what_a_missing_class_and_a_void_prediction_count() -> None:
    truth, predicted = np.array([[1, 1, 2, 0]]), np.array([[1, 0, 2, 3]])
    result = mean_iou(truth, predicted, protocol="ade20k", classes={1: "wall", 2: "building", 3: "sky"})
    assert [row["iou"] for row in result["classes"].values()] == [0.5, 1.0, None]
    assert result["mmsegmentation"] == {"miou": 0.75, "macc": 0.75, "pixel_accuracy": near(2 / 3)}
    assert result["sceneparsing"] == {"miou": 0.5, "pixel_accuracy": near(2 / 3), "score": near(7 / 12)}
    nothing = mean_iou(truth * 0, predicted, protocol="ade20k")
    assert nothing["mmsegmentation"] == {"miou": None, "macc": None, "pixel_accuracy": None}
    assert nothing["sceneparsing"] == {"miou": 0.0, "pixel_accuracy": None, "score": None}


def test_report_names_both(goldens: Path) -> None:
    folder = goldens / "metrics" / CASE
    result = mean_iou(folder / "annotations", folder / "predictions", protocol="ade20k")
    text = report.table(result)
    assert [" ".join(line.split()) for line in text.splitlines()[-4:]] == [
        "mean of the classes that occur (mmsegmentation) 41.9 -",
        "mean of all classes (sceneparsing) 3.4 -",
        "score (sceneparsing) 41.7 -",
        "pixel accuracy 80.0 -",
    ]


@pytest.mark.parametrize("value", [151, 255])
def test_labels_above_150_are_refused(value: int) -> None:
    right, wrong = np.array([[1, 2]], np.uint8), np.array([[1, value]], np.uint8)
    for maps, which in (((wrong, right), "truth"), ((right, wrong), "prediction")):
        with pytest.raises(DataError, match=rf"\({which}\): pixel values run from 1 to {value}; ADE20K .* 0\.\.150"):
            mean_iou(*maps, protocol="ade20k")


def ade_root(folder: Path, labels: np.ndarray) -> tuple[Path, Path]:
    """Folders of one image and its annotation, named and stored as ADE20K's."""
    images, annotations = folder / "images" / "training", folder / "annotations" / "training"
    for path in (images, annotations):
        path.mkdir(parents=True)
    Image.fromarray(np.zeros((*labels.shape, 3), np.uint8)).save(images / "ADE_train_00000001.jpg")
    Image.fromarray(labels).save(annotations / "ADE_train_00000001.png")
    return images, annotations


def test_label_folder_reads_ade20k(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 1, 150], [150, 2, 0, 0]], np.uint8)
    reader = LabelFolder(*ade_root(tmp_path, labels), "ade20k")
    assert len(reader.categories) == 150
    sample = reader.read(0)
    assert sample.name == "ADE_train_00000001"
    assert np.array_equal(reader.read_label_map(0), labels.astype(np.int32) - 1)  # 0 is void
    assert [segment.label for segment in sample.segments] == [0, 1, 149]


def test_label_folder_refuses_labels_above_150(tmp_path: Path) -> None:
    reader = LabelFolder(*ade_root(tmp_path, np.array([[1, 151], [255, 0]], np.uint8)), "ade20k")
    with pytest.raises(DataError, match=r"ADE_train_00000001.png has the pixel value 151, 255, which is neither"):
        reader.read(0)
