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
    (lambda folder, progress: panoptic_quality(ONE, ONE, categories=CAR, progress=progress), "PQ: .* 1/1 .*image"),
    (lambda folder, progress: mean_iou(MAP, MAP, classes={1: "a"}, progress=progress), "mIoU: .* 1/1 .*image"),
    (lambda folder, progress: mask_ap(*objects("image"), progress=progress), "annotations: .*(?s:.)*detections: .*1/1"),
    (lambda folder, progress: ytvis_ap(*objects("video", length=1), progress=progress), "annotations(?s:.)*tracks: "),
    (lambda folder, progress: stq(video(folder), folder, CAR, progress=progress), "STQ: .* 1/1 .*frame"),
    (lambda folder, progress: vpq(video(folder), folder, CAR, progress=progress), "VPQ: .* 1/1 .*frame"),
    (
        lambda folder, progress: cityscapes_instance_ap(cityscapes(folder), folder, progress=progress),
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
    for number, (screen, progress) in enumerate([(Terminal(), True), (Terminal(), False), (io.StringIO(), True)]):
        monkeypatch.setattr(sys, "stderr", screen)
        metric(tmp_path / str(number), progress)
        shown = screen.getvalue()
        assert re.search(bar, shown) if number == 0 else not shown
