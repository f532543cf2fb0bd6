from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_results import CAR, ROAD, TABLE, photo, segmentations, segments_of, steady, street
from hypothesis import given
from hypothesis import strategies as st

from knet.errors import ConfigError, OutputError
from knet.inference.results.encoding import instance_ids, panoptic_entries, panoptic_rgb, semantic_ids
from knet.inference.results.segmentation import Segmentation
from knet.structures import Category


@steady
@given(segmentations())
def test_semantic_map_gives_every_pixel_its_class(result: Segmentation) -> None:
    classes = {s.id: s.category for s in result.segments}
    expected = [[classes.get(int(i), -1) for i in row] for row in result.id_map]
    semantic = result.semantic_map()
    assert semantic.dtype == np.int32 and semantic.tolist() == expected
    assert np.array_equal(semantic_ids(result), np.where(semantic == -1, 0, semantic))


@steady
@given(segmentations(largest_id=(1 << 24) - 1))
def test_ids_survive_the_way_over_colours(result: Segmentation) -> None:
    colors = panoptic_rgb(result).astype(np.int64)
    known = [s.id for s in result.segments]
    assert np.array_equal(colors @ [1, 256, 65536], np.where(np.isin(result.id_map, known), result.id_map, 0))


@pytest.mark.parametrize("segment_id", [0, 1 << 24])
def test_ids_that_colours_cannot_hold_are_refused(segment_id: int) -> None:
    result = Segmentation(
        np.full((2, 2), segment_id), segments_of(np.full((2, 2), segment_id), {segment_id: CAR}), TABLE
    )
    with pytest.raises(OutputError, match="16777215"):
        panoptic_rgb(result)


@steady
@given(segmentations())
def test_instance_ids_agree_with_the_segments(result: Segmentation) -> None:
    ids, semantic = instance_ids(result).astype(int), result.semantic_map()
    assert ids.dtype == int
    is_thing = ids >= 1000
    assert np.array_equal(np.where(is_thing, ids // 1000, ids), np.where(semantic == -1, 0, semantic))
    things = [s for s in result.segments if s.thing]
    assert sorted(np.unique(ids[is_thing])) == [CAR.id * 1000 + n for n in range(len(things))]
    for segment in things:
        assert len(np.unique(ids[result.id_map == segment.id])) == 1


@steady
@given(segmentations())
def test_panoptic_entries_count_every_pixel_once(result: Segmentation) -> None:
    image, annotation = panoptic_entries(result, 5, "a.jpg", "a.png")
    height, width = result.id_map.shape
    assert image == {"id": 5, "file_name": "a.jpg", "height": height, "width": width}
    rows = annotation["segments_info"]
    assert {r["id"] for r in rows} == {s.id for s in result.segments}
    assert sum(r["area"] for r in rows) == np.isin(result.id_map, [s.id for s in result.segments]).sum()
    json.dumps(annotation)


def test_segments_without_pixels_are_not_listed() -> None:
    result = street()
    result.id_map[result.id_map == 3] = 0
    rows = panoptic_entries(result, 1, "", "")[1]["segments_info"]
    assert [r["id"] for r in rows] == [1, 2, 4]


def test_void_moves_away_from_a_class_with_number_zero() -> None:
    zero = Category(0, "road", False, (1, 2, 3))
    id_map = np.array([[0, 1]], np.int32)
    result = Segmentation(id_map, segments_of(id_map, {1: zero}), (zero, CAR))
    assert semantic_ids(result).tolist() == [[255, 0]] and semantic_ids(result).dtype == np.uint8
    assert instance_ids(result).tolist() == [[65535, 0]]
    assert result.semantic_map().tolist() == [[-1, 0]]
    result.categories = (zero, Category(255, "last", False, (1, 2, 3)))
    assert semantic_ids(result).tolist() == [[65535, 0]] and semantic_ids(result).dtype == np.uint16


@steady
@given(st.sampled_from([254, 255, 256, 65534]))
def test_semantic_pixels_are_as_wide_as_needed(category_id: int) -> None:
    wide = Category(category_id, "wide", False, (1, 2, 3))
    id_map = np.array([[0, 1]], np.int32)
    semantic = semantic_ids(Segmentation(id_map, segments_of(id_map, {1: wide}), (ROAD, wide)))
    assert semantic.tolist() == [[0, category_id]]
    assert semantic.dtype == (np.uint8 if category_id < 256 else np.uint16)


@pytest.mark.parametrize(("category_id", "fits"), [(26, 1000), (65, 535)])
def test_too_many_objects_for_instance_numbers_are_refused(category_id: int, fits: int) -> None:
    thing = Category(category_id, "bead", True, (1, 2, 3))
    id_map = np.arange(1, fits + 1, dtype=np.int32)[None]
    result = Segmentation(id_map, segments_of(id_map, {int(i): thing for i in id_map[0]}), (thing,))
    assert len(np.unique(instance_ids(result))) == fits
    id_map = np.arange(1, fits + 2, dtype=np.int32)[None]
    result = Segmentation(id_map, segments_of(id_map, {int(i): thing for i in id_map[0]}), (thing,))
    with pytest.raises(OutputError, match=rf"more than {fits} segments 'bead'.*panoptic"):
        instance_ids(result)


def test_to_dict_is_plain_data() -> None:
    result = street(tracks={3: 9})
    result.segments = [*result.segments[:2], *result.segments[2:]]
    data = json.loads(json.dumps(result.to_dict()))
    assert (data["name"], data["height"], data["width"]) == ("street", 60, 80)
    assert [s["track"] for s in data["segments"]] == [None, None, 9, None]
    car = data["segments"][2]
    assert (car["category"], car["name"], car["thing"], car["area"]) == (26, "car", True, 400)
    assert car["box"] == [20, 20, 40, 40]


def test_to_dict_takes_numpy_numbers() -> None:
    segment = segments_of(np.ones((2, 2), np.int32), {1: CAR})[0]
    values = {name: getattr(segment, name) for name in segment.__slots__}
    values |= {"id": np.int32(1), "score": np.float32(0.5), "area": np.int64(4), "box": tuple(np.array(segment.box))}
    json.dumps(Segmentation(np.ones((2, 2), np.int32), [type(segment)(**values)], TABLE).to_dict())


def test_overlay_uses_the_kept_image() -> None:
    result, image = street(), photo()
    result.image = image
    assert np.array_equal(result.overlay(), street().overlay(image))
    assert "image=" not in repr(result) and result.overlay(photo(seed=1)).shape == image.shape


def test_to_supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ConfigError, match="pip install supervision"):
        street().to_supervision()

    def detections(**fields: Any) -> SimpleNamespace:
        return SimpleNamespace(**fields)

    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=detections))
    found = street(tracks={3: 9}).to_supervision()
    assert found.xyxy.shape == (4, 4) and found.mask.shape == (4, 60, 80) and found.mask.dtype == bool
    assert found.mask.sum((1, 2)).tolist() == [s.area for s in street().segments]
    assert found.class_id.tolist() == [7, 23, 26, 26] and found.tracker_id.tolist() == [-1, -1, 9, -1]
    assert found.data["class_name"].tolist() == ["road", "sky", "car", "car"]
    assert street().to_supervision().tracker_id is None
    empty = Segmentation(np.zeros((3, 3), np.int32), [], TABLE).to_supervision()
    assert empty.xyxy.shape == (0, 4) and empty.mask.shape == (0, 3, 3)
