"""Progress bars: on a terminal and where they are asked for, and nowhere else."""

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from knet.evaluation import cityscapes_instance_ap, mask_ap, mean_iou, panoptic_quality, stq, vpq, ytvis_ap
from knet.structures import Category

CAR = [Category(5, "car", True, (0, 0, 1))]


def objects(whole: str, **more: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A truth with one object, and a detection of it."""
    square = {"size": [4, 4], "counts": [0, 8, 8]}
    row = {f"{whole}_id": 1, "category_id": 5, "segmentation": square, "segmentations": [square], "area": 8}
    image = {"id": 1, "height": 4, "width": 4, **more}
    truth = {f"{whole}s": [image], "categories": [{"id": 5, "name": "car"}], "annotations": [{**row, "id": 1}]}
    return truth, [{**row, "score": 0.5}]


def video(folder: Path) -> Path:
    folder.mkdir()
    Image.fromarray(np.full((2, 2, 3), 5, np.uint8)).save(folder / "0001_000000_panoptic.png")
    return folder


def cityscapes(folder: Path) -> Path:
    folder.mkdir()
    Image.fromarray(np.full((20, 20), 26001, np.uint16)).save(folder / "a_1_2_gtFine_instanceIds.png")
    Image.fromarray(np.ones((20, 20), np.uint8)).save(folder / "mask.png")
    (folder / "a_1_2_pred.txt").write_text("mask.png 26 0.5\n")
    return folder


MAP = np.ones((2, 2), np.int64)
ONE = [(MAP, [{"id": 1, "category_id": 5}])]
METRICS: list[tuple[Callable[..., Any], str]] = [
    (lambda folder, **o: panoptic_quality(ONE, ONE, categories=CAR, **o), "PQ: .* 1/1 .*image"),
    (lambda folder, **o: mean_iou(MAP, MAP, classes={1: "a"}, **o), "mIoU: .* 1/1 .*image"),
    (lambda folder, **o: mask_ap(*objects("image"), **o), "annotations: .*(?s:.)*detections: .*1/1"),
    (lambda folder, **o: ytvis_ap(*objects("video", length=1), **o), "annotations(?s:.)*tracks: "),
    (lambda folder, **o: stq(video(folder), folder, CAR, **o), "STQ: .* 1/1 .*frame"),
    (lambda folder, **o: vpq(video(folder), folder, CAR, **o), "VPQ: .* 1/1 .*frame"),
    (
        lambda folder, **o: cityscapes_instance_ap(cityscapes(folder), folder, **o),
        "AP: .* 1/1 .*image",
    ),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("metric", "bar"), METRICS, ids=[bar.split(":")[0] for _, bar in METRICS])
def test_a_bar_is_shown_where_it_is_asked_for_and_somebody_looks(
    metric: Callable[..., Any], bar: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [(Terminal(), {"progress": True}), (Terminal(), {"progress": False}), (Terminal(), {})]
    for number, (screen, options) in enumerate([*asked, (io.StringIO(), {"progress": True})]):
        monkeypatch.setattr(sys, "stderr", screen)
        metric(tmp_path / str(number), **options)
        shown = screen.getvalue()
        assert re.search(bar, shown) if number == 0 else not shown
