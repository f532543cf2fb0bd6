"""Labels from networks that see colours: what they agree on is kept, everything else is void."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from knet.data.categories import load_categories
from knet.data.check.images import check_panoptic
from knet.data.files.io import read_ids
from knet.data.files.masks import read_mask, unpack_mask
from knet.data.files.outlines import polygons
from knet.data.make.same_classes import match_classes, read_renames
from knet.data.readers.coco_instances import CocoInstances
from knet.errors import ConfigError, DataError
from knet.inference.load import describe
from knet.inference.segmenter import Segmenter
from knet.inference.settings import Settings
from knet.inference.votes import vote
from knet.merge.votes import agreed, kernel_classes
from knet.runs.label import Labeller, LabelSettings, label_images
from knet.structures import Category, Output, Preprocessing

ROAD, CAR, SKY = (
    Category(7, "road", False, (90, 0, 90)),
    Category(26, "car", True, (0, 0, 90)),
    Category(3, "sky", False, (0, 9, 9)),
)
TABLE = (ROAD, CAR, SKY)
GREY, RED, BLUE, WHITE = (100, 100, 100), (200, 0, 0), (0, 0, 200), (255, 255, 255)
SEEN = {GREY: ("road", 0.9), RED: ("car", 0.9), BLUE: ("car", 0.8), WHITE: ("sky", 0.7)}


class Colours:
    """An engine whose kernels are colours: each finds the pixels of its own, and knows one class."""

    name, precision, stuff, embeds, net, device = "stub", "fp32", (), False, None, torch.device("cpu")

    def __init__(self, seen: dict[tuple[int, int, int], tuple[str, float]], categories: tuple[Category, ...]):
        names = [category.name for category in categories]
        self.colours = torch.tensor(list(seen), dtype=torch.float32)
        self.logits = torch.full((1, len(seen), len(names)), -20.0)
        for kernel, (name, score) in enumerate(seen.values()):
            self.logits[0, kernel, names.index(name)] = float(np.log(score / (1 - score)))

    def __call__(self, inputs: Tensor, previous: Any = None, resized: Any = None) -> list[Output]:
        alike = (inputs[:, None] - self.colours[None, :, :, None, None]).abs().amax(2) < 1
        masks = torch.where(alike, 12.0, -12.0)
        return [Output(torch.zeros(1, len(self.colours), 1), masks, self.logits, inputs)]

    def merged(self, output: Output, score: float, overlap: float) -> None:
        """It does not merge."""


def model(seen: dict[Any, Any] = SEEN, categories: tuple[Category, ...] = TABLE) -> Segmenter:
    """A panoptic model of the colours."""
    as_they_are = Preprocessing(64, 128, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), divisor=1, resize=False)
    card = describe("rtknet-cityscapes", {"classes": len(categories)}, categories, as_they_are, 0.0, 0.3)
    return Segmenter(Colours(seen, categories), card, Settings(score=0.0, overlap=0.3))  # type: ignore[arg-type]


def street() -> np.ndarray:
    """Sky over a road with a red and a blue car, which touch. (60,80,3)"""
    image = np.full((60, 80, 3), GREY, np.uint8)
    image[:20] = WHITE
    image[30:40, 10:25], image[30:40, 25:45] = RED, BLUE
    return image


def named(labeller: Labeller, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The class number of each pixel (-1 = void), the id map, and the number of segments."""
    id_map, segments = labeller(image)
    assert sorted(s.id for s in segments) == [i for i in np.unique(id_map) if i]
    numbers = np.full(id_map.max() + 1, -1)
    numbers[[s.id for s in segments]] = [s.label for s in segments]
    return numbers[id_map], id_map, len(segments)


def test_what_models_agree_on_is_kept_with_the_first_ones_objects() -> None:
    image = street()
    labels, id_map, count = named(Labeller([model(), model()]), image)
    assert count == 4
    assert np.array_equal(labels, np.where((image == WHITE).all(2), 2, np.where((image == GREY).all(2), 0, 1)))
    objects = model().segment(image)
    for segment in objects.segments:
        if segment.thing:  # the same pixels under the same id
            assert np.array_equal(id_map == segment.id, objects.id_map == segment.id)


def test_disagreement_is_void() -> None:
    image = street()
    other = model({**SEEN, BLUE: ("road", 0.9)})
    labels, _, count = named(Labeller([model(), other]), image)
    assert count == 3
    assert np.array_equal(labels == -1, (image == BLUE).all(2))
    labels, _, count = named(Labeller([model(), other, model()], settings=LabelSettings(agree=0.6)), image)
    assert count == 4  # two of three are enough
    assert (labels >= 0).all()


def test_what_models_are_unsure_of_is_void() -> None:
    image = street()
    labels, *_ = named(Labeller([model()], settings=LabelSettings(score=0.75)), image)
    assert np.array_equal(labels == -1, (image == WHITE).all(2))
    sure = model({**SEEN, WHITE: ("sky", 0.9)})  # 0.8 in the mean
    labels, *_ = named(Labeller([model(), sure], settings=LabelSettings(score=0.75)), image)
    assert (labels >= 0).all()


def test_an_object_that_loses_most_of_its_pixels_is_void_and_so_are_specks() -> None:
    image = street()
    whole = model({**SEEN, (201, 0, 0): ("road", 0.9)})
    image[30:40, 10:18] = (201, 0, 0)  # more than half of the red car to one model; the other takes both for the car

    class Near(Colours):
        def __call__(self, inputs: Tensor, previous: Any = None, resized: Any = None) -> list[Output]:
            return super().__call__(torch.where(inputs == 201, 200.0, inputs))

    first = model()
    first.engine = Near(SEEN, TABLE)
    labels, *_ = named(Labeller([first, whole]), image)
    assert (labels[30:40, 10:25] == -1).all()
    assert (labels[30:40, 25:45] == 1).all()
    image = street()
    image[50:54, 50:54] = RED  # a part of the red car, which keeps the rest
    labels, *_ = named(Labeller([model()]), image)
    assert (labels[50:54, 50:54] == -1).all()
    assert (labels[30:40, 10:25] == 1).all()
    labels, *_ = named(Labeller([model()], settings=LabelSettings(minimum_area=0)), image)
    assert (labels[50:54, 50:54] == 1).all()


def test_views_are_averaged_and_the_mirror_image_is_turned_back() -> None:
    image = street()
    alone, _, result = vote(model(), image, (1.0,), flip=False)
    both, likely, _ = vote(model(), image, (1.0,), flip=True)
    assert torch.equal(alone, both)
    assert result is not None
    assert result.id_map.shape == (60, 80)
    assert likely.min() > 0.6
    halved, likely, _ = vote(model(), image, (1.0, 0.5), flip=True)
    assert (halved == alone).float().mean() > 0.95


def test_each_share_of_voters() -> None:
    votes = [
        (torch.tensor([label]), torch.tensor([score])) for label, score in ((1, 0.9), (2, 0.8), (2, 0.4), (-1, 0.0))
    ]
    assert agreed(votes[:1], 1.0, 0.9).tolist() == [1]
    assert agreed(votes[:2], 1.0, 0.0).tolist() == [-1]
    assert agreed(votes[:3], 0.6, 0.6).tolist() == [2]
    assert agreed(votes[:3], 0.6, 0.61).tolist() == [-1]
    assert agreed(votes[3:] * 3, 1.0, 0.0).tolist() == [-1]  # none is no class to agree on
    assert agreed(votes, 0.6, 0.0).tolist() == [-1]


def test_kernels_of_stuff_mean_nothing_else() -> None:
    classes = kernel_classes(torch.zeros(4, 3), stuff=(1, 2))
    assert classes.tolist() == [[0.5, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]


def test_tables_that_differ_are_matched_by_name() -> None:
    automobile = (Category(1, "Automobile", True, (1, 1, 1)), Category(2, "ROAD", False, (1, 1, 1)))
    assert match_classes(automobile, TABLE, {}) == (-1, 0)
    assert match_classes(automobile, TABLE, {"automobile": "Car", "ROAD": None}) == (1, -1)
    other = model({GREY: ("ROAD", 0.9), RED: ("Automobile", 0.9), BLUE: ("Automobile", 0.9)}, automobile)
    labeller = Labeller([model(), other], renames={"Automobile": "car"})
    assert labeller.unreachable == ["sky"]
    image = street()
    labels, _, count = named(labeller, image)
    assert count == 3
    assert np.array_equal(labels == -1, (image == WHITE).all(2))
    labels, *_ = named(Labeller([other], TABLE, {"Automobile": "void"}), image)
    assert set(np.unique(labels)) == {-1, 0}


def test_what_a_model_does_not_tell_apart_is_a_crowd() -> None:
    stuff = (ROAD, Category(26, "car", False, (0, 0, 90)), SKY)
    _, segments = Labeller([model(categories=stuff)], TABLE)(street())
    assert [s.crowd for s in segments if s.label == 1] == [True]


def test_a_data_set_is_written_that_passes_the_check(tmp_path: Path) -> None:
    images = tmp_path / "frames"
    (images / "b").mkdir(parents=True)
    for name in ("a.png", "a.jpg", "b/a.png"):
        Image.fromarray(street()).save(images / name, quality=100, subsampling=0)
    Image.fromarray(np.full((9, 9, 3), 7, np.uint8)).save(images / "nothing.png")
    (images / "broken.png").write_bytes(b"no image")
    out = tmp_path / "out"
    made = label_images(Labeller([model()], settings=LabelSettings(score=0.6)), images, out)
    assert made.images == 4
    assert len(made.failed) == 1
    assert "broken.png" in made.failed[0]
    report = check_panoptic(images, made.json, made.masks, load_categories(made.classes))
    assert {finding.kind for finding in report.findings} <= {
        "image unused",
        "same picture",
        "nothing to learn",
        "image flat",
    }
    assert report.void_share == pytest.approx(made.void_share)
    assert sum(row.segments for row in report.classes) == sum(made.segments.values())
    assert load_categories(made.classes) == TABLE
    assert sorted(p.name for p in out.iterdir()) == ["classes.json", "instances.json", "panoptic", "panoptic.json"]

    objects = CocoInstances(images, made.objects)
    content = json.loads(made.objects.read_text())
    assert len({row["id"] for row in content["annotations"]}) == sum(made.segments.values())
    for index, row in enumerate(json.loads(made.json.read_text())["annotations"]):
        id_map, drawn = read_ids(made.masks / row["file_name"]), objects.read_truth(index).id_map
        assert ((id_map > 0) != (drawn.max(0) > 0)).mean() < 0.02
        assert len(np.unique(drawn)) == len(np.unique(id_map))


def test_nothing_is_left_of_a_run_that_fails(tmp_path: Path) -> None:
    images, out = tmp_path / "frames", tmp_path / "out"
    images.mkdir()
    with pytest.raises(DataError, match="holds no image"):
        label_images(Labeller([model()]), images, out)
    (images / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="None of the 1 images"):
        label_images(Labeller([model()]), images, out)
    Image.fromarray(street()).save(images / "b.png")
    Image.fromarray(street()).save(images / "c.png")
    labeller = Labeller([model()])
    real, calls = type(labeller).__call__, []

    class Stops(Labeller):
        def __call__(self, image: np.ndarray, name: str = "image") -> Any:
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return real(self, image)

    with pytest.raises(KeyboardInterrupt):
        label_images(Stops([model()]), images, out)
    assert not list(out.iterdir())
    label_images(labeller, images, out)
    with pytest.raises(DataError, match="exists already"):
        label_images(labeller, images, out)
    label_images(labeller, images, out, overwrite=True)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"scales": (0.0,)}, "scales"),
        ({"agree": 0.5}, "more than 0.5"),
        ({"score": 1.5}, "between 0 and 1"),
        ({"minimum_area": -1}, "minimum_area"),
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        LabelSettings(**wrong)


@pytest.mark.parametrize(
    ("renames", "words"),
    [
        ({"cra": "car"}, "'cra'.*did you mean 'car'"),
        ({"car": "cra"}, "'cra'.*did you mean 'car'"),
        ({"car": None, "road": None, "sky": None}, "No class of"),
    ],
)
def test_renames_that_do_not_fit(renames: dict[str, str | None], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Labeller([model()], renames=renames)


def test_renames_are_read_from_words_and_files(tmp_path: Path) -> None:
    table = tmp_path / "map.yaml"
    table.write_text("bus: car\ntree-merged: null\n")
    assert read_renames([str(table), "van = car"]) == {"bus": "car", "tree-merged": None, "van": "car"}
    for content in ("- car", "bus: 3", "{"):
        table.write_text(content)
        with pytest.raises(ConfigError, match=r"map\.yaml"):
            read_renames([str(table)])
    with pytest.raises(ConfigError, match="neither NAME=NAME nor"):
        read_renames(["car="])


@pytest.mark.parametrize("seed", range(4))
def test_polygons_are_the_mask_to_within_a_pixel(seed: int) -> None:
    from scipy import ndimage

    mask = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(60, 90)), 2 + seed) > 0
    drawn = unpack_mask(read_mask(polygons(mask), mask.shape, "mask"))
    inner, outer = ndimage.binary_erosion(mask, border_value=1), ndimage.binary_dilation(mask)
    assert (drawn >= inner).all()
    assert (drawn <= outer).all()


def test_polygons_of_right_angles_are_exact() -> None:
    mask = np.zeros((20, 30), bool)
    mask[2:15, 3:25] = True
    mask[5:8, 6:9] = mask[10:12, 12:20] = False  # two holes
    mask[6, 7] = mask[18, 28] = True  # an island in a hole, and a single pixel
    drawn = unpack_mask(read_mask(polygons(mask), mask.shape, "mask"))
    assert np.array_equal(drawn, mask)
    assert polygons(np.ones((4, 6), bool), (10, 20)) == [[10, 20, 16, 20, 16, 24, 10, 24]]
    assert polygons(np.zeros((4, 6), bool)) == []
