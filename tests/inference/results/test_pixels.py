"""What is done with every pixel: the compiled loops against NumPy, which says plainly what they are to give."""

from __future__ import annotations

import numpy as np
import pytest
from fake_results import CAR, ROAD, TABLE, photo, segments_of, steady
from hypothesis import given
from hypothesis import strategies as st

from knet.compiled import optional
from knet.inference.results import draw, pixels

COMPILED = optional("knet.inference.results.pixels_compiled")
needs_numba = pytest.mark.skipif(COMPILED is None, reason="Numba is not installed")


def drawn_map(seed: int, low: int, high: int) -> np.ndarray:
    """Rectangles of ids, and some pixels of their own."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(low, high, rng.integers(1, 7, 2))
    id_map = np.kron(coarse, np.ones(rng.integers(1, 9, 2), int)).astype(np.int32)
    lone = rng.random(id_map.shape) < 0.05
    id_map[lone] = rng.integers(low, high, lone.sum())
    return id_map


@needs_numba
@steady
@given(st.integers(0, 10_000), st.integers(1, 2), st.integers(0, 256))
def test_tinting_is_what_numpy_says(seed: int, width: int, share: int) -> None:
    id_map, rng = drawn_map(seed, -2, 9), np.random.default_rng(seed)
    ids = int(rng.integers(1, 8))  # the others are not in the table
    table = np.full((ids + 2, 4), 256 - share, np.uint16)
    table[:, :3] = rng.integers(0, 256, (ids + 2, 3)) * share + 128
    objects = rng.integers(0, 3, ids + 1).astype(np.int32)
    picture = rng.integers(0, 256, (*id_map.shape, 3)).astype(np.uint8)

    expected = np.empty_like(picture)
    known = np.where((id_map < 0) | (id_map > ids), ids, id_map)
    edge = pixels.borders(objects[known], width)
    for y, x in np.ndindex(id_map.shape):
        row = table[-1 if edge[y, x] else known[y, x]].astype(int)
        expected[y, x] = (picture[y, x].astype(int) * row[3] + row[:3]) // 256
    for compiled in (COMPILED, None):
        tinted = picture.copy()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pixels, "optional", lambda _, compiled=compiled: compiled)
            pixels.tint(tinted, id_map, table, objects, width)
        np.testing.assert_array_equal(tinted, expected)


@steady
@given(st.integers(0, 10_000), st.integers(0, 3))
def test_extents_are_areas_and_boxes(seed: int, beyond: int) -> None:
    id_map = drawn_map(seed, 0, 6)
    count = int(id_map.max()) + beyond
    for compiled in {COMPILED, None}:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pixels, "optional", lambda _, compiled=compiled: compiled)
            areas, boxes = pixels.extents(id_map, count)
        assert len(areas) == len(boxes) == count + 1
        for n in range(count + 1):
            ys, xs = np.nonzero(id_map == n)
            assert areas[n] == len(ys)
            if len(ys):
                assert boxes[n].tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_borders_have_one_or_two_pixels() -> None:
    objects = np.array([[1, 1, 2, 2]] * 3)
    assert pixels.borders(objects, 1).tolist() == [[False, False, True, False]] * 3
    assert pixels.borders(objects, 2).tolist() == [[False, True, True, False]] * 3


def test_a_picture_is_the_same_without_numba_and_with_any_kind_of_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    id_map = drawn_map(3, 0, 5).repeat(20, 0).repeat(20, 1)
    image, rows = photo(*id_map.shape), {1: ROAD, 2: CAR, 3: CAR}  # 4 is no segment
    drawn = draw.overlay(image, id_map, segments_of(id_map, rows), TABLE)
    for far, kind in ((0, np.uint8), (0, np.int64), (2**20, np.int32), (2**40, np.int64)):
        moved = np.where(id_map > 0, id_map.astype(np.int64) + far, 0).astype(kind)
        segments = segments_of(moved, {i + far: row for i, row in rows.items()})
        np.testing.assert_array_equal(draw.overlay(image, moved, segments, TABLE), drawn)
    for array in (image, id_map):
        array.flags.writeable = False
    np.testing.assert_array_equal(draw.overlay(image, id_map, segments_of(id_map, rows), TABLE), drawn)
    monkeypatch.setattr(pixels, "optional", lambda _: None)
    np.testing.assert_array_equal(draw.overlay(image, id_map, segments_of(id_map, rows), TABLE), drawn)
