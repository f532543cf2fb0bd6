"""Cityscapes instance AP: equal to the official evaluator, and lawful."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from knet.errors import DataError
from knet.evaluation import cityscapes_instance_ap, report
from knet.evaluation.instance_cityscapes import CITYSCAPES_THINGS

NAME = "town_000001_000019"
Line = tuple[np.ndarray, int, float]


def near(value: float | None) -> object:
    return None if value is None else pytest.approx(value, abs=1e-6)


def area(top: int, left: int, bottom: int, right: int, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    """A rectangle as a mask."""
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def write_truth(folder: Path, objects: dict[int, np.ndarray], name: str = NAME, ground: int = 7) -> Path:
    """An instance map of road (or `ground`) with objects {instance id: mask}."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = np.full((40, 60), ground, np.uint16)
    for number, mask in objects.items():
        ids[mask] = number
    Image.fromarray(ids).save(folder / f"{name}_gtFine_instanceIds.png")
    return folder


def write_predictions(folder: Path, lines: list[Line], name: str = NAME) -> Path:
    """The masks and their list."""
    folder.mkdir(parents=True, exist_ok=True)
    text = ""
    for n, (mask, label, confidence) in enumerate(lines):
        Image.fromarray(mask.astype(np.uint8)).save(folder / f"{name}_{n}.png")
        text += f"{name}_{n}.png {label} {confidence}\n"
    (folder / f"{name}_pred.txt").write_text(text)
    return folder


def judge(tmp_path: Path, objects: dict[int, np.ndarray], lines: list[Line], label: int = 26, ground: int = 7) -> dict:
    truth, predictions = tmp_path / "gtFine", tmp_path / "results"
    result = cityscapes_instance_ap(
        write_truth(truth, objects, ground=ground), write_predictions(predictions, lines), progress=True
    )
    return result["classes"][label]


# Goldens


@pytest.mark.parametrize("case", ["cityscapes_instance_ap_a", "cityscapes_instance_ap_ties"])
def test_equals_the_official_evaluator(goldens: Path, case: str) -> None:
    folder = goldens / "metrics" / case
    expected = json.loads((folder / "expected.json").read_text())["averages"]
    result = cityscapes_instance_ap(folder / "gtFine", folder / "results")
    assert (result["ap"], result["ap50"]) == (near(expected["allAp"]), near(expected["allAp50%"]))
    assert list(result["classes"]) == list(CITYSCAPES_THINGS)
    assert {row["name"] for row in result["classes"].values()} == set(expected["classes"])
    for row in result["classes"].values():
        official = expected["classes"][row["name"]]
        assert (row["ap"], row["ap50"]) == (near(official["ap"]), near(official["ap50%"]))


def test_reports(goldens: Path) -> None:
    case = goldens / "metrics" / "cityscapes_instance_ap_ties"
    result = cityscapes_instance_ap(case / "gtFine", case / "results")
    rows = report.rows(result)
    assert [row["level"] for row in rows] == ["class"] * 8 + ["mean"]
    car = result["classes"][26]
    assert rows[2] == {"level": "class", "id": 26, **{k: car[k] for k in ("name", "ap", "ap50", "objects")}}
    assert (rows[-1]["ap"], rows[-1]["objects"]) == (result["ap"], 10)
    lines = report.table(result).splitlines()
    assert lines[0].split() == ["class", "AP", "AP50", "objects"]
    assert lines[-1].split() == ["mean", "of", "classes", "39.4", "43.8", "10"]


# Laws

A, B = area(0, 0, 20, 20), area(20, 30, 40, 60)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -3.5, 1e30, float("inf")])
def test_the_truth_itself_is_perfect(tmp_path: Path, confidence: float) -> None:
    row = judge(tmp_path, {26000: A, 26001: B}, [(A, 26, confidence), (B, 26, 0.5)])
    assert row == {"name": "car", "ap": 1.0, "ap50": 1.0, "objects": 2, "predictions": 2}


def test_classes_without_objects_are_left_out(tmp_path: Path) -> None:
    result = cityscapes_instance_ap(
        write_truth(tmp_path / "t", {26000: A, 24001: B}), write_predictions(tmp_path / "p", [(A, 26, 1), (B, 33, 1)])
    )
    assert {label: row["ap"] for label, row in result["classes"].items()} == {
        24: 0.0, 25: None, 26: 1.0, 27: None, 28: None, 31: None, 32: None, 33: None,
    }  # fmt: skip
    assert result["ap"] == result["ap50"] == 0.5


def test_nothing_at_all_has_no_ap(tmp_path: Path) -> None:
    result = cityscapes_instance_ap(write_truth(tmp_path / "t", {}), write_predictions(tmp_path / "p", []))
    assert result["ap"] is None and result["ap50"] is None


def test_an_overlap_on_the_threshold_finds_nothing(tmp_path: Path) -> None:
    whole, half = area(0, 0, 20, 20), area(0, 0, 20, 10)
    assert judge(tmp_path / "half", {26000: whole}, [(half, 26, 1)])["ap50"] == 0
    more = half | area(0, 0, 1, 11)
    row = judge(tmp_path / "more", {26000: whole}, [(more, 26, 1)])
    assert (row["ap50"], row["ap"]) == (1.0, pytest.approx(0.1))  # found at 0.5 only


def test_of_two_for_one_object_the_less_confident_is_wrong(tmp_path: Path) -> None:
    first = judge(tmp_path / "low", {26000: A, 26001: B}, [(A, 26, 0.9), (A, 26, 0.1), (B, 26, 0.5)])
    assert first["ap50"] == 1  # the wrong one comes when everything is found
    second = judge(tmp_path / "high", {26000: A, 26001: B}, [(A, 26, 0.9), (A, 26, 0.8), (B, 26, 0.5)])
    assert second["ap50"] < first["ap50"]


def test_small_objects_groups_and_void_forgive(tmp_path: Path) -> None:
    tiny = area(30, 0, 39, 11)  # 99 pixels
    base: list[Line] = [(A, 26, 0.5)]
    for n, (ids, ground) in enumerate([({26001: tiny}, 7), ({26: tiny}, 7), ({}, 0), ({29: tiny}, 7)]):
        assert judge(tmp_path / f"{n}", {26000: A, **ids}, [*base, (tiny, 26, 0.9)], ground=ground)["ap"] == 1
    # objects of classes that are not judged are void only as groups, and other classes forgive nothing
    for n, ids in enumerate([{29000: tiny}, {33: tiny}, {33000: tiny}, {}], 10):
        assert judge(tmp_path / f"{n}", {26000: A, **ids}, [*base, (tiny, 26, 0.9)])["ap50"] < 1


def test_more_than_the_threshold_must_be_forgiven(tmp_path: Path) -> None:
    mask = area(30, 0, 40, 20)
    for n, (columns, ap50) in enumerate([(10, 0.5), (11, 1.0)]):  # 0.5 of it on void is not enough
        void = area(30, 0, 40, columns)
        row = judge(tmp_path / f"{n}", {26000: A, 0: void}, [(A, 26, 0.5), (mask, 26, 0.9)])
        assert (row["ap50"] == 1) == (ap50 == 1) and row["ap"] < 1


def test_nothing_left_to_rank_has_no_ap(tmp_path: Path) -> None:
    """Where the official code ends with an IndexError."""
    row = judge(tmp_path, {26000: A, 26: B}, [(B, 26, 0.9)])
    assert (row["ap"], row["ap50"], row["objects"], row["predictions"]) == (None, None, 1, 1)


def test_empty_masks_and_other_classes_do_not_count(tmp_path: Path) -> None:
    nothing = np.zeros((40, 60), bool)
    assert judge(tmp_path, {26000: A}, [(A, 26, 0.1), (nothing, 26, 1), (B, 11, 1), (B, 29, 1)])["predictions"] == 1


def test_a_mask_listed_twice_counts_as_the_last_line_says(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "t", {24000: A})
    predictions = write_predictions(tmp_path / "p", [(A, 26, 0.5)])
    with (predictions / f"{NAME}_pred.txt").open("a") as file:
        file.write(f"{NAME}_0.png 24.0 0.7\n")
    classes = cityscapes_instance_ap(truth, predictions)["classes"]
    assert classes[24]["ap"] == 1 and classes[26]["predictions"] == 0


def test_images_add_up(tmp_path: Path) -> None:
    truth, predictions = tmp_path / "t", tmp_path / "p"
    for n in range(3):
        write_truth(truth / f"city{n}", {26000: A, 26001: B}, f"town_{n:06d}_000019")
        write_predictions(predictions / f"part{n}", [(A, 26, 0.5)] if n else [], f"town_{n:06d}_000019")
    row = cityscapes_instance_ap(truth, predictions)["classes"][26]
    assert (row["objects"], row["predictions"], row["ap"]) == (6, 2, pytest.approx(1 / 3))


# Mistakes


def refused(tmp_path: Path, match: str) -> None:
    with pytest.raises(DataError, match=match) as error:
        cityscapes_instance_ap(tmp_path / "t", tmp_path / "p")
    assert "\n" not in str(error.value)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    write_truth(tmp_path / "t", {26000: A})
    write_predictions(tmp_path / "p", [(A, 26, 0.5)])
    return tmp_path


def test_folders_without_truth_or_predictions(good: Path) -> None:
    with pytest.raises(DataError, match=r"holds no \*_instanceIds.png"):
        cityscapes_instance_ap(good / "nowhere", good / "p")
    with pytest.raises(DataError, match=rf"no prediction for .* \(looked for \*.txt of {NAME}\)"):
        cityscapes_instance_ap(good / "t", good / "t")
    (good / "p" / f"{NAME}.txt").write_text("")
    refused(good, "holds 2 predictions for")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a.png 26\n", "line 1: 'a.png 26' is not"),
        ("a b.png 26 1\n", "is not 'mask.png labelId confidence'"),
        ("\n", "line 1: '' is not"),
        ("a.png car 1\n", "is not 'mask.png"),
        ("a.png inf 1\n", "is not 'mask.png"),
        ("a.png 34 1\n", r"label 34 and confidence 1.0; use raw label ids 0..33"),
        ("a.png 26 nan\n", "confidence nan"),
        ("../a.png 26 1\n", "lies outside"),
        ("/a.png 26 1\n", "lies outside"),
        ("a.png 26 1\n", "a.png does not exist"),
    ],
)
def test_lines_that_say_nothing(good: Path, text: str, match: str) -> None:
    (good / "p" / f"{NAME}_pred.txt").write_text(text)
    refused(good, match)


def test_files_that_hold_nothing(good: Path) -> None:
    write_predictions(good / "p", [(A[:-1], 26, 0.5)])
    refused(good, r"\(39, 60\) pixels .*its image \(40, 60\)")
    (good / "p" / f"{NAME}_pred.txt").write_bytes(b"\xff\x80")
    refused(good, "prediction file .* cannot be read")
    write_predictions(good / "p", [(A, 26, 0.5)])
    write_truth(good / "t", {34000: A})
    refused(good, "instance ids run from 7 to 34000")
    write_truth(good / "t", {255: A})
    refused(good, "instance ids run from 7 to 255")
    (truth,) = (good / "t").iterdir()
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(truth)
    refused(good, "is a colour picture")
    truth.write_bytes(b"no image")
    refused(good, "cannot be read")
