"""Reports: tables, CSV and JSON of the metrics' dictionaries."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from knet.errors import OutputError
from knet.evaluation import mean_iou, panoptic_quality, report
from knet.structures import Category

TABLE = [
    Category(3, "car", True, (0, 0, 0)),
    Category(7, "road", False, (0, 0, 0)),
    Category(9, "sky", False, (0, 0, 0)),
]


@pytest.fixture
def panoptic() -> dict:
    ids = np.array([[1, 1, 2, 2]])
    truth = [{"id": 1, "category_id": 3}, {"id": 2, "category_id": 7}]
    return panoptic_quality([(ids, truth)], [(np.array([[1, 1, 1, 0]]), truth[:1])], categories=TABLE)


@pytest.fixture
def semantic() -> dict:
    return mean_iou(np.array([[0, 0, 0, 1]]), np.array([[0, 0, 1, 1]]), classes=["a", "b", "c"])


def test_panoptic_table(panoptic: dict) -> None:
    assert report.table(panoptic).splitlines() == [
        "class     PQ    SQ     RQ  TP  FP  FN  N",
        "-" * 40,
        "car     66.7  66.7  100.0   1   0   0  -",
        "road     0.0   0.0    0.0   0   0   1  -",
        "sky        -     -      -   0   0   0  -",
        "-" * 40,
        "all     33.3  33.3   50.0   -   -   -  2",
        "things  66.7  66.7  100.0   -   -   -  1",
        "stuff    0.0   0.0    0.0   -   -   -  1",
    ]


def test_semantic_table(semantic: dict) -> None:
    assert report.table(semantic).splitlines() == [
        "class             IoU  pixels",
        "-----------------------------",
        "a                66.7       3",
        "b                50.0       1",
        "c                   -       0",
        "-----------------------------",
        "mean of classes  58.3       -",
        "pixel accuracy   75.0       -",
    ]


def test_cityscapes_table_has_categories_and_niou(goldens: Path) -> None:
    case = goldens / "metrics" / "cityscapes_semantic_a"
    lines = report.table(mean_iou(case / "gtFine", case / "results", protocol="cityscapes")).splitlines()
    assert [len(line) for line in lines] == [len(lines[0])] * len(lines)
    assert lines[0].split() == ["class", "IoU", "nIoU", "pixels"]
    assert [line.split() for line in lines[-3:]] == [
        ["mean", "of", "categories", "46.0", "57.0", "-"],
        ["mean", "of", "classes", "37.9", "50.5", "-"],
        ["pixel", "accuracy", "66.2", "-", "-"],
    ]
    assert len(lines) == 1 + 19 + 7 + 3 + 3  # heading, classes, categories, summary, rules


def test_csv_keeps_full_precision(panoptic: dict, semantic: dict, tmp_path: Path) -> None:
    for result in (panoptic, semantic):
        report.write_csv(result, tmp_path / "new" / "result.csv")
        with (tmp_path / "new" / "result.csv").open(newline="") as file:
            read = list(csv.DictReader(file))
        expected = [{key: "" if v is None else str(v) for key, v in row.items()} for row in report.rows(result)]
        assert read == expected
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["result.csv"]


def test_json_is_the_dictionary(panoptic: dict, tmp_path: Path) -> None:
    report.write_json(panoptic, tmp_path / "result.json")
    read = json.loads((tmp_path / "result.json").read_text())
    assert {int(key): row for key, row in read.pop("classes").items()} == panoptic.pop("classes")
    assert read == panoptic


def test_a_failed_write_leaves_the_old_file(panoptic: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "result.json"
    target.write_text("old")

    def full(self: Path, text: str, **options: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OutputError, match=r"Cannot write '.*result\.json': No space left"):
            report.write_json(panoptic, target)
    assert target.read_text() == "old"
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another folder"):
        report.write_csv(panoptic, tmp_path / "file" / "result.csv")
