"""Pictures of ground truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from knet.errors import DataError
from knet.inference.results.draw import BORDER, segment_colors
from knet.inference.results.samples import (
    GAP,
    draw_sample,
    draw_truth,
    seen_ids,
    side_by_side,
    truth_segments,
    write_samples,
)
from knet.structures import Category, Sample, SegmentInfo, Target

TABLE = (Category(7, "road", False, (128, 64, 128)), Category(26, "car", True, (0, 0, 142)))


def scene() -> tuple[np.ndarray, np.ndarray, list[int]]:
    """A grey picture with void above, a road below and two cars on it."""
    id_map = np.zeros((40, 60), np.int32)
    id_map[20:] = 2
    id_map[25:32, 5:20], id_map[24:36, 30:50] = 1, 3
    return np.full((40, 60, 3), 100, np.uint8), id_map, [1, 0, 1]


def test_segments_of_a_target() -> None:
    _, id_map, labels = scene()
    road, left, right = (truth_segments(id_map, labels, TABLE)[i] for i in (1, 0, 2))
    assert (road.id, road.category, road.name, road.thing) == (2, 7, "road", False)
    assert (left.id, left.category, left.thing, left.box, left.area) == (1, 26, True, (5, 25, 20, 32), 7 * 15)
    assert (right.id, right.box, right.area, right.score) == (3, (30, 24, 50, 36), 12 * 20, 1.0)
    assert truth_segments(np.zeros((4, 4), np.int32), [0, 1], TABLE) == []


def test_a_sample_is_tinted_in_its_class_colours() -> None:
    image, id_map, labels = scene()
    picture = draw_sample(image, torch.from_numpy(id_map), torch.tensor(labels), TABLE)
    assert picture.shape == image.shape and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[:19], image[:19])  # void
    colors = segment_colors(truth_segments(id_map, labels, TABLE), TABLE)
    for number, (y, x) in ((1, (27, 8)), (2, (38, 2)), (3, (30, 48))):
        assert np.abs(picture[y, x] - (image[y, x] / 2 + np.array(colors[number]) / 2)).max() <= 1
    assert tuple(picture[25, 10]) == BORDER
    assert colors[1] != colors[3]
    with pytest.raises(DataError, match="pass the"):
        draw_sample(image[:-1], id_map, labels, TABLE)


def test_crowds_of_a_sample_stay_as_void() -> None:
    image, id_map, labels = scene()
    segments = [SegmentInfo(number, labels[number - 1], crowd=number == 3) for number in (1, 2, 3)]
    picture = draw_truth(Sample("a", image, id_map, segments), TABLE)
    np.testing.assert_array_equal(picture[26:34, 32:48], image[26:34, 32:48])
    assert (picture[26, 10] != image[26, 10]).any()


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4))
def test_side_by_side_has_the_height_of_the_first(sizes: list[tuple[int, int]]) -> None:
    pictures = [np.full((*size, 3), n, np.uint8) for n, size in enumerate(sizes)]
    row = side_by_side(pictures)
    height = sizes[0][0]
    widths = [w if h == height else max(round(w * height / h), 1) for h, w in sizes]
    assert row.shape == (height, sum(widths) + GAP * (len(sizes) - 1), 3)
    left = 0
    for n, width in enumerate(widths):
        assert (row[:, left : left + width] == n).all()
        assert (row[:, left + width : left + width + GAP] == 255).all()
        left += width + GAP


def test_nothing_side_by_side() -> None:
    with pytest.raises(DataError, match="no picture"):
        side_by_side([])


def test_samples_on_a_page(tmp_path: Path) -> None:
    image, id_map, labels = scene()
    full = (torch.from_numpy(id_map), torch.tensor(labels))
    void = (torch.zeros(8, 9, dtype=torch.int32), torch.zeros(0, dtype=torch.int64))
    samples = [("city/<a>", image, Target(*full)), ("b", image[:8, :9], Target(*void)), ("b", image, Target(*full))]
    listed = write_samples(tmp_path, "Title", "3 & more", samples, TABLE)
    assert [row["file"] for row in listed] == ["000_city_a_.jpg", "001_b.jpg", "002_b.jpg"]
    assert listed[0]["classes"] == {"road": 1, "car": 2}
    assert list(listed[0]["classes"]) == ["road", "car"]
    assert listed[0]["void"] == pytest.approx(0.5)
    assert listed[1] == {"name": "b", "file": "001_b.jpg", "height": 8, "width": 9, "void": 1.0, "classes": {}}
    with Image.open(tmp_path / "000_city_a_.jpg") as file:
        assert file.size == (60 + GAP + 60, 40)
        assert np.abs(np.asarray(file)[:, :60].astype(int) - 100).max() < 10
    page = (tmp_path / "index.html").read_text()
    assert "city/&lt;a&gt;" in page and "3 &amp; more" in page and "car &times; 2" in page and "no segment" in page
    assert page.count("<figure>") == 3


def test_of_objects_that_overlap_the_first_layer_is_seen() -> None:
    layers = np.array([[[1, 1, 0, 0]], [[0, 2, 2, 0]]], np.int32)
    assert seen_ids(layers).tolist() == [[1, 1, 2, 0]]
    assert seen_ids(layers[0]).tolist() == [[1, 1, 0, 0]]
    categories = (Category(1, "road", False, (1, 2, 3)), Category(2, "car", True, (200, 2, 3)))
    sample = Sample("a", np.zeros((1, 4, 3), np.uint8), layers, [SegmentInfo(1, 1), SegmentInfo(2, 1)])
    assert draw_truth(sample, categories).shape == (1, 4, 3)
