"""`knet eval --metric miou`: the protocol by which void counts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from command_line import Run, runner


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


def test_mapillarys_protocol_gives_its_evaluators_figures(run: Run, goldens: Any) -> None:
    folder = goldens / "metrics" / "mapillary_semantic_a"
    expected = json.loads((folder / "expected.json").read_text())
    files = ("--truth", str(folder / "labels"), "--predictions", str(folder / "predictions"), "--json")

    def miou(*options: str) -> float:
        status, out, err = run("eval", "--metric", "miou", *files, *options)
        assert status == 0, err
        rows = json.loads(out)["semantic"]["classes"].values()
        if "mean" not in options:
            ious = {row["name"]: row["iou"] for row in rows if row["iou"] is not None}
            assert ious == pytest.approx({name: iou for name, iou in expected["class_iou"].items() if iou is not None})
        return float(json.loads(out)["semantic"]["miou"])

    assert miou("--protocol", "mapillary") == pytest.approx(expected["mIoU"])
    assert miou("--classes", "mapillary") == pytest.approx(expected["mIoU"])
    assert miou("--classes", "mapillary", "--protocol", "mean") < expected["mIoU"]  # Unlabeled is a miss there


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--protocol", "official"), "--protocol official is none of --metric miou; use mean, mapillary, cityscapes"),
        (("--protocol", "ade20k", "--classes", "camvid"), "ade20k has its own classes; leave --classes camvid out"),
        (("--protocol", "mean"), "--metric miou needs --classes"),
    ],
)
def test_protocols_that_do_not_fit(run: Run, options: tuple[str, ...], words: str) -> None:
    status, _, err = run("eval", "--metric", "miou", "--truth", "a", "--predictions", "b", *options)
    assert status == 2 and words in err and err.count("\n") == 1
