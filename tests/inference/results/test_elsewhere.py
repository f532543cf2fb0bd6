"""Results in the forms of other packages."""

from __future__ import annotations

import io
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as official

from knet.data.files.masks import pack_mask
from knet.errors import ConfigError
from knet.inference.results.segmentation import Segmentation
from knet.structures import Category, Segment


@pytest.fixture
def result() -> Segmentation:
    ids = np.zeros((40, 60), np.int32)
    ids[20:], ids[5:15, 10:30] = 1, 2
    ids[8:10, 12:16] = 0  # a hole
    road, car = Category(7, "road", False, (1, 2, 3)), Category(9, "car", True, (200, 0, 0))
    segments = [
        Segment(1, 7, "road", False, 0.9, 1200, (0, 20, 60, 40)),
        Segment(2, 9, "car", True, 0.5, 192, (10, 5, 30, 15), track=4),
    ]
    return Segmentation(ids, segments, (road, car), "a")


@pytest.mark.parametrize("form", ["rle", "polygons"])
def test_coco_is_read_back_by_its_own_tools(result: Segmentation, form: str) -> None:
    document = json.loads(json.dumps(result.to_coco(3, form)))
    assert [row["category_id"] for row in document["annotations"]] == [7, 9]
    assert {row["id"] for row in document["categories"]} == {7, 9}
    for row, segment in zip(document["annotations"], result.segments, strict=True):
        packed = row["segmentation"]
        packed = packed if form == "rle" else official.merge(official.frPyObjects(packed, 40, 60))
        assert np.array_equal(official.decode(packed).astype(bool), result.mask(segment))
        assert row["area"] == segment.area and row["image_id"] == 3
        if form == "rle":
            assert row["bbox"] == official.toBbox(packed).tolist()
    assert [row.get("track_id") for row in document["annotations"]] == [None, 4]


def test_objects_that_overlap_keep_their_whole_masks(result: Segmentation) -> None:
    whole = np.zeros((40, 60), bool)
    whole[5:30, 10:30] = True
    result.masks = {1: pack_mask(result.id_map == 1), 2: pack_mask(whole)}
    packed = result.to_coco()["annotations"][1]["segmentation"]
    assert np.array_equal(official.decode(packed).astype(bool), whole)


def test_pictures_for_notebooks_and_viewers(result: Segmentation) -> None:
    shown = Image.open(io.BytesIO(result._repr_png_()))
    assert shown.size == (60, 40) and np.array_equal(np.asarray(shown), result.overlay())
    assert np.array_equal(np.asarray(result.to_pil(alpha=1.0)), result.overlay(alpha=1.0))


def test_the_repr_is_one_short_line(result: Segmentation) -> None:
    assert repr(result) == "Segmentation('a', 60x40: road, car)"
    result.segments = [Segment(n, n, f"class {n % 20}", True, 1.0, 1, (0, 0, 1, 1)) for n in range(1, 41)]
    assert len(repr(result)) < 200 and repr(result).endswith("and 12 classes more)")
    empty = Segmentation(np.zeros((2, 2), np.int32), [], ())
    assert "nothing" in repr(empty) and empty.to_coco()["annotations"] == []


def test_rows_of_a_dataframe(result: Segmentation, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, object] = {}

    class Frame:
        def __init__(self, rows: list[tuple[object, ...]], columns: list[str]):
            made.update(rows=rows, columns=columns)

        def astype(self, kinds: dict[str, str]) -> Frame:
            return self

    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=Frame))
    result.to_dataframe()
    assert all(len(row) == len(made["columns"]) for row in made["rows"])  # type: ignore[arg-type,attr-defined]


@pytest.mark.parametrize("name", ["pandas", "fiftyone", "supervision"])
def test_a_package_that_is_not_there_is_named(result: Segmentation, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    method = {"pandas": "to_dataframe", "fiftyone": "to_fiftyone", "supervision": "to_supervision"}[name]
    with pytest.raises(ConfigError, match=f"{method}.* needs the package '{name}'"):
        getattr(result, method)()
