"""COCO instances: the pixels of pycocotools, overlapping objects in layers, and what is left out or refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pycocotools import mask as official

from knet.data.categories import load_categories
from knet.data.files.masks import mask_area, mask_box, pack_mask, read_mask, unpack_mask
from knet.data.readers.coco_instances import CocoInstances, stack_layers
from knet.data.readers.coco_panoptic import CocoPanoptic
from knet.errors import DataError
from knet.structures import SegmentInfo

HEIGHT, WIDTH = 40, 60
SQUARE = [[10, 10, 30, 10, 30, 30, 10, 30]]
RUNS = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * 20, HEIGHT * 10, HEIGHT * 30]}  # columns 20 to 29
BESIDE = [[40, 10, 50, 10, 50, 30, 40, 30]]


class TinyInstances:
    """Two images and whatever annotations a test gives."""

    def __init__(self, folder: Path, *annotations: dict[str, Any]):
        self.folder = folder
        self.images = [{"id": n, "file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH} for n in (7, 8)]
        self.categories: Any = [{"id": 3, "name": "car", "supercategory": "v"}, {"id": 8, "name": "dog"}]
        self.annotations: list[Any] = [{"id": 1, "image_id": 7, "category_id": 3, **row} for row in annotations]
        (folder / "images").mkdir()
        for n in (7, 8):
            pixels = np.random.default_rng(n).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"{n}.png")

    def open(self, **options: Any) -> CocoInstances:
        path = self.folder / "instances.json"
        content = {"images": self.images, "annotations": self.annotations, "categories": self.categories}
        path.write_text(json.dumps(content))
        return CocoInstances(self.folder / "images", path, **options)


def masks_of(layers: np.ndarray, count: int) -> list[np.ndarray]:
    """(L,H,W) -> the masks of the values 1 .. count"""
    return [(layers == value).any(0) for value in range(1, count + 1)]


def test_reads_what_was_written(tmp_path: Path) -> None:
    rows = ({"segmentation": SQUARE}, {"segmentation": RUNS, "iscrowd": 1}, {"segmentation": BESIDE, "category_id": 8})
    reader = TinyInstances(tmp_path, *rows).open()
    assert [(c.id, c.name, c.thing) for c in reader.categories] == [(3, "car", True), (8, "dog", True)]
    assert (len(reader), reader.name(0), reader.name(1)) == (2, "7", "8")
    sample = reader.read(0)
    assert sample.name == "7" and np.array_equal(sample.image, np.array(Image.open(tmp_path / "images" / "7.png")))
    assert sample.segments == [SegmentInfo(1, 0), SegmentInfo(2, 1), SegmentInfo(3, 0, crowd=True)]  # the crowd last
    assert sample.id_map.dtype == np.int32 and sample.id_map.shape == (2, HEIGHT, WIDTH)
    square, beside, crowd = masks_of(sample.id_map, 3)
    assert np.array_equal(np.argwhere(square)[[0, -1]], [[10, 10], [29, 29]]) and square.sum() == 400
    assert beside.sum() == 200 and np.array_equal(np.flatnonzero(crowd.all(0)), np.arange(20, 30))
    empty = reader.read(1)
    assert empty.segments == [] and empty.id_map.shape == (1, HEIGHT, WIDTH) and not empty.id_map.any()


def test_labels_follow_the_given_categories(tmp_path: Path) -> None:
    tiny = TinyInstances(tmp_path, {"segmentation": SQUARE}, {"segmentation": BESIDE, "category_id": 8})
    reversed_ = tuple(reversed(tiny.open().categories))
    assert [segment.label for segment in tiny.open(categories=reversed_).read(0).segments] == [1, 0]


def test_truth_needs_no_images(tmp_path: Path) -> None:
    tiny = TinyInstances(tmp_path, {"segmentation": SQUARE})
    tiny.open()
    reader = CocoInstances(None, tmp_path / "instances.json")
    truth = reader.read_truth(0)
    assert truth.image.size == 0 and (truth.id_map == 1).sum() == 400
    with pytest.raises(DataError, match="without a folder of images"):
        reader.read(0)


# The pixels are pycocotools'


@settings(max_examples=60)
@given(
    st.lists(
        st.lists(st.floats(-20, 80, width=32), min_size=6, max_size=14).filter(lambda p: len(p) % 2 == 0),
        min_size=1,
        max_size=3,
    )
)
def test_polygons_have_the_official_pixels(polygons: list[list[float]]) -> None:
    ours = read_mask(polygons, (HEIGHT, WIDTH), "here")
    theirs = official.merge(official.frPyObjects(polygons, HEIGHT, WIDTH))
    assert np.array_equal(unpack_mask(ours), official.decode([theirs])[..., 0].astype(bool))
    assert (mask_area(ours), mask_box(ours)) == (official.area(theirs), official.toBbox(theirs).tolist())


binary = arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@settings(max_examples=60)
@given(binary)
def test_runs_of_every_form_are_the_mask(mask: np.ndarray) -> None:
    packed = pack_mask(mask)
    assert packed == official.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert np.array_equal(unpack_mask(packed), mask)
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *([0] * bool(flat[0])), *edges, flat.size]).tolist()
    text = packed["counts"].decode()
    for form in (mask, {"size": list(mask.shape), "counts": counts}, {"size": list(mask.shape), "counts": text}):
        assert read_mask(form, mask.shape, "here") == packed


@settings(max_examples=60)
@given(st.lists(arrays.arrays(bool, (6, 7)), max_size=6))
def test_layers_keep_every_mask(masks: list[np.ndarray]) -> None:
    layers = stack_layers([pack_mask(mask) for mask in masks], (6, 7))
    assert layers.dtype == np.int32 and 1 <= len(layers) <= max(1, len(masks))
    assert all(np.array_equal(*pair) for pair in zip(masks_of(layers, len(masks)), masks, strict=True))
    where = [np.unique(np.nonzero(layers == value)[0]) for value in range(1, len(masks) + 1)]
    assert all(len(layer) == mask.any() for layer, mask in zip(where, masks, strict=True))  # in one layer only


def test_what_does_not_overlap_is_one_layer() -> None:
    rows = [pack_mask(np.arange(8)[:, None] * np.ones((1, 5)) == row) for row in range(8)]
    assert np.array_equal(stack_layers(rows, (8, 5)), np.arange(1, 9)[None, :, None] * np.ones((1, 8, 5)))


# What is left out, and what is refused


@pytest.mark.parametrize(
    "row",
    [
        {"segmentation": []},
        {"segmentation": [[]]},
        {"segmentation": [[5, 5, 9, 9]]},
        {"segmentation": [[100, 100, 120, 100, 120, 120]]},
        {"segmentation": [[-50, -50, -40, -50, -40, -40]], "area": 5},
        {"segmentation": [[10, 10, 10.2, 10, 10.2, 10.2]], "area": 0},
        {"segmentation": None},
        {"segmentation": [[0.1, 0.1, 0.9, 0.1, 0.9, 0.9]], "bbox": [10, 10, 20, 20]},
    ],
)
def test_objects_without_extent_are_left_out_and_counted(
    tmp_path: Path, row: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    sample = TinyInstances(tmp_path, row, {"segmentation": BESIDE}).open().read(0)
    assert sample.segments == [SegmentInfo(1, 0)]
    assert (sample.id_map == 1).sum() == 200
    assert "objects are left out: 1 w" in caplog.text


@pytest.mark.parametrize(
    "form",
    [
        [[10, 10], [30, 10], [30, 30], [10, 30]],  # corners as pairs
        [[[10, 10], [30, 10], [30, 30], [10, 30]]],
        [
            {
                "size": [HEIGHT, WIDTH],
                "counts": official.encode(np.asfortranarray(np.pad(np.ones((20, 20), np.uint8), ((10, 10), (10, 30)))))[
                    "counts"
                ].decode(),
            }
        ],
        {"size": [HEIGHT, WIDTH], "counts": [410.0, *[20.0, 20.0] * 19, "20", 1210.0]},
    ],
)
def test_masks_as_other_tools_write_them(tmp_path: Path, form: Any, caplog: pytest.LogCaptureFixture) -> None:
    square = TinyInstances(tmp_path, {"segmentation": form}).open(training=True).read(0).id_map[0]
    assert square[10:30, 10:30].all() and square.sum() == 400
    assert not caplog.text


def test_a_file_in_two_rows_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny = TinyInstances(tmp_path, {"segmentation": SQUARE}, {"segmentation": BESIDE, "image_id": 8})
    tiny.open()
    assert not caplog.text
    tiny.images[1]["file_name"] = "./7.png"
    tiny.open()
    assert "lists ./7.png in several rows, each of which counts as an image with its own objects alone" in caplog.text


def test_accents_may_be_written_apart_from_their_letters(tmp_path: Path) -> None:
    tiny = TinyInstances(tmp_path, {"segmentation": SQUARE})
    (tmp_path / "images/7.png").rename(tmp_path / "images/cafe\u0301.png")  # as macOS has it
    tiny.images[0]["file_name"] = "caf\u00e9.png"
    assert tiny.open().read(0).segments == [SegmentInfo(1, 0)]


@pytest.mark.parametrize(
    "row",
    [
        {"area": 0},
        {"area": None},
        {"area": "big"},
        {"bbox": []},
        {"bbox": None},
        {"bbox": [1, 2, 3]},
        {"bbox": [0.1, 0.1, 0.3, 0.3]},
        {"bbox": [10, 10, 0.5, 20]},
        {"bbox": [60, 10, 20, 20]},
        {"bbox": [10, -20, 20, 20]},
    ],
)
def test_the_mask_decides_where_area_or_box_are_wrong(tmp_path: Path, row: dict[str, Any]) -> None:
    reader = TinyInstances(tmp_path, {"segmentation": SQUARE, **row}).open(training=True)
    assert reader.read(0).segments == [SegmentInfo(1, 0)]


def test_ids_and_sizes_of_other_kinds_of_number_are_taken(tmp_path: Path) -> None:
    tiny = TinyInstances(tmp_path, {"segmentation": SQUARE, "image_id": "7", "category_id": 3.0, "iscrowd": "0"})
    tiny.images[0] |= {"height": float(HEIGHT), "width": str(WIDTH)}
    tiny.categories[0]["id"] = "3"
    assert tiny.open(training=True).read(0).segments == [SegmentInfo(1, 0)]
    tiny.images[1]["id"] = "7"  # the file itself tells 7 from "7"
    reader = tiny.open()
    assert [len(reader.read(n).segments) for n in range(2)] == [0, 1]


def test_polygons_are_cut_off_at_the_edge(tmp_path: Path) -> None:
    over = [[-10, -10, 5, -10, 5, 5, -10, 5]]
    sample = TinyInstances(tmp_path, {"segmentation": over, "bbox": [-10, -10, 15, 15], "area": 225}).open().read(0)
    assert (sample.id_map == 1).sum() == 25


def test_training_leaves_out_images_without_objects(tmp_path: Path) -> None:
    tiny = TinyInstances(tmp_path, {"segmentation": SQUARE}, {"segmentation": RUNS, "iscrowd": 1, "image_id": 8})
    assert [tiny.open(training=True).name(n) for n in range(len(tiny.open(training=True)))] == ["7"]
    assert len(tiny.open()) == 2
    tiny.annotations.pop(0)
    with pytest.raises(DataError, match=r"nothing to learn; its images are: 1 without an object; 1 with crowds only"):
        tiny.open(training=True)
    assert tiny.open().read(1).segments == [SegmentInfo(1, 0, crowd=True)]


def test_training_leaves_out_small_images(tmp_path: Path) -> None:
    tiny = TinyInstances(tmp_path, {"segmentation": SQUARE}, {"segmentation": [[0, 0, 9, 0, 9, 9]], "image_id": 8})
    tiny.images[1] |= {"height": 31}
    assert len(tiny.open(training=True)) == 1
    tiny.images[1] |= {"height": 32}
    assert len(tiny.open(training=True)) == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"category_id": 4}, r"annotation 1 has the category 4, which the class table lacks \(it has 3, 8\)"),
        ({"category_id": "car"}, r"annotation 1 has the category 'car'"),
        ({"category_id": 3.5}, r"annotation 1 has the category 3.5"),
        ({"iscrowd": "no"}, r"annotation 1 has iscrowd 'no'; give 0 or 1"),
        ({"image_id": 9}, r"annotation 1 is of the image 9, which the file does not list"),
        ({"image_id": None}, r"annotation 1 is of the image None"),
    ],
)
def test_refuses_at_once(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TinyInstances(tmp_path, {"segmentation": SQUARE} | row).open()


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [WIDTH, HEIGHT], "counts": [2400]}, r"annotation 1: the RLE has the size \[60, 40\], but its image"),
        ({"counts": [2400]}, r"the RLE has the size None"),
        ({"size": [HEIGHT, WIDTH], "counts": [2000]}, r"the runs of the RLE add up to 2000 pixels, its image has 2400"),
        ({"size": [HEIGHT, WIDTH], "counts": "hello"}, r"the counts of the RLE are damaged"),
        ({"size": [HEIGHT, WIDTH], "counts": "é\ud800"}, r"the counts of the RLE are damaged"),
        ([[1, 2, 3, 4, 5]], r"annotation 1: \[1, 2, 3, 4, 5\] is no polygon"),
        ([1, 2, 3, 4, 5, 6], r"annotation 1: 1 is no polygon; give a list of polygons, each a flat list"),
        ({"size": [HEIGHT, WIDTH], "counts": "b'T3b1'"}, r"bytes as Python shows them; write counts.decode\(\)"),
        ([[0, 0, 1e9, 0, 5, 5]], r"a corner at 1000000000.0, far outside the image"),
        ("text", r"the segmentation is 'text'"),
    ],
)
def test_refuses_damaged_masks(tmp_path: Path, segmentation: Any, message: str) -> None:
    tiny = TinyInstances(tmp_path, {"segmentation": segmentation})
    with pytest.raises(DataError, match=message):
        tiny.open()
    tiny.annotations[0] |= {"bbox": [10, 10, 20, 20]}  # nothing raises a doubt until it is drawn
    reader = tiny.open()
    with pytest.raises(DataError, match=message):
        reader.read(0)


def test_refuses_files_that_contradict_themselves(tmp_path: Path) -> None:
    tiny = TinyInstances(tmp_path, {"segmentation": SQUARE})
    wide = {"id": 7, "file_name": "7.png", "height": HEIGHT, "width": WIDTH + 1}
    for images, message in (
        ([wide], r"7.png is 60x40 pixels but .*instances.json says 61x40"),
        ([*tiny.images, tiny.images[0]], r"lists the image id 7 twice"),
        ([{"id": 7, "file_name": "7.png"}], r"an image needs id, file_name, height and width"),
        ([{**wide, "height": 0}], r"an image needs id, file_name, height and width"),
        ([5], r"an image needs id, file_name, height and width .*, not 5"),
        ([{**wide, "file_name": "gone.jpg"}], r"gone.jpg .* does not exist; is this the right folder"),
        (None, r"is no COCO instances JSON: it must hold lists 'images' and 'annotations'"),
    ):
        tiny.images = images  # type: ignore[assignment]
        with pytest.raises(DataError, match=message):
            tiny.open().read(0)
    tiny.images, tiny.annotations = [], []
    with pytest.raises(DataError, match=r"instances.json has no images"):
        tiny.open()
    tiny.categories = None
    with pytest.raises(DataError, match=r"'categories' must be a list"):
        tiny.open()


def test_refuses_a_panoptic_json(goldens: Path) -> None:
    with pytest.raises(DataError, match=r"annotation 1 is .*; it must hold image_id, category_id and segmentation"):
        CocoInstances(None, goldens / "metrics" / "coco_panoptic_real_a" / "gt.json", load_categories("coco_panoptic"))


# COCO itself


def test_real_annotations(goldens: Path) -> None:
    """226 objects of 24 COCO images, 5 of them crowds, against pycocotools, pixel by pixel."""
    path = goldens / "metrics" / "coco_mask_ap_real_a" / "gt.json"
    content = json.loads(path.read_text())
    reader = CocoInstances(None, path, load_categories("coco_instance"))
    labels = {category.id: label for label, category in enumerate(reader.categories)}
    found = 0
    for index, image in enumerate(content["images"]):
        truth = reader.read_truth(index)
        rows = [row for row in content["annotations"] if row["image_id"] == image["id"]]
        rows.sort(key=lambda row: row["iscrowd"])
        assert [(s.label, s.crowd) for s in truth.segments] == [
            (labels[row["category_id"]], bool(row["iscrowd"])) for row in rows
        ]
        for mask, row in zip(masks_of(truth.id_map, len(rows)), rows, strict=True):
            rle = row["segmentation"]
            if isinstance(rle, list) or isinstance(rle["counts"], list):
                rle = official.frPyObjects(rle, image["height"], image["width"])
            theirs = official.decode([official.merge(rle) if isinstance(rle, list) else rle])[..., 0]
            assert np.array_equal(mask, theirs.astype(bool))
            found += 1
    assert found == 226


REAL = Path(os.environ.get("KNET_GOLDENS", "")).parent / "real" / "tiny_coco"


# The images are not bundled (their licences differ); without them pycocotools is the oracle on generated masks above.
@pytest.mark.skipif(not (REAL / "annotations").is_dir(), reason="needs the images of tiny_coco beside KNET_GOLDENS")
@pytest.mark.parametrize(("split", "usable", "objects"), [("train", 49, 470), ("val", 48, 382)])
def test_real_images(split: str, usable: int, objects: int) -> None:
    files = REAL / f"{split}2017", REAL / "annotations" / f"instances_{split}2017.json"
    assert len(CocoInstances(*files, load_categories("coco_instance"), training=True)) == usable
    reader = CocoInstances(*files, load_categories("coco_instance"))
    samples = [reader.read(index) for index in range(len(reader))]
    assert sum(len(sample.segments) for sample in samples) == objects
    assert all(sample.id_map.shape[1:] == sample.image.shape[:2] for sample in samples)
    assert max(len(sample.id_map) for sample in samples) <= 4


def test_coco_panoptic_counts_things_first(goldens: Path) -> None:
    """COCO's own order, 80 things and then 53 stuff, holds whatever the order of the JSON."""
    folder = goldens / "metrics" / "coco_panoptic_real_perfect"
    table = load_categories("coco_panoptic")
    assert [category.thing for category in table] == [True] * 80 + [False] * 53
    content = json.loads((folder / "gt.json").read_text())
    category_of = {s["id"]: s["category_id"] for row in content["annotations"] for s in row["segments_info"]}
    reader = CocoPanoptic(None, folder / "gt.json", folder / "gt", table)
    for index in range(len(reader)):
        for segment in reader.read_truth(index).segments:
            assert table[segment.label].id == category_of[segment.id]
            assert (segment.label < 80) == table[segment.label].thing
