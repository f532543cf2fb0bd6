from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_panoptic import HEIGHT, WIDTH, TinyPanoptic, write_ids

from knet.data.categories import as_table
from knet.data.files.id_cache import IdCache
from knet.data.readers.coco_panoptic import CocoPanoptic
from knet.data.readers.label_folder import LabelFolder
from knet.errors import DataError, OutputError
from knet.inference.sources.images import load_image
from knet.structures import Category, SegmentInfo

ROAD, CAR = Category(3, "road", False, (1, 2, 3)), Category(8, "car", True, (4, 5, 6))


def open_tiny(tiny: TinyPanoptic, categories: tuple[Category, ...] | None = None) -> CocoPanoptic:
    return CocoPanoptic(tiny.images, tiny.json, tiny.masks, categories)


def test_coco_panoptic_reads_what_was_written(tiny: TinyPanoptic) -> None:
    reader = open_tiny(tiny)
    assert reader.categories == (ROAD, CAR)
    assert len(reader) == 2
    assert reader.name(1) == "1"
    sample = reader.read(1)
    assert sample.name == "1"
    assert sample.image.dtype == np.uint8 and sample.image.shape == (HEIGHT, WIDTH, 3)
    assert sample.id_map.dtype == np.int32
    assert np.array_equal(sample.id_map, tiny.id_map)
    assert sample.segments == [
        SegmentInfo(70000, 1),
        SegmentInfo(5, 0),
        SegmentInfo(300, 1),
        SegmentInfo(9, 1, crowd=True),
    ]
    assert np.array_equal(sample.image, np.array(Image.open(tiny.images / "1.png")))


def test_coco_panoptic_takes_labels_from_the_given_categories(tiny: TinyPanoptic) -> None:
    assert [segment.label for segment in open_tiny(tiny, (CAR, ROAD)).read(0).segments] == [0, 1, 0, 0]


def test_read_truth_needs_no_images(tiny: TinyPanoptic) -> None:
    reader = CocoPanoptic(None, tiny.json, tiny.masks)
    truth = reader.read_truth(0)
    assert truth.image.size == 0
    assert np.array_equal(truth.id_map, tiny.id_map)
    with pytest.raises(DataError, match="without a folder of images"):
        reader.read(0)


@pytest.mark.parametrize(
    ("file_name", "on_disk"),
    [
        ("0.jpg", "0.png"),
        ("0.png", "deep/er/0.png"),
        ("aachen_0_1_gtFine_leftImg8bit.png", "aachen/aachen_0_1_leftImg8bit.png"),
        ("town/0.jpg", "town/0.png"),
        ("town/0.jpg", "deep/town/0.png"),
        ("train/town/0.jpg", "town/0.png"),
        ("C:\\data\\town\\0.jpg", "0.png"),
        ("town\\0.jpg", "town/0.png"),
        ("town\\0.jpg", "town\\0.jpg"),
        ("1305031452.791720", "1305031452.791720.png"),
        ("1305031452.791720.png", "1305031452.791720.png"),
        ("frame.v2", "deep/frame.v2.png"),
    ],
)
def test_images_are_found(tiny: TinyPanoptic, file_name: str, on_disk: str) -> None:
    tiny.content["images"][0]["file_name"] = file_name
    (tiny.images / on_disk).parent.mkdir(parents=True, exist_ok=True)
    (tiny.images / "0.png").rename(tiny.images / on_disk)
    assert open_tiny(tiny).read(0).image.shape == (HEIGHT, WIDTH, 3)


def test_ambiguous_image(tiny: TinyPanoptic) -> None:
    for town in ("a", "b"):
        (tiny.images / town).mkdir()
        Image.new("RGB", (WIDTH, HEIGHT)).save(tiny.images / town / "x.png")
    tiny.content["images"][0]["file_name"] = "x.png"
    with pytest.raises(DataError, match=r"could be any of a/x\.png, b/x\.png"):
        open_tiny(tiny)


def test_an_image_of_another_folder_is_not_taken_for_its_bare_name(tiny: TinyPanoptic) -> None:
    for number, row in enumerate(tiny.content["images"]):
        row["file_name"] = f"cam{number + 1}/0.png"
    (tiny.images / "cam2").mkdir()
    (tiny.images / "1.png").rename(tiny.images / "cam2/0.png")
    (tiny.images / "0.png").unlink()
    with pytest.raises(DataError, match=r"cam1/0.png .*does not exist; cam2/0.png is in another folder"):
        open_tiny(tiny)
    (tiny.images / "cam2/0.png").rename(tiny.images / "0.png")
    with pytest.raises(DataError, match=r"cam1/0.png and cam2/0.png would both be the image"):
        open_tiny(tiny)


def test_images_in_other_folders_than_the_names_say_are_told(
    tiny: TinyPanoptic, caplog: pytest.LogCaptureFixture
) -> None:
    tiny.content["images"][0]["file_name"] = "train2017/0.png"
    with caplog.at_level("INFO"):
        open_tiny(tiny)
    assert "1 images were found in other folders: train2017/0.png as 0.png" in caplog.text


def test_a_file_without_an_ending_is_found_by_exactly_its_name(tiny: TinyPanoptic) -> None:
    (tiny.images / "0.png").rename(tiny.images / "frame_0")
    tiny.content["images"][0]["file_name"] = "frame_0"
    assert open_tiny(tiny).read(0).image.shape[2] == 3
    tiny.content["images"][0]["file_name"] = "../images/frame_0"
    with pytest.raises(DataError, match="does not exist"):
        open_tiny(tiny)


def _drop(tiny: TinyPanoptic, key: str) -> None:
    del tiny.content[key]


def _segment(tiny: TinyPanoptic, **change: object) -> None:
    tiny.content["annotations"][0]["segments_info"][0].update(change)


BREAK_JSON: dict[str, tuple[Callable[[TinyPanoptic], object], str]] = {
    "no images": (lambda t: _drop(t, "images"), "no list 'images'"),
    "no annotations": (lambda t: _drop(t, "annotations"), "no list 'annotations'"),
    "no categories": (lambda t: _drop(t, "categories"), "'categories' must be a list"),
    "image twice": (lambda t: t.content["images"].append(t.content["images"][0]), "image id 0 twice in 'images'"),
    "annotation twice": (
        lambda t: t.content["annotations"].append(t.content["annotations"][1]),
        "image id 1 twice in 'annotations'",
    ),
    "image alone": (lambda t: t.content["annotations"].pop(), "no annotation for the image 1"),
    "annotation alone": (lambda t: t.content["images"].pop(), "no image for the annotation 1"),
    "no file name": (lambda t: t.content["images"][0].pop("file_name"), "without id or file_name"),
    "odd size": (lambda t: t.content["images"][0].update(height="tall"), "height 'tall'"),
    "instances file": (lambda t: t.content["annotations"][0].pop("segments_info"), "instances"),
    "unknown category": (lambda t: _segment(t, category_id=99), "category 99, which the class table lacks"),
    "no category": (lambda t: _segment(t, category_id=None), "category None"),
    "id 0": (lambda t: _segment(t, id=0), "the id 0"),
    "id too large": (lambda t: _segment(t, id=256**3), "the id 16777216"),
    "segment twice": (lambda t: _segment(t, id=5), "segment 5 twice"),
    "missing mask": (lambda t: (t.masks / "0.png").unlink(), "0.png of image 0 .* does not exist"),
    "missing image": (lambda t: (t.images / "1.png").unlink(), "1.png .* does not exist"),
}


@pytest.mark.parametrize("case", BREAK_JSON)
def test_coco_panoptic_refuses_at_once(tiny: TinyPanoptic, case: str) -> None:
    damage, message = BREAK_JSON[case]
    damage(tiny)
    with pytest.raises(DataError, match=message) as caught:
        open_tiny(tiny)
    assert str(tiny.folder) in str(caught.value)


BREAK_FILE: dict[str, tuple[Callable[[TinyPanoptic], object], str]] = {
    "id the JSON lacks": (
        lambda t: write_ids(t.masks / "0.png", t.id_map + (t.id_map == 9)),
        r"ids 10 that .* not list",
    ),
    "id the PNG lacks": (lambda t: write_ids(t.masks / "0.png", t.id_map * (t.id_map != 9)), r"lacks the ids 9 that"),
    "PNG of another size": (lambda t: write_ids(t.masks / "0.png", t.id_map[:-1]), "0.png is 30x19 pixels but"),
    "image of another size": (
        lambda t: Image.new("RGB", (WIDTH + 1, HEIGHT)).save(t.images / "0.png"),
        "0.png is 31x20 pixels but its ground truth",
    ),
    "grey PNG": (
        lambda t: Image.new("L", (WIDTH, HEIGHT)).save(t.masks / "0.png"),
        "is a grey picture; it must be an RGB PNG",
    ),
    "broken PNG": (lambda t: (t.masks / "0.png").write_bytes(b"no picture"), "panoptic PNG .* cannot be read"),
    "cut PNG": (
        lambda t: (t.masks / "0.png").write_bytes((t.masks / "0.png").read_bytes()[:-40]),
        "panoptic PNG .* cannot be read",
    ),
    "broken image": (lambda t: (t.images / "0.png").write_bytes(b""), "image .* cannot be read"),
    "image gone": (lambda t: (t.images / "0.png").unlink(), "does not exist"),
}


@pytest.mark.parametrize("case", BREAK_FILE)
def test_coco_panoptic_refuses_on_reading(tiny: TinyPanoptic, case: str) -> None:
    damage, message = BREAK_FILE[case]
    reader = open_tiny(tiny)
    damage(tiny)
    with pytest.raises(DataError, match=message) as caught:
        reader.read(0)
    assert "0.png" in str(caught.value)
    assert reader.read(1).name == "1"


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\ufeff{}"])
def test_broken_json(tiny: TinyPanoptic, text: str) -> None:
    path = tiny.json
    path.write_text(text)
    with pytest.raises(DataError, match=str(path)):
        CocoPanoptic(tiny.images, path, tiny.masks)


def test_missing_places(tiny: TinyPanoptic) -> None:
    nowhere = tiny.folder / "nowhere"
    for places in (
        (nowhere, tiny.json, tiny.masks),
        (tiny.images, nowhere, tiny.masks),
        (tiny.images, tiny.json, nowhere),
    ):
        with pytest.raises(DataError, match=r"nowhere.* does not exist"):
            CocoPanoptic(*places)


def test_image_with_a_noted_orientation_is_turned(tiny: TinyPanoptic) -> None:
    exif = Image.Exif()
    exif[274] = 6  # the camera was held upright: rows are columns
    Image.new("RGB", (HEIGHT, WIDTH), (9, 9, 9)).save(tiny.images / "0.png", exif=exif)
    assert open_tiny(tiny).read(0).image.shape == (HEIGHT, WIDTH, 3)


LABELS = np.array([[0, 0, 2], [11, 10, 2]])


def write_labels(folder: Path, values: np.ndarray, kind: str = "L") -> tuple[Path, Path]:
    images, labels = folder / "images", folder / "labels"
    images.mkdir(exist_ok=True)
    labels.mkdir(exist_ok=True)
    Image.new("RGB", values.shape[::-1]).save(images / "a.jpg")
    picture = Image.fromarray(values.astype(np.uint16 if kind == "I;16" else np.uint8))
    if kind == "P":
        picture.putpalette([index // 3 for index in range(768)])
    picture.save(labels / "a.png")
    return images, labels


@pytest.mark.parametrize("kind", ["L", "P", "I;16"])
def test_label_folder(tmp_path: Path, kind: str) -> None:
    reader = LabelFolder(*write_labels(tmp_path, LABELS, kind), "camvid")
    sample = reader.read(0)
    assert (len(reader), reader.name(0), sample.name) == (1, "a", "a")
    assert sample.id_map.tolist() == [[1, 1, 3], [0, 11, 3]]
    assert sample.segments == [SegmentInfo(1, 0), SegmentInfo(3, 2), SegmentInfo(11, 10)]


def test_label_folder_with_plain_rows_reads_ids(tmp_path: Path) -> None:
    table = as_table((ROAD, CAR))
    assert LabelFolder(*write_labels(tmp_path, np.array([[8, 3]])), table).read_label_map(0).tolist() == [[1, 0]]
    files = write_labels(tmp_path, np.array([[8, 3, 300]]), "I;16")
    with_void = replace(table, void_values=frozenset({300}))
    assert LabelFolder(*files, with_void).read_label_map(0).tolist() == [[1, 0, -1]]


def test_label_pngs_that_were_written_blue_first_are_named(tmp_path: Path) -> None:
    images, labels = write_labels(tmp_path, LABELS)
    colors = np.zeros((2, 3, 3), np.uint8)
    colors[0], colors[1, 1:] = ROAD.color, CAR.color
    Image.fromarray(colors).save(labels / "a.png")
    assert LabelFolder(images, labels, (ROAD, CAR)).read_label_map(0).tolist() == [[0, 0, 0], [-1, 1, 1]]
    Image.fromarray(colors[..., ::-1].copy()).save(labels / "a.png")
    with pytest.raises(DataError, match="the order blue, green, red"):
        LabelFolder(images, labels, (ROAD, CAR)).read(0)


def test_label_folder_refuses(tmp_path: Path) -> None:
    images, labels = write_labels(tmp_path, LABELS)
    with pytest.raises(DataError, match=r"a\.png has the pixel value 0, 2, 10 and 1 more"):
        LabelFolder(images, labels, (ROAD, CAR)).read(0)
    Image.new("RGB", (4, 2)).save(images / "a.jpg")
    with pytest.raises(DataError, match=r"3x2 pixels but its image .* is 4x2"):
        LabelFolder(images, labels, "camvid").read(0)
    Image.new("LA", (3, 2)).save(labels / "a.png")
    with pytest.raises(DataError, match="colour mode LA"):
        LabelFolder(images, labels, "camvid").read(0)
    (labels / "a.png").rename(labels / "b.png")
    with pytest.raises(DataError, match=r"images has a but .*labels has no file"):
        LabelFolder(images, labels, "camvid")
    (images / "a.jpg").unlink()
    (labels / "b.png").unlink()
    with pytest.raises(DataError, match="holds no images"):
        LabelFolder(images, labels, "camvid")


def test_the_cache_gives_the_same_ids_and_follows_the_pngs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    png, cache = tmp_path / "a.png", IdCache(tmp_path / "cache")

    def write(ids: np.ndarray) -> None:
        Image.fromarray(np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)).save(png)

    for shape in ((7, 9), (1, 1), (30, 2)):  # a PNG that changed is read again
        ids = rng.integers(0, 2, shape).astype(np.int32) * rng.integers(1, 2**24)
        write(ids)
        first, again = cache.read(png), cache.read(png)
        assert again.dtype == np.int32 and np.array_equal(first, ids) and np.array_equal(again, ids)
    kept = max((tmp_path / "cache").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    with monkeypatch.context() as patch:
        patch.setattr("knet.data.files.id_cache.read_ids", lambda path: pytest.fail("decoded again"))
        assert np.array_equal(cache.read(png), ids)
    kept.write_bytes(kept.read_bytes()[:-40])  # a damaged file is made again
    assert np.array_equal(cache.read(png), ids)
    assert len(list((tmp_path / "cache").iterdir())) == 3
    png.unlink()
    with pytest.raises(DataError, match=r"panoptic PNG .*a\.png does not exist"):
        cache.read(png)
    (tmp_path / "file").write_text("")
    write(ids)
    with pytest.raises(OutputError, match="Cannot write"):
        IdCache(tmp_path / "file").read(png)


@pytest.mark.parametrize(("kind", "largest"), [(np.uint16, 65535), (np.float32, 1)])
def test_deep_images_look_the_same_in_training_as_in_prediction(tiny: TinyPanoptic, kind: type, largest: int) -> None:
    (tiny.images / "0.png").unlink()
    ramp = np.linspace(0, largest, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(kind)
    Image.fromarray(ramp).save(tiny.images / "0.tif")
    image = CocoPanoptic(tiny.images, tiny.json, tiny.masks).read(0).image
    np.testing.assert_array_equal(image, load_image(tiny.images / "0.tif"))
    np.testing.assert_array_equal(image[..., 0], np.rint(ramp / largest * 255))
