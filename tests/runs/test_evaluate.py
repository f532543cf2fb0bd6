"""Models of each task judged on labelled images: perfect ones, real ones from the command line, and mistakes."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import knet
from knet.cli.main import main
from knet.data.categories import load_categories
from knet.data.make.from_labels import labels_to_panoptic
from knet.data.readers.coco_instances import CocoInstances
from knet.data.readers.label_folder import LabelFolder
from knet.data.readers.open import open_data
from knet.errors import ConfigError
from knet.inference.results.segmentation import Segmentation
from knet.runs.evaluate import evaluate
from knet.structures import Segment
from tiny_models import tiny_file

SIZE = (40, 60)


def square(left: int, top: int, side: int) -> list[list[int]]:
    return [[left, top, left + side, top, left + side, top + side, left, top + side]]


@pytest.fixture
def objects(tmp_path: Path) -> CocoInstances:
    """Two images with squares that overlap."""
    images, annotations = [], []
    for number in (1, 2):
        Image.fromarray(np.full((*SIZE, 3), 60 * number, np.uint8)).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": SIZE[0], "width": SIZE[1]})
        for n, (category, polygon) in enumerate(
            [(1, square(5, 5, 20)), (3, square(10, 10, 25)), (1, square(40, 2, 9))]
        ):
            row = {"id": 10 * number + n, "image_id": number, "category_id": category, "segmentation": polygon}
            annotations.append({**row, "iscrowd": 0, "area": float((polygon[0][2] - polygon[0][0]) ** 2)})
    rows = [{"id": c.id, "name": c.name} for c in load_categories("coco_instance")]
    content = {"images": images, "annotations": annotations, "categories": rows}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return CocoInstances(tmp_path, tmp_path / "instances.json", load_categories("coco_instance"))


class Oracle:
    """A model that knows the truth, but for what `spoil` does to it."""

    def __init__(self, task: str, table: str, dataset: Any, spoil: Any = None):
        self.task, self.name, self.categories = task, "oracle", load_categories(table)
        self.samples = {dataset.name(index): dataset.read(index) for index in range(len(dataset))}
        self.spoil = spoil

    def segment(self, image: np.ndarray, name: str) -> Segmentation:
        sample = self.samples[name]
        assert (image == sample.image).all()
        masks = {s.id: (sample.id_map == s.id) for s in sample.segments}
        if self.task == "instance":
            masks = {number: mask.any(0) for number, mask in masks.items()}
        if self.spoil:
            self.spoil(masks)
        segments, id_map = [], np.zeros(image.shape[:2], np.int32)
        for s in sample.segments:
            if s.id in masks:
                category = self.categories[s.label]
                id_map[masks[s.id]] = s.id
                area, box = int(masks[s.id].sum()), (0, 0, 1, 1)
                segments.append(Segment(s.id, category.id, category.name, category.thing, 0.9, area, box))
        packed = None
        if self.task == "instance":
            from knet.data.files.masks import pack_mask

            packed = {number: pack_mask(mask) for number, mask in masks.items()}
        return Segmentation(id_map, segments, self.categories, name, masks=packed)


def test_a_perfect_model_of_overlapping_objects(objects: CocoInstances) -> None:
    result = evaluate(Oracle("instance", "coco_instance", objects), objects)["instance"]
    assert result["all"]["ap"] == pytest.approx(1)
    assert (result["classes"][1]["objects"], result["classes"][1]["predictions"]) == (4, 4)
    assert result["classes"][2]["ap"] is None
    half = evaluate(Oracle("instance", "coco_instance", objects, lambda masks: masks.pop(2)), objects)["instance"]
    assert half["classes"][3]["ap"] == 0
    assert half["all"]["ap"] == pytest.approx(0.5)


def test_areas_are_the_files_own(objects: CocoInstances) -> None:
    """Small objects are those whose `area` says so, in the JSON and not in the mask."""
    content = json.loads(objects.json.read_text())
    for row in content["annotations"]:
        row["area"] = 99 * 99.0
    objects.json.write_text(json.dumps(content))
    result = evaluate(Oracle("instance", "coco_instance", objects), objects)["instance"]["all"]
    assert (result["aps"], result["apl"]) == (None, pytest.approx(1))


def test_shares_of_several_processes_make_the_whole(objects: CocoInstances, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Oracle("instance", "coco_instance", objects, lambda masks: masks.pop(3))
    whole, said = evaluate(model, objects), []
    monkeypatch.setattr("knet.runs.evaluate.world", lambda: 2)
    for number in range(2):
        monkeypatch.setattr("knet.runs.evaluate.rank", lambda number=number: number)
        monkeypatch.setattr("knet.runs.evaluate.gather_objects", lambda value: said.append(value) or said)
        last = evaluate(model, objects)
    assert [len(rows) for rows in said] == [2, 2]
    assert last == whole


@pytest.fixture
def labels(tmp_path: Path) -> LabelFolder:
    """An image with ADE20K's labels: wall, building, sky, and a part that is nothing."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    values = np.repeat(np.array([[0, 1, 2, 3]], np.uint8), 15, axis=1).repeat(40, axis=0)
    Image.fromarray(np.full((*values.shape, 3), 90, np.uint8)).save(tmp_path / "images" / "a.jpg")
    Image.fromarray(values).save(tmp_path / "labels" / "a.png")
    return LabelFolder(tmp_path / "images", tmp_path / "labels", "ade20k")


def test_both_conventions_of_ade20k(labels: LabelFolder) -> None:
    result = evaluate(Oracle("semantic", "ade20k", labels), labels)
    assert result.keys() == {"semantic"}
    assert result["semantic"]["miou"] == result["semantic"]["mmsegmentation"]["miou"] == pytest.approx(1)
    assert result["semantic"]["sceneparsing"]["miou"] == pytest.approx(3 / 150)  # classes that occur nowhere count 0
    missed = evaluate(Oracle("semantic", "ade20k", labels, lambda masks: masks.pop(1)), labels)["semantic"]
    assert missed["miou"] == pytest.approx(2 / 3)
    panoptic = evaluate(Oracle("panoptic", "ade20k", labels), labels)
    assert panoptic["semantic"]["miou"] == pytest.approx(1)
    assert "panoptic" not in panoptic


def test_truth_of_another_kind(objects: CocoInstances, labels: LabelFolder) -> None:
    model = SimpleNamespace(task="semantic", name="m", categories=load_categories("ade20k"))
    with pytest.raises(ConfigError, match=r"'m' is for semantic segmentation; to evaluate it, give label PNGs"):
        evaluate(model, objects)
    model.task = "instance"
    with pytest.raises(ConfigError, match=r"'m' is for instance segmentation; to evaluate it, give COCO instances"):
        evaluate(model, labels)
    model = SimpleNamespace(task="semantic", name="m", categories=load_categories("camvid"))
    with pytest.raises(ConfigError, match=r"other classes \(150\) than the model 'm' \(11\)"):
        evaluate(model, labels)


def test_the_command_line_judges_models_of_every_task(
    objects: CocoInstances, labels: LabelFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = {task: str(tiny_file(task, tmp_path)) for task in ("instance", "semantic")}
    json_file = [f"data.val.images={tmp_path}", f"data.val.json={tmp_path / 'instances.json'}"]
    assert main(["eval", weights["instance"], json_file[0], "--json", "--device", "cpu", json_file[1]]) == 0
    result = json.loads(capsys.readouterr().out)["instance"]
    assert result["classes"]["1"]["objects"] == 4
    assert sum(row["predictions"] for row in result["classes"].values()) > 100  # of two images, up to 100 each
    folders = [f"data.val.images={tmp_path / 'images'}", f"data.val.labels={tmp_path / 'labels'}"]
    options = ("--tta", "--device", "cpu")
    assert main(["eval", weights["semantic"], *folders, *options, "--output", str(tmp_path / "figures")]) == 0
    shown = capsys.readouterr().out
    assert "mean of the classes that occur (mmsegmentation)" in shown
    assert "mean of all classes (sceneparsing)" in shown
    assert json.loads((tmp_path / "figures" / "semantic.json").read_text())["classes"]["1"]["pixels"] == 600


@pytest.mark.parametrize(
    ("task", "arguments", "words"),
    [
        ("instance", ["--tta"], "the option scales (--tta) is for semantic models"),
        ("instance", ["--merge", "sorted"], "the option merge is for panoptic models"),
        ("semantic", ["--window", "5000"], "larger than the image"),
        ("semantic", ["--window", "big"], "'big' is not a number of pixels"),
        ("semantic", ["--submission", "coco-instance"], "'coco-instance' needs a model with"),
    ],
)
def test_mistakes_get_a_sentence(
    task: str, arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "000000000001.png"
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(image)
    command = [
        "predict",
        str(tiny_file(task, tmp_path)),
        str(image),
        "--device",
        "cpu",
        "--output",
        str(tmp_path / "o"),
    ]
    try:
        status = main([*command, *arguments])
    except SystemExit as stop:
        status = int(stop.code or 0)
    assert status == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_a_model_is_judged_on_a_config_however_both_are_given(tmp_path: Path) -> None:
    """The truth is what the model says of the images, so that thresholds change the figures."""
    weights = Path(knet.__file__).parent / "assets" / "rtknet-lite-street.safetensors"
    data, segmenter = tmp_path / "data", knet.load("rtknet-lite-street", precision="fp32")
    for kind in ("images", "labels"):
        (data / kind).mkdir(parents=True)
    photo = Path(knet.__file__).parent / "assets" / "demo" / "highway_1.jpg"
    Image.open(photo).resize((160, 96)).save(data / "images" / "0.png")
    labels = segmenter(data / "images" / "0.png").semantic_map()
    # CamVid's label PNGs count classes from 0, its ids from 1.
    Image.fromarray((np.where(labels < 0, labels.max(), labels) - 1).astype(np.uint8)).save(data / "labels" / "0.png")
    labels_to_panoptic(data / "images", data / "labels", data, "camvid")
    files = {"images": "images", "json": "panoptic.json", "masks": "panoptic"}
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps({"model": "rtknet-lite-street", "data": {"root": str(data), "val": files}}))
    result = knet.evaluate(segmenter, config)
    assert result.keys() == {"panoptic", "semantic"} and result["semantic"]["miou"] > 0.1
    assert knet.evaluate(weights, knet.read_config(config)) == result
    assert knet.evaluate(weights, "rtknet-lite-street", data__root=data, data__val=files) == result
    assert knet.evaluate(weights, data__root=data, data__val=files) == result
    # The config's own model is given the weights, and the config's thresholds replace theirs.
    assert knet.evaluate(config, weights=weights, score=segmenter.score, overlap=segmenter.overlap) == result
    assert knet.evaluate(config, weights=weights, score=0.9) != result

    reader = open_data(knet.read_config(config).data, knet.read_config(config).data.val)
    for arguments, options, sentence in (
        ((weights, reader), {"batch": 1}, "The data set is open already; leave batch out"),
        ((segmenter, config), {"weights": weights}, "has its weights already"),
        ((knet.read_config(config), config), {}, "names a model and its data"),
        ((weights, config), {"data__vall": 1}, "did you mean 'val'"),
        ((weights,), {}, "The option 'data.val' is missing"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            knet.evaluate(*arguments, **options)
