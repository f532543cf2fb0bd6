from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fake_results import (
    ROAD,
    TABLE,
    clip,
    names_in,
    photo,
    read_panoptic,
    segmentations,
    segments_of,
    steady,
    street,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from knet.errors import ConfigError, DataError
from knet.files import UniqueNames
from knet.inference.results.formats import FORMATS, check_formats
from knet.inference.results.segmentation import Segmentation
from knet.inference.results.writers import ResultWriter, safe_name
from knet.inference.sources.videos import read_video
from knet.structures import Category

STILL = tuple(f for f in FORMATS if f != "video")


def test_save_writes_each_format(tmp_path: Path) -> None:
    result, image = street(tracks={4: 7}), photo()
    written = result.save(tmp_path / "new" / "out", STILL, image)
    out = tmp_path / "new" / "out"
    assert [p.name for p in written] == [
        "street_overlay.jpg",
        "street_panoptic.png",
        "street_instances.png",
        "street_semantic.png",
        "street_segments.json",
        "street_polygons.json",
        "street_panoptic.json",
    ]
    assert names_in(out) == sorted(p.name for p in written)
    drawn = np.array(Image.open(out / "street_overlay.jpg")).astype(int)
    assert np.abs(drawn - result.overlay(image)).mean() < 4
    semantic = Image.open(out / "street_semantic.png")
    assert semantic.mode == "L" and sorted(np.unique(semantic)) == [0, 7, 23, 26]
    instances = np.array(Image.open(out / "street_instances.png"))
    assert sorted(np.unique(instances)) == [0, 7, 23, 26000, 26001]
    assert json.loads((out / "street_segments.json").read_text()) == result.to_dict()
    ids, rows = read_panoptic(out / "street_panoptic.json", "street")
    assert np.array_equal(ids, result.id_map)
    assert rows[4] == {
        "id": 4,
        "category_id": 26,
        "isthing": 1,
        "area": 400,
        "bbox": [40, 20, 20, 20],
        "iscrowd": 0,
        "score": 0.996,
        "track": 7,
    }


@steady
@given(segmentations(largest_id=(1 << 24) - 1))
def test_files_hold_the_result(tmp_path: Path, result: Segmentation) -> None:
    result.save(tmp_path, ["panoptic", "semantic", "instances"])
    ids, rows = read_panoptic(tmp_path / "noise_panoptic.json", "noise")
    assert set(np.unique(ids)) - {0} == set(rows) == {s.id for s in result.segments}
    for i, row in rows.items():
        assert (ids == i).sum() == row["area"]
        ys, xs = np.nonzero(ids == i)
        assert row["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
    semantic = np.array(Image.open(tmp_path / "noise_semantic.png")).astype(int)
    instances = np.array(Image.open(tmp_path / "noise_instances.png")).astype(int)
    assert np.array_equal(np.where(semantic == 0, -1, semantic), result.semantic_map())
    assert np.array_equal(np.where(instances > 999, instances // 1000, instances), semantic)


def test_save_without_an_image_shows_the_colours(tmp_path: Path) -> None:
    (path,) = street().save(tmp_path, ["overlay"], name="map")
    assert path.name == "map_overlay.jpg"
    assert np.abs(np.array(Image.open(path))[5, 70].astype(int) - (70, 130, 180)).max() < 8


def test_formats_are_checked() -> None:
    assert check_formats(["json", "overlay", "json"], TABLE) == ("json", "overlay")
    assert check_formats("overlay,json", TABLE) == ("overlay", "json")
    with pytest.raises(ConfigError, match=r"'panoptik'; known are .*did you mean 'panoptic'"):
        check_formats(["overlay", "panoptik"], TABLE)
    dog = Category(90, "dog", True, (1, 2, 3))
    check_formats(["panoptic", "semantic"], [dog])
    with pytest.raises(ConfigError, match=r"'dog' has 90: use 'panoptic'"):
        check_formats(["instances"], [dog])
    with pytest.raises(ConfigError, match="'dog' has 0"):
        check_formats(["instances"], [Category(0, "dog", True, (1, 2, 3))])
    check_formats(["instances"], [Category(0, "road", False, (1, 2, 3))])
    with pytest.raises(ConfigError, match="0 to 65534"):
        check_formats(["semantic"], [Category(65535, "dog", True, (1, 2, 3))])


def test_save_makes_no_video(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ResultWriter"):
        street().save(tmp_path, ["video"], photo())
    assert not names_in(tmp_path)


@steady
@given(st.text(max_size=300))
def test_any_name_becomes_a_file_name(name: str) -> None:
    safe = safe_name(name)
    assert safe and len(safe.encode()) <= 150 and not set(safe) & set('<>:"/\\|?*\0\n')
    assert safe == safe_name(safe) or len(safe.encode()) > 140


def test_names_cannot_leave_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("../../up", "/etc/passwd", "..", "", "n" * 400, "ü" * 200):
        for path in street(name=name).save(out, ["json", "panoptic"]):
            assert path.parent == out and path.is_file()
    assert names_in(tmp_path) == ["out"]


def test_results_do_not_touch_the_images_beside_them(tmp_path: Path) -> None:
    for suffix in (".png", ".jpg", ".json", ".mp4"):
        (tmp_path / f"street{suffix}").write_text("mine")
    with ResultWriter(tmp_path, FORMATS, TABLE) as writer:
        writer.write(street(), photo(), video=clip("street"))
    assert all((tmp_path / f"street{s}").read_text() == "mine" for s in (".png", ".jpg", ".json", ".mp4"))


def test_a_run_writes_one_panoptic_file(tmp_path: Path) -> None:
    with ResultWriter(tmp_path, ["panoptic"], TABLE) as writer:
        assert writer.write(street(name="000139"), photo(), path=Path("in/000139.jpg")) == [
            tmp_path / "000139_panoptic.png"
        ]
        writer.write(street(30, 40, "b"), photo(30, 40))
        assert "panoptic.json" not in names_in(tmp_path)
    document = json.loads((tmp_path / "panoptic.json").read_text())
    assert document["images"] == [
        {"id": 139, "file_name": "000139.jpg", "height": 60, "width": 80},
        {"id": "b", "file_name": "b", "height": 30, "width": 40},
    ]
    assert document["categories"][2] == {"id": 26, "name": "car", "isthing": 1, "color": [0, 0, 142]}
    for image_id, expected in ((139, street()), ("b", street(30, 40))):
        ids, rows = read_panoptic(tmp_path / "panoptic.json", image_id)
        assert np.array_equal(ids, expected.id_map) and set(rows) == {1, 2, 3, 4}
    assert names_in(tmp_path) == ["000139_panoptic.png", "b_panoptic.png", "panoptic.json"]


def test_images_of_the_same_name_get_numbers(tmp_path: Path) -> None:
    with ResultWriter(tmp_path, ["json", "panoptic"], TABLE) as writer:
        for name in ("x", "x", "X", "x_2", "x", "7", "07"):
            writer.write(street(name=name), photo())
    stems = [n.removesuffix("_segments.json") for n in names_in(tmp_path) if n.endswith("_segments.json")]
    assert sorted(stems) == sorted(["x", "x_2", "X_3", "x_2_2", "x_4", "7", "07"])
    ids = [i["id"] for i in json.loads((tmp_path / "panoptic.json").read_text())["images"]]
    assert ids == ["x", "x_2", "X_3", "x_2_2", "x_4", 7, "07"]


@steady
@given(st.lists(st.sampled_from(["x", "X", "x_2", "x_3", "x_2_2", "y"]), max_size=12))
def test_numbers_are_unique_and_repeatable(names: list[str]) -> None:
    given_out = []
    for _ in range(2):
        given_out.append(list(map(UniqueNames(), names)))
    assert given_out[0] == given_out[1]
    assert len({n.casefold() for n in given_out[0]}) == len(names)


def test_a_second_run_replaces_the_first(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with ResultWriter(tmp_path, ["panoptic"], TABLE) as writer:
            writer.write(street(name=name), photo())
    assert [i["id"] for i in json.loads((tmp_path / "panoptic.json").read_text())["images"]] == ["second"]


def test_nothing_written_leaves_nothing(tmp_path: Path) -> None:
    with ResultWriter(tmp_path, FORMATS, TABLE) as writer:
        pass
    assert writer.close() == [] and not names_in(tmp_path)


def test_an_image_that_fails_does_not_count(tmp_path: Path) -> None:
    with ResultWriter(tmp_path, FORMATS, TABLE) as writer:
        for size in ((60, 80), (61, 80), (60, 80)):
            try:
                writer.write(street(name=f"s{size[0]}"), photo(*size))
            except DataError:
                assert size == (61, 80)
    assert [i["id"] for i in json.loads((tmp_path / "panoptic.json").read_text())["images"]] == ["s60", "s60_2"]
    assert len(list(read_video(tmp_path / "images_overlay.mp4"))) == 2


@pytest.mark.parametrize(("height", "width"), [(60, 80), (61, 79), (1, 1), (30, 33)])
def test_a_video_comes_back(tmp_path: Path, height: int, width: int) -> None:
    rate = Fraction(30000, 1001)
    id_map = np.ones((height, width), np.int32)
    result = Segmentation(id_map, segments_of(id_map, {1: ROAD}), TABLE, "f")
    pictures = [photo(height, width, seed) for seed in range(4)]
    with ResultWriter(tmp_path, ["video"], TABLE) as writer:
        for picture in pictures:
            assert writer.write(result, picture, video=clip("night", rate)) == []
        assert not any(name.endswith("overlay.mp4") for name in names_in(tmp_path))
    assert names_in(tmp_path) == ["night_overlay.mp4"]
    with av.open(str(tmp_path / "night_overlay.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == rate and stream.frames == 4
        assert (stream.height, stream.width) == (height + height % 2, width + width % 2)
    for item, picture in zip(read_video(tmp_path / "night_overlay.mp4"), pictures, strict=True):
        expected = result.overlay(picture).astype(int)
        assert np.abs(item.image[:height, :width] - expected).mean() < 6


def test_colours_survive_a_video(tmp_path: Path) -> None:
    colors = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (240, 240, 30), (128, 128, 128)]
    empty = Segmentation(np.zeros((64, 64), np.int32), [], TABLE)
    with ResultWriter(tmp_path, ["video"], TABLE) as writer:
        for color in colors:
            writer.write(empty, np.full((64, 64, 3), color, np.uint8))
    for item, color in zip(read_video(tmp_path / "images_overlay.mp4"), colors, strict=True):
        assert np.abs(item.image.mean((0, 1)) - color).max() < 5


def test_each_video_becomes_a_film(tmp_path: Path) -> None:
    with ResultWriter(tmp_path, ["video"], TABLE) as writer:
        for video in (clip("a"), clip("a"), clip("b", 25), clip("a"), None, None):
            writer.write(street(), photo(), video=video)
        assert names_in(tmp_path)[-3:] == ["a_2_overlay.mp4", "a_overlay.mp4", "b_overlay.mp4"]
        files = writer.close()
    assert files == [tmp_path / "images_overlay.mp4"]
    counts = {p.name: sum(1 for _ in read_video(p)) for p in tmp_path.iterdir()}
    assert counts == {"a_overlay.mp4": 2, "b_overlay.mp4": 1, "a_2_overlay.mp4": 1, "images_overlay.mp4": 2}


def test_images_of_other_sizes_are_fitted_into_the_film(tmp_path: Path) -> None:
    with ResultWriter(tmp_path, ["video"], TABLE) as writer:
        writer.write(street(), photo())
        writer.write(street(30, 20), photo(30, 20))
    frames = [item.image for item in read_video(tmp_path / "images_overlay.mp4")]
    assert [f.shape for f in frames] == [(60, 80, 3)] * 2
    assert frames[1][:, :15].mean() < 8 < frames[1][:, 30:50].mean()


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    with ResultWriter(tmp_path, ["panoptic"], TABLE) as writer:
        for n in range(300):
            writer.write(street(4, 4, name=f"s{n}"), None)
        panoptic: Any = writer._open["panoptic"]
        assert not [value for value in vars(panoptic).values() if isinstance(value, list | dict) and value]
    assert len(json.loads((tmp_path / "panoptic.json").read_text())["annotations"]) == 300
