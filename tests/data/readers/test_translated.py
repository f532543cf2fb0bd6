"""`classes` of a validation set: objects of COCO and YouTube-VIS, and clips, in the classes of the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_clip import FRAMES, SIZE, STEP, frame_maps, save_image

from knet.config import Data
from knet.data.files.masks import pack_mask
from knet.data.readers.clips import NUMBERS, ClipReader, split_id
from knet.data.readers.kitti_step import write_step_png
from knet.data.readers.label_folder import LabelFolder
from knet.data.readers.open import open_data
from knet.data.readers.translated import TranslatedClips
from knet.errors import ConfigError, DataError
from knet.evaluation import mask_ap, ytvis_ap
from knet.inference.results.encoding import rle_text
from knet.inference.segmenter import Segmenter
from knet.runs.evaluate import _tells_classes_alone, evaluate
from knet.runs.look_over import look_over
from knet.structures import Category

RUN = (Category(5, "vehicle", True, (0, 0, 9)), Category(6, "human", True, (0, 9, 0)))
MAPPING = {"car": "vehicle", "bus": "vehicle", "dog": "void", "person": "human"}


def square(left: int) -> Any:
    mask = np.zeros((20, 30), bool)
    mask[4:14, left : left + 10] = True
    return rle_text(pack_mask(mask))


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Two images with a car, a bus and a dog; the second is called 12."""
    names = ["car", "bus", "dog", "person"]
    images, rows = [], []
    for number in (7, 12):
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 20, "width": 30})
        for n in range(3):
            row = {"image_id": number, "category_id": 40 + n, "iscrowd": 0, "area": 100}
            rows.append({**row, "id": len(rows) + 1, "segmentation": square(10 * n)})
    table = [{"id": 40 + n, "name": name} for n, name in enumerate(names)]
    (tmp_path / "objects.json").write_text(json.dumps({"images": images, "annotations": rows, "categories": table}))
    return tmp_path


def data_of(root: Path, **val: Any) -> Data:
    return Data.model_validate({"root": str(root), "val": val})


def test_objects_of_classes_that_become_one(coco: Path) -> None:
    data = data_of(coco, images=".", json="objects.json", classes=MAPPING)
    reader: Any = open_data(data, data.val, RUN)
    assert reader.categories == RUN
    assert [(s.label, s.crowd) for s in reader.read(0).segments] == [(0, False), (0, False)]
    found = [
        {"image_id": image, "category_id": 5, "score": 0.9, "segmentation": square(left)}
        for image in (7, 12)
        for left in (0, 10)
    ]
    figures = mask_ap(reader.truth, found)
    assert figures["all"]["ap"] == pytest.approx(1) and figures["classes"][5]["objects"] == 4
    assert look_over(reader, None) == {}  # type: ignore[arg-type]


def test_a_model_is_judged_on_them(coco: Path) -> None:
    class Knowing:
        """Knows where cars and buses are."""

        task, name, categories = "instance", "knowing", RUN

        def segment(self, image: np.ndarray, name: str) -> Any:
            from knet.inference.results.segmentation import Segmentation
            from knet.structures import Segment

            id_map = np.zeros((20, 30), np.int32)
            id_map[4:14, :10], id_map[4:14, 10:20] = 1, 2
            segments = [Segment(n, 5, "vehicle", True, 0.9, 100, (0, 4, 10, 14)) for n in (1, 2)]
            return Segmentation(id_map, segments, RUN, name, masks={n: pack_mask(id_map == n) for n in (1, 2)})

    segmenter: Segmenter = Knowing()  # type: ignore[assignment]
    for more in ({}, {"names": ["1*"]}):
        data = data_of(coco, images=".", json="objects.json", classes=MAPPING, **more)
        found = evaluate(segmenter, open_data(data, data.val, RUN))["instance"]
        assert found["all"]["ap"] == pytest.approx(1)
        assert found["classes"][5]["objects"] == (2 if more else 4)


def test_names_that_do_not_fit_are_named(coco: Path) -> None:
    for classes, names, sentence in (
        ({"car": "vehicle", "*": "void", "cat": "void"}, [], "has no class 'cat'"),
        ({"car": "vehicl", "*": "void"}, [], "cannot be 'vehicl'; did you mean 'vehicle'"),
        ({"car": "vehicle"}, [], "The class 'bus' of .* is none of the run's"),
        (MAPPING, ["9*"], r"No image of .* has an id like 9\*"),
    ):
        data = data_of(coco, images=".", json="objects.json", classes=classes, names=names)
        with pytest.raises(ConfigError, match=sentence):
            open_data(data, data.val, RUN)
    (coco / "objects.json").write_text("[]")
    data = data_of(coco, images=".", json="objects.json", classes=MAPPING)
    with pytest.raises(DataError, match="must hold a list 'images'"):
        open_data(data, data.val, RUN)


def test_objects_of_videos(tmp_path: Path) -> None:
    files = ["a/00000.png", "a/00001.png"]
    for name in files:
        save_image(tmp_path / "valid/JPEGImages" / name, size=(20, 30))
    video = {"id": 1, "file_names": files, "height": 20, "width": 30, "length": 2}
    tracks = [
        {"id": n + 1, "video_id": 1, "category_id": n + 1, "iscrowd": 0, "segmentations": [square(10 * n)] * 2}
        for n in range(3)
    ]
    table = [{"id": n, "name": name} for n, name in ((1, "car"), (2, "bus"), (3, "dog"))]
    content = {"videos": [video], "annotations": tracks, "categories": table}
    (tmp_path / "valid.json").write_text(json.dumps(content))
    mapping = {"car": "vehicle", "bus": "vehicle", "dog": "void"}
    data = data_of(tmp_path, format="youtube-vis", split="valid", classes=mapping)
    reader: Any = open_data(data, data.val, RUN)
    assert [s.label for s in reader.read(0).segments] == [0, 0]
    found = [{"video_id": 1, "category_id": 5, "score": 0.9, "segmentations": [square(10 * n)] * 2} for n in range(2)]
    assert ytvis_ap(reader.truth, found)["all"]["ap"] == pytest.approx(1)


@pytest.mark.parametrize("kind", ["step", "own"])
def test_clips(kind: str, tmp_path: Path) -> None:
    """Cars 7 and 300, a crowd of persons and person 2 become things of one class, with numbers of their own."""
    mapping = {row.name: "void" for row in STEP} | {"car": "mover", "person": "mover", "road": "ground"}
    run = (Category(0, "ground", False, (9, 9, 9)), Category(1, "mover", True, (9, 0, 0)))
    values = np.array([row.id for row in STEP] + [255])
    for frame in range(FRAMES):
        labels, numbers = frame_maps(frame)
        name = f"0003/{frame:06d}.png"
        save_image(tmp_path / "images/train" / name, frame)
        write_step_png(tmp_path / "panoptic_maps/train" / name, values[labels], numbers)
        for folder, pixels in (("labels", values[labels].astype(np.uint8)), ("objects", numbers.astype(np.uint16))):
            (tmp_path / folder / "0003").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / name)
    own = {"images": "images/train", "labels": "labels", "instances": "objects", "categories": "kitti_step"}
    files = {"format": "step", "split": "train"} if kind == "step" else own
    data = data_of(tmp_path, **files, classes=mapping)
    reader = open_data(data, data.val, run)
    plain = open_data(data_of(tmp_path, **files), data_of(tmp_path, **files).val)
    assert isinstance(reader, TranslatedClips) and isinstance(plain, ClipReader)
    tracks: dict[int, set[tuple[int, int]]] = {}
    for frame in range(FRAMES):
        before, after = plain.read(frame), reader.read(frame)
        assert {s.id for s in after.segments} == set(np.unique(after.id_map).tolist()) - {0}
        assert (after.id_map[before.id_map == 0] == 0).all()
        for segment in before.segments:
            (new,) = np.unique(after.id_map[before.id_map == segment.id]).tolist()
            own_name, number = plain.categories[segment.label].name, split_id(segment.id)[1]
            assert split_id(new)[0] == (0 if own_name == "road" else 1)
            assert next(s for s in after.segments if s.id == new).crowd == (own_name == "person" and number == 0)
            if own_name != "road" and number:
                tracks.setdefault(new, set()).add((segment.label, number))
    assert len(tracks) == 3 and all(len(before) == 1 for before in tracks.values())
    assert max(tracks) < 3 * NUMBERS


def test_label_pngs_in_other_classes_still_tell_no_objects(tmp_path: Path) -> None:
    save_image(tmp_path / "images/a.png")
    (tmp_path / "labels").mkdir()
    Image.fromarray(np.full(SIZE, 1, np.uint8)).save(tmp_path / "labels/a.png")
    own = {"images": "images", "labels": "labels", "categories": "kitti_step"}
    data = data_of(tmp_path, **own, classes={"sidewalk": "ground", "*": "void"})
    reader = open_data(data, data.val, (Category(0, "ground", False, (9, 9, 9)),))
    assert not isinstance(reader, LabelFolder) and _tells_classes_alone(reader)
