"""What `knet data check` finds in COCO instances."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from knet.cli.main import main
from knet.data.check.findings import KINDS
from knet.data.check.instances import check_instances
from knet.data.readers.reader import Kernels

HEIGHT, WIDTH = 40, 60
SQUARE = [[10, 10, 30, 10, 30, 30, 10, 30]]


def write(folder: Path, *annotations: dict[str, Any], images: int = 1) -> tuple[Path, Path]:
    """Images of noise with annotations of the first; more of its fields as given."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(images):
        pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{number}.png")
        rows.append({"id": number, "file_name": f"{number}.png", "height": HEIGHT, "width": WIDTH})
    own = [{"image_id": 0, "category_id": 3, "segmentation": SQUARE, **row} for row in annotations]
    content = {"images": rows, "annotations": own, "categories": [{"id": 3, "name": "car"}]}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder / "images", folder / "instances.json"


CASES: dict[str, tuple[list[dict[str, Any]], set[str]]] = {
    "sound": ([{}], set()),
    "box only": ([{}, {"segmentation": [], "bbox": [1, 1, 9, 9]}], {"no mask"}),
    "beyond the image": ([{}, {"segmentation": [[70, 0, 80, 0, 80, 9]], "bbox": [20, 0, 9, 9]}], {"mask empty"}),
    "fractions": ([{}, {"segmentation": [[0.1, 0.1, 0.9, 0.1, 0.9, 0.9]]}], {"mask fractions"}),
    "damaged": ([{}, {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "x"}}], {"mask damaged"}),
    "damaged, in a sound box": ([{}, {"segmentation": "x", "bbox": [1, 1, 9, 9]}], {"mask damaged"}),
    "box of fractions": ([{"bbox": [0.1, 0.1, 0.5, 0.5]}], {"extent"}),
    "crowds only": ([{"iscrowd": 1}], {"nothing to learn", "nothing at all"}),
    "unknown class": ([{}, {"category_id": 4}], {"unknown category"}),
    "unknown image": ([{}, {"image_id": 9}], {"no image row"}),
    "more than the kernels": ([{}] * 4, {"too many"}),
}


@pytest.mark.parametrize("case", CASES)
def test_findings(tmp_path: Path, case: str) -> None:
    annotations, kinds = CASES[case]
    report = check_instances(*write(tmp_path, *annotations), kernels=Kernels(3))
    assert {finding.kind for finding in report.findings} == kinds
    assert report.errors == sum(KINDS[kind][0] for kind in kinds)


def test_an_image_in_two_rows(tmp_path: Path) -> None:
    images, path = write(tmp_path, {}, images=2)
    path.write_text(path.read_text().replace('"1.png"', '"0.png"'))
    kinds = {finding.kind: finding.line for finding in check_instances(images, path).findings}
    assert "0.png; keep one row of each" in kinds["same file twice"]


def test_counts_and_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, path = write(tmp_path, {}, {"segmentation": [[20, 20, 40, 20, 40, 30, 20, 30]]}, images=2)
    (images / "1.png").rename(images / "2.png")
    assert main(["data", "check", "--images", str(images), "--instances", str(path)]) == 2
    out = capsys.readouterr().out
    car = next(line.split() for line in out.splitlines() if line.startswith("car "))
    assert car[2:] == ["thing", "1", "2", "0", "120.00%"]  # overlapping pixels count twice
    assert "error: images that the JSON names do not exist (1): 1.png" in out
    assert "warning: images are not in the JSON (1): 2.png" in out
