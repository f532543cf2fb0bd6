from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_panoptic import HEIGHT, WIDTH, TinyPanoptic, write_ids

from knet.data.check.findings import EXAMPLES, KINDS, CheckReport, Notes
from knet.data.check.images import check_panoptic, check_root
from knet.data.make.prepare import prepare_cityscapes, prepare_mapillary
from knet.data.readers.coco_panoptic import CocoPanoptic
from knet.data.synthetic.layouts import synthesize
from knet.errors import ConfigError, DataError
from knet.structures import Category


def check(tiny: TinyPanoptic, categories: tuple[Category, ...] | None = None) -> CheckReport:
    return check_panoptic(tiny.images, tiny.json, tiny.masks, categories)


def test_a_sound_data_set(tiny: TinyPanoptic) -> None:
    report = check(tiny)
    assert report.findings == [] and report.errors == 0
    assert report.images == 2
    assert report.segment_ids == (5, 70000)
    assert report.category_ids == (3, 8)
    assert report.sizes == ((HEIGHT, WIDTH), (HEIGHT, WIDTH))
    assert report.void_share == pytest.approx((tiny.id_map == 0).mean())
    road, car = report.classes
    assert (road.id, road.name, road.thing, road.images, road.segments, road.crowds) == (3, "road", False, 2, 2, 0)
    assert (car.id, car.name, car.thing, car.images, car.segments, car.crowds) == (8, "car", True, 2, 4, 2)
    assert road.pixels == 2 * (tiny.id_map == 5).sum()
    assert road.share + car.share == pytest.approx(1)
    assert json.loads(json.dumps(report.to_dict()))["classes"][1]["name"] == "car"


def _annotation(tiny: TinyPanoptic) -> dict[str, object]:
    return tiny.content["annotations"][0]


def _segment(tiny: TinyPanoptic, **change: object) -> None:
    tiny.content["annotations"][0]["segments_info"][0].update(change)


def _copy_image(tiny: TinyPanoptic) -> None:
    (tiny.images / "1.png").write_bytes((tiny.images / "0.png").read_bytes())


def _ambiguous(tiny: TinyPanoptic) -> None:
    for town in ("a", "b"):
        (tiny.images / town).mkdir()
        Image.new("RGB", (WIDTH, HEIGHT)).save(tiny.images / town / "0.png")
    (tiny.images / "0.png").unlink()


def _only_crowd(tiny: TinyPanoptic) -> None:
    write_ids(tiny.masks / "0.png", tiny.id_map * (tiny.id_map == 9))
    tiny.content["annotations"][0]["segments_info"] = [{"id": 9, "category_id": 8, "iscrowd": 1}]


def _all_crowds(tiny: TinyPanoptic) -> None:
    for annotation in tiny.content["annotations"]:
        for row in annotation["segments_info"]:
            row["iscrowd"] = 1


def _many(tiny: TinyPanoptic) -> None:
    """One object a pixel, 101 in all."""
    id_map = np.zeros((HEIGHT, WIDTH), np.int32)
    id_map.ravel()[:101] = np.arange(1, 102)
    write_ids(tiny.masks / "0.png", id_map)
    rows = [{"id": id_, "category_id": 3 if id_ == 1 else 8} for id_ in range(1, 102)]
    tiny.content["annotations"][0]["segments_info"] = rows


def _deep(tiny: TinyPanoptic, kind: type, largest: int) -> None:
    """The first image as a ramp of another depth."""
    (tiny.images / "0.png").unlink()
    ramp = np.linspace(0, largest, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    Image.fromarray(ramp.astype(kind)).save(tiny.images / "0.tif")


# What breaks it, and the kinds that are found then. Every kind must be provoked by something.
CASES: dict[str, tuple[Callable[[TinyPanoptic], object], set[str]]] = {
    "no images": (lambda t: t.content.pop("images"), {"json", "image unused", "mask unused"}),
    "no categories": (lambda t: t.content.pop("categories"), {"json", "image unused", "mask unused"}),
    "no file name": (
        lambda t: _annotation(t).pop("file_name"),
        {"row", "no annotation", "image unused", "mask unused"},
    ),
    "image listed twice": (lambda t: t.content["images"].append(t.content["images"][0]), {"image id twice"}),
    "annotation gone": (lambda t: t.content["annotations"].pop(), {"no annotation", "image unused", "mask unused"}),
    "image row gone": (lambda t: t.content["images"].pop(), {"no image row", "image unused", "mask unused"}),
    "instances file": (
        lambda t: _annotation(t).pop("segments_info"),
        {"no segments_info", "not in json", "nothing to learn"},
    ),
    "segment id 0": (lambda t: _segment(t, id=0), {"segment row", "not in json"}),
    "segment id twice": (lambda t: _segment(t, id=5), {"segment twice", "not in json"}),
    "unknown category": (lambda t: _segment(t, category_id=99), {"unknown category"}),
    "category of a wrong type": (lambda t: _segment(t, category_id="car"), {"unknown category"}),
    "image deleted": (lambda t: (t.images / "0.png").unlink(), {"image missing"}),
    "image above its folder": (lambda t: t.content["images"][0].update(file_name="a/0.png"), {"image elsewhere"}),
    "image in two folders": (_ambiguous, {"image ambiguous", "image unused"}),
    "image cut": (
        lambda t: (t.images / "0.png").write_bytes((t.images / "0.png").read_bytes()[:200]),
        {"image unreadable"},
    ),
    "mask deleted": (lambda t: (t.masks / "0.png").unlink(), {"mask missing"}),
    "mask grey": (lambda t: Image.new("L", (WIDTH, HEIGHT)).save(t.masks / "0.png"), {"mask unreadable"}),
    "image larger": (
        lambda t: Image.new("RGB", (WIDTH + 1, HEIGHT)).save(t.images / "0.png"),
        {"image size", "image flat"},
    ),
    "JSON says larger": (lambda t: t.content["images"][0].update(width=WIDTH + 1), {"json size"}),
    "PNG of OpenCV": (
        lambda t: write_ids(t.masks / "0.png", (t.id_map % 256) << 16 | t.id_map & 0xFF00 | t.id_map >> 16),
        {"blue first"},
    ),
    "id the JSON lacks": (lambda t: write_ids(t.masks / "0.png", t.id_map + (t.id_map == 0)), {"not in json"}),
    "id the PNG lacks": (lambda t: write_ids(t.masks / "0.png", t.id_map * (t.id_map != 9)), {"not in png"}),
    "file used twice": (
        lambda t: t.content["images"][1].update(file_name="0.png"),
        {"same file twice", "image unused"},
    ),
    "same picture": (_copy_image, {"same picture"}),
    "extra mask": (lambda t: shutil.copy(t.masks / "0.png", t.masks / "2.png"), {"mask unused"}),
    "other area": (lambda t: _segment(t, area=7), {"area"}),
    "only a crowd": (_only_crowd, {"nothing to learn"}),
    "all are crowds": (_all_crowds, {"nothing to learn", "nothing at all"}),
    "more segments than kernels": (_many, {"too many"}),
    "12 bits stored as 16": (lambda t: _deep(t, np.uint16, 4095), {"image flat"}),
    "all 16 bits": (lambda t: _deep(t, np.uint16, 65535), set()),
    "floating point": (lambda t: _deep(t, np.float32, 1), set()),
    "floating point beyond 1": (lambda t: _deep(t, np.float32, 255), {"image unreadable"}),
    "class absent": (
        lambda t: t.content["categories"].append({"id": 9, "name": "train", "isthing": 1}),
        {"class absent"},
    ),
}
ELSEWHERE = {"no mask", "mask empty", "mask fractions", "mask damaged", "extent"}  # see test_instance_checks.py
ELSEWHERE |= {"other classes", "label without image", "label not prepared", "thing differs", "frame", "gap"}


@pytest.mark.parametrize("case", CASES)
def test_findings(tiny: TinyPanoptic, case: str) -> None:
    damage, kinds = CASES[case]
    damage(tiny)
    report = check(tiny)
    assert {finding.kind for finding in report.findings} == kinds
    assert report.errors == sum(KINDS[kind][0] for kind in kinds)
    for finding in report.findings:
        assert finding.count >= 1 and len(finding.examples) <= EXAMPLES
        assert finding.line.startswith("error: " if KINDS[finding.kind][0] else "warning: ")
        assert finding.line.endswith(KINDS[finding.kind][2]) and "\n" not in finding.line


DOCUMENT = {"json", "row", "image id twice", "no annotation", "no image row", "no segments_info", "segment row"}
DOCUMENT |= {"segment twice", "unknown category", "image missing", "image ambiguous", "mask missing"}


@pytest.mark.parametrize("case", CASES)
def test_the_reader_refuses_at_once_what_a_check_finds_without_opening_pictures(tiny: TinyPanoptic, case: str) -> None:
    damage, kinds = CASES[case]
    damage(tiny)
    if kinds & DOCUMENT:
        with pytest.raises(DataError):
            CocoPanoptic(tiny.images, tiny.json, tiny.masks)
    else:
        assert len(CocoPanoptic(tiny.images, tiny.json, tiny.masks)) == check(tiny).images


def test_a_size_that_is_no_size_is_an_error_of_both(tiny: TinyPanoptic) -> None:
    tiny.content["images"][0].pop("width")
    assert [(found.kind, found.examples) for found in check(tiny).findings] == [("json size", ["0.png, JSON Nonex20"])]
    with pytest.raises(DataError, match="image 0 has height 20 and width None"):
        CocoPanoptic(tiny.images, tiny.json, tiny.masks)


def test_every_kind_is_provoked_by_a_test() -> None:
    assert set().union(*(kinds for _, kinds in CASES.values())) | ELSEWHERE == set(KINDS)


def test_the_table_says_otherwise(tiny: TinyPanoptic) -> None:
    table = (Category(3, "road", True, (1, 2, 3)), Category(8, "car", True, (4, 5, 6)))
    report = check(tiny, table)
    assert [finding.kind for finding in report.findings] == ["thing differs"]
    assert "road" in report.findings[0].line
    kinds = [finding.kind for finding in check(tiny, table[:1]).findings]
    assert kinds == ["unknown category", "other classes", "thing differs"]


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_broken_json(tiny: TinyPanoptic, text: str) -> None:
    path = tiny.json
    path.write_text(text)
    report = check_panoptic(tiny.images, path, tiny.masks)
    assert report.errors == 1 and report.images == 0
    assert str(path) in report.findings[0].line


@pytest.mark.parametrize(
    "change",
    [
        {"images": [{"id": [1], "file_name": "0.png"}, 3], "annotations": [None]},
        {"images": [{"id": 0, "file_name": ""}], "annotations": [{"image_id": 0, "file_name": ""}]},
        {"annotations": [{"image_id": 0, "file_name": "0.png", "segments_info": [3, {"id": True}, {"id": 5}]}]},
        {"categories": [{"id": [], "isthing": {}}, 4]},
    ],
)
@pytest.mark.parametrize("with_table", [False, True])
def test_nonsense_in_the_json_is_no_crash(tiny: TinyPanoptic, change: dict[str, object], with_table: bool) -> None:
    tiny.content.update(change)
    table = (Category(3, "road", False, (1, 2, 3)), Category(8, "car", True, (4, 5, 6)))
    assert check(tiny, table if with_table else None).errors or "categories" in change


def test_missing_folder(tiny: TinyPanoptic) -> None:
    with pytest.raises(DataError, match="nowhere does not exist"):
        check_panoptic(tiny.folder / "nowhere", tiny.json, tiny.masks)


def test_notes_stay_small() -> None:
    notes = Notes()
    for number in range(1000):
        notes.add("image missing", f"{number}.png")
    (finding,) = notes.findings()
    assert "(1000): 0.png, 1.png, 2.png and 997 more;" in finding.line


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streets")
    for layout in ("cityscapes", "mapillary"):
        synthesize(layout, folder / layout, 3, (48, 96))
    prepare_cityscapes(folder / "cityscapes")
    prepare_mapillary(folder / "mapillary")
    return folder


@pytest.mark.parametrize("layout", ["cityscapes", "mapillary"])
def test_prepared_roots_are_clean(streets: Path, layout: str) -> None:
    reports = check_root(layout, streets / layout)
    assert [report.images for report in reports] == [3, 1]
    for report in reports:
        assert {finding.kind for finding in report.findings} <= {"class absent"}
        assert 0 < report.void_share < 0.2


def test_raw_labels_that_were_forgotten(streets: Path, tmp_path: Path) -> None:
    root = tmp_path / "cityscapes"
    shutil.copytree(streets / "cityscapes", root)
    label = next((root / "gtFine" / "val").rglob("*_gtFine_instanceIds.png"))
    shutil.copy(label, label.with_name("kernelhausen_000099_000019_gtFine_instanceIds.png"))
    (val,) = check_root("cityscapes", root, ["val"])
    assert {finding.kind for finding in val.findings if finding.error} == {"label without image", "label not prepared"}


def test_a_broken_json_of_a_root(streets: Path, tmp_path: Path) -> None:
    root = tmp_path / "cityscapes"
    shutil.copytree(streets / "cityscapes", root)
    (root / "gtFine" / "cityscapes_panoptic_val.json").write_text("{")
    (val,) = check_root("cityscapes", root, ["val"])
    assert "json" in {finding.kind for finding in val.findings}


def test_a_picture_in_two_splits(streets: Path, tmp_path: Path) -> None:
    root = tmp_path / "mapillary"
    shutil.copytree(streets / "mapillary", root)
    source, target = (next((root / split / "images").iterdir()) for split in ("training", "validation"))
    shutil.copy(source, target)
    reports = check_root("mapillary", root)
    assert "same picture" in {finding.kind for finding in reports[1].findings}


def test_roots_that_cannot_be_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no data set layout 'kitti'"):
        check_root("kitti", tmp_path)
    synthesize("cityscapes", tmp_path / "raw", 1, (48, 96))
    with pytest.raises(DataError, match="run `knet data prepare cityscapes"):
        check_root("cityscapes", tmp_path / "raw")
    prepare_cityscapes(tmp_path / "raw", train_ids=True)
    assert [report.category_ids for report in check_root("cityscapes", tmp_path / "raw")] == [(0, 18)] * 2


def test_areas_are_counted_as_bincount_does() -> None:
    from knet.data.files.io import areas_in

    map_ = np.random.default_rng(0).integers(0, 6, (13, 17)).repeat(3, 1)
    values, areas = np.unique(map_, return_counts=True)
    assert areas_in(map_) == dict(zip(values.tolist(), areas.tolist(), strict=True))
    assert areas_in(np.zeros((0, 4), int)) == {}
