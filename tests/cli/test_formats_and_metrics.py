"""Every format of `knet predict` given to every metric of `knet eval`, as the table in docs/predict.md has it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Run, runner
from PIL import Image

from knet.data.categories import load_categories, rows_for_json
from knet.data.files.masks import pack_mask
from knet.errors import DataError
from knet.evaluation import stq
from knet.evaluation.written import JUDGED
from knet.inference.results.encoding import rle_text
from knet.inference.results.formats import FORMATS, PRELABELS, TRACK_FORMATS
from knet.inference.results.predictions import PredictionWriter
from knet.inference.results.segmentation import Segmentation
from knet.inference.sources.streams import Frame
from knet.inference.sources.videos import Item
from knet.structures import Category, Segment

ROOT = Path(__file__).parents[2]
TABLE = tuple(c for c in load_categories("kitti_step") if c.name in ("road", "vegetation", "person", "car"))
ROAD, CAR = (next(c for c in TABLE if c.name == name) for name in ("road", "car"))
METRICS = ("pq", "miou", "ap", "stq", "vpq", "ytvis")
IMAGE = np.zeros((20, 30, 3), np.uint8)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return runner(capsys)


def scene(number: int, overlapping: bool = False, table: tuple[Category, ...] = TABLE) -> Segmentation:
    """A car on a road."""
    road, car = (next(c for c in table if c.name == wanted.name) for wanted in (ROAD, CAR))
    id_map = np.full((20, 30), 1, np.int32)
    id_map[5:15, 3 + 2 * number : 13 + 2 * number] = 2
    stuff = Segment(1, road.id, road.name, False, 0.9, 500, (0, 0, 30, 20))
    thing = Segment(2, car.id, car.name, True, 0.8, 100, (3 + 2 * number, 5, 13 + 2 * number, 15), track=3)
    masks = {2: pack_mask(id_map == 2)} if overlapping else None
    return Segmentation(id_map, [thing] if overlapping else [stuff, thing], table, f"0007_{number:06d}", masks=masks)


def written(folder: str, *formats: str, overlapping: bool = False, table: tuple[Category, ...] = TABLE) -> Path:
    with PredictionWriter(folder, formats, table, track=True) as writer:
        for n in range(2):
            result = scene(n, overlapping, table)
            frame = Frame(Item(IMAGE, result.name, Path(f"{result.name}.png")), "0007", n, n, n == 0)
            writer.write(result, frame)
    return Path(folder)


def truths() -> dict[str, Path]:
    """The truth of each metric; VIPSeg's and the JSON of videos beside STEP's."""
    folder = written("truth", "step", "panoptic", "vipseg", "vipseg-json", "cityscapes-vps-json")
    (folder / "labels").mkdir()
    cars, (height, width) = [pack_mask(scene(n).id_map == 2) for n in range(2)], IMAGE.shape[:2]
    of_car: dict[str, Any] = {"category_id": 1, "iscrowd": 0}
    images, rows = list[dict[str, Any]](), list[dict[str, Any]]()
    for n, mask in enumerate(cars):
        name = scene(n).name
        labels = scene(n).semantic_map().astype(np.uint8)
        Image.fromarray(labels).save(folder / "labels" / f"{name}.png")
        images.append({"id": 90 + n, "file_name": f"val/{name}.png", "height": height, "width": width})
        rows.append({"id": n + 1, "image_id": 90 + n, "area": 100, "segmentation": rle_text(mask), **of_car})
    document = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "Car"}]}
    (folder / "instances.json").write_text(json.dumps(document))
    video = {"id": 1, "height": height, "width": width, "length": 2, "file_names": ["0007/0.jpg", "0007/1.jpg"]}
    track = {"id": 1, "video_id": 1, "areas": [100, 100], "segmentations": list(map(rle_text, cars)), **of_car}
    document = {"videos": [video], "annotations": [track], "categories": [{"id": 1, "name": "car"}]}
    (folder / "ytvis.json").write_text(json.dumps(document))
    (folder / "vipseg" / "val.txt").write_text("0007\n")
    for kind in ("vipseg", "cityscapes_vps"):
        path = folder / f"{kind}_json" / "pred.json"
        content = json.loads(path.read_text()) | {"categories": rows_for_json(TABLE)}
        path.write_text(json.dumps(content | ({"videos": [{"video_id": "0007"}]} if kind == "vipseg" else {})))
        (path.parent / "pan_pred").rename(path.parent / ("panomasksRGB" if kind == "vipseg" else "panoptic_video"))
    step = folder / "panoptic"
    coco = {"pq": folder / "panoptic.json", "ap": folder / "instances.json"}
    return coco | {"miou": folder / "labels", "stq": step, "vpq": step, "ytvis": folder / "ytvis.json"}


def judged(run: Run, metric: str, truth: Path, predictions: Path) -> tuple[int, float, str]:
    """Exit status, the first figure, and what was said of errors."""
    more = ["--classes", "kitti_step"] if metric in ("miou", "stq", "vpq") and not truth.suffix else []
    more += ["--protocol", "cityscapes-vps"] if metric == "vpq" else []
    arguments = ("--metric", metric, "--truth", truth, "--predictions", predictions, *more, "--json")
    status, out, err = run("eval", *arguments)
    (figures,) = json.loads(out).values() if status == 0 else ({},)
    return status, next(iter(figures.get("all", figures).values()), -1.0), err


def page_table() -> set[tuple[str, str]]:
    """(format, metric) of the page."""
    rows = re.findall(r"^\| (`[^|]*) \| (`[^|]*|none) \| [^|]+ \|$", (ROOT / "docs/predict.md").read_text(), re.M)
    names = [
        tuple(re.findall(r"`(?:--submission )?([\w-]+)`", cell) for cell in row) for row in rows if "." not in row[1]
    ]
    return {(name, metric) for formats, metrics in names for name in formats for metric in metrics if metric in METRICS}


def test_the_page_has_what_the_code_has() -> None:
    assert page_table() == {(name, metric) for name, (_, metrics) in JUDGED.items() for metric in metrics}
    assert set(JUDGED) == {*FORMATS, *PRELABELS, *TRACK_FORMATS, "youtube-vis"}


def test_every_format_and_every_metric(run: Run) -> None:
    truth = truths()
    of_format: dict[str, dict[str, Path]] = {
        "vipseg": {"stq": Path("truth/vipseg"), "vpq": Path("truth/vipseg")},
        "vipseg-json": {"stq": Path("truth/vipseg_json/pred.json"), "vpq": Path("truth/vipseg_json/pred.json")},
        "cityscapes-vps-json": dict.fromkeys(("stq", "vpq"), Path("truth/cityscapes_vps_json/pred.json")),
    }
    for name in (*FORMATS, *TRACK_FORMATS):
        folder = written(f"of_{name}", name, overlapping=name == "json")
        for metric in METRICS:
            status, figure, err = judged(run, metric, (truth | of_format.get(name, {}))[metric], folder)
            if metric in JUDGED[name][1]:
                assert (status, figure) == (0, pytest.approx(1)), (name, metric, err)
            else:
                assert status == 2 and f"holds {name} of knet predict, but --metric {metric} judges" in err


def test_the_things_of_a_panoptic_model(run: Run) -> None:
    truth = truths()["ap"]
    both = written("both", "json", "panoptic")  # the first holds no masks of models whose segments share the pixels
    for predictions in (both, both / "panoptic.json"):
        assert judged(run, "ap", truth, predictions)[:2] == (0, pytest.approx(1))
    assert "write them with --formats panoptic" in judged(run, "ap", truth, written("alone", "json"))[2]
    document = json.loads((both / "panoptic.json").read_text())
    for row in document["annotations"]:
        row["segments_info"] = [segment | {"score": None} for segment in row["segments_info"]]
    (both / "panoptic.json").write_text(json.dumps(document))
    assert "without a score" in judged(run, "ap", truth, both)[2]
    document["annotations"].pop()
    (both / "panoptic.json").write_text(json.dumps(document))
    assert "has no prediction for image_id" in judged(run, "ap", truth, both)[2]


def test_objects_of_a_class_that_the_truth_lacks(run: Run) -> None:
    truth = truths()["ap"]
    content = json.loads(truth.read_text())
    truth.write_text(json.dumps(content | {"categories": [{"id": 1, "name": "bus"}]}))
    for folder in (written("p", "panoptic"), written("j", "json", overlapping=True)):
        status, _, err = judged(run, "ap", truth, folder)
        assert status == 2 and "'car'" in err and "which the truth lacks" in err and "only the truth has 'bus'" in err


def test_coco_panoptic_is_no_step_though_its_names_are_alike(run: Run) -> None:
    truth, folder = truths(), written("both", "panoptic", "step")
    assert judged(run, "stq", truth["stq"], folder)[:2] == (0, 1)
    (folder / "panoptic" / "0007").rename(folder / "0007")
    status, _, err = judged(run, "stq", truth["stq"], folder)
    assert status == 2 and "judges what it writes with --formats step" in err
    with pytest.raises(DataError, match=r"PNGs of COCO panoptic, whose colours are no classes; .* --formats step"):
        stq(truth["stq"], folder)


def test_label_pngs_of_another_class_table(run: Run) -> None:
    labels = truths()["miou"]
    other = tuple(Category(n, c.name, c.thing, c.color) for n, c in enumerate(TABLE))  # the same classes, other numbers
    assert judged(run, "miou", labels, written("other", "semantic", table=other))[:2] == (0, 1)
    alien = (*TABLE, Category(99, "tram", True, (1, 2, 3)))
    folder = written("alien", "semantic", table=alien)
    assert judged(run, "miou", labels, folder)[:2] == (0, 1)  # no pixel is one
    path = folder / "0007_000000_semantic.png"
    pixels = np.array(Image.open(path))
    pixels[0, 0] = 99
    Image.fromarray(pixels).save(path)
    status, _, err = judged(run, "miou", labels, folder)
    assert status == 2 and "the class 'tram' (99), which the class table lacks: only it has 'tram'" in err
    (folder / "semantic_classes.json").unlink()
    status, _, err = judged(run, "miou", labels, folder)
    assert status == 2 and "the ids 99, which the class table lacks" in err and "--classes" in err
