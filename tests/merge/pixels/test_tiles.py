"""The parts of the fast merge by themselves: tables, tiles, bounds and estimates, and that what is sure costs no more.

Work space is filled with 77 beforehand, as memory may hold anything. Where bounds or estimates decide, wrong tables
show that nothing is computed once more.
"""

from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from knet.merge.pixels import plain
from knet.merge.pixels.stretch import Axis, Stretch, stretch

streaming = pytest.importorskip("knet.merge.pixels.streaming", reason="Numba is not installed")
tile = pytest.importorskip("knet.merge.pixels.tile", reason="Numba is not installed")

side = st.integers(1, 40)


def dirty(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.full(shape, 77, dtype)


def tables_of(to_pixels: Stretch, wrong: bool = False) -> tuple[np.ndarray, ...]:
    axes = to_pixels.rows, to_pixels.columns
    return tuple(table for axis in axes for table in (axis.index, axis.weight * (not wrong)))


@st.composite
def axes(draw: Any) -> tuple[int, Axis]:
    """A side, and a table from it to pixels: one resize, or two with a crop between."""
    source, steps = draw(side), draw(st.lists(st.integers(1, 150), max_size=2))
    crop = (1, draw(st.integers(1, steps[0]))) if len(steps) == 2 else None
    return source, stretch((1, source), *((1, step) for step in steps), crop=crop).columns


@given(axes())
@settings(max_examples=150)
def test_a_pixel_mixes_each_source_value_once_and_no_more_than_it_needs(made: tuple[int, Axis]) -> None:
    source, axis = made
    assert axis.index.dtype == np.int32 and axis.weight.dtype == np.float64
    assert axis.index.min() >= 0 and axis.index.max() < source
    np.testing.assert_allclose(axis.weight.sum(1), 1, atol=1e-6)
    assert axis.weight.min() >= 0 and axis.index.flags.c_contiguous and axis.weight.flags.c_contiguous
    for index, weight in zip(axis.index, axis.weight, strict=True):
        used = index[weight > 0]
        assert (np.diff(used) > 0).all() and set(index) <= {index[0], *used}
    assert axis.index.shape[1] <= max(np.count_nonzero(axis.weight, axis=1))


@given(axes())
@settings(max_examples=150)
def test_tiles_divide_an_axis_into_pixels_of_the_same_few_values(made: tuple[int, Axis]) -> None:
    source, axis = made
    tiles, pixels = streaming._tiles(axis, source), len(axis.index)
    assert tiles.dtype == np.int64 and tiles[0, 0] == 0 and tiles[-1, 1] == pixels
    assert (tiles[1:, 0] == tiles[:-1, 1]).all()
    first, end = axis.index.min(1), axis.index.max(1) + 1
    few = max(int((end - first).max()), 2 if pixels >= 4 * (end.max() - first.min()) else 5)
    for start, stop, lowest, highest in tiles:
        assert 0 < stop - start <= 32
        assert (lowest, highest) == (first[start:stop].min(), end[start:stop].max()) and highest - lowest <= few
        if stop < pixels:  # and none could be longer
            assert stop - start == 32 or end[stop] - lowest > few


def test_a_table_for_a_whole_run_cannot_be_changed_and_is_made_once() -> None:
    to_pixels = stretch((3, 4), (6, 9))
    assert stretch((3, 4), (6, 9)) is to_pixels and to_pixels.size == (6, 9)
    assert to_pixels.rows in {to_pixels.rows: 1}  # what is made of it is kept by its identity
    assert Axis(to_pixels.rows.index, to_pixels.rows.weight) != to_pixels.rows
    for thing, name in ((to_pixels, "rows"), (to_pixels.rows, "index")):
        with pytest.raises(FrozenInstanceError):
            setattr(thing, name, None)


def scene(seed: int, size: tuple[int, int], scale: float = 3.0, masks: int = 4) -> tuple[np.ndarray, Stretch]:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((masks, 5, 6)) * scale).astype(np.float32), stretch((5, 6), (9, 12), size, crop=(8, 11))


@given(st.integers(0, 999), st.sampled_from([(30, 50), (7, 9), (4, 70)]))
@settings(max_examples=15)
def test_weights_and_cells_of_each_tile_give_its_values(seed: int, size: tuple[int, int]) -> None:
    (map_, *_), to_pixels = scene(seed, size)
    expected, weights = to_pixels(torch.from_numpy(map_)).numpy(), dirty(64, 1024)
    for row in streaming._tiles(to_pixels.rows, 5):
        for column in streaming._tiles(to_pixels.columns, 6):
            there = map_[row[2] : row[3], column[2] : column[3]].ravel()
            count, pixels = len(there), (row[1] - row[0]) * (column[1] - column[0])
            weights[:], cells, values = 77, dirty(64), dirty(1024)
            tile.mixing_weights(row, column, tables_of(to_pixels), weights)
            assert (weights[count:] == 77).all() and (weights[:, pixels:] == 77).all()
            assert tile.gather(map_, row, column, cells) == np.abs(there).max()
            assert (cells[:count] == there).all() and (cells[count:] == 77).all()
            tile.estimate(cells, weights, count, pixels, values)
            wanted = expected[row[0] : row[1], column[0] : column[1]].ravel()
            np.testing.assert_allclose(values[:pixels], wanted, atol=4e-6 * np.abs(there).max())
            assert (values[pixels:] == 77).all()


def test_cells_that_sums_may_not_hold_count_as_infinite() -> None:
    whole = np.array([0, 1, 0, 2])
    for value, largest in ((-3.0, 3.0), (9e29, 9e29), (1e30, np.inf), (-2e30, np.inf), (np.nan, np.inf)):
        map_ = np.array([[1.0, value], [0.5, 0.0]], np.float32)
        assert tile.gather(map_, whole, whole, dirty(4)) == np.float32(largest)
    assert tile.gather(np.zeros((2, 2), np.float32), whole, whole, dirty(4)) == 0


def test_sigmoids_beyond_the_flat_part_are_flat() -> None:
    values = np.array([-300, -25, -20, 0, 20, 25, 300, 77], np.float32)
    tile.estimate_sigmoid(values, 7)
    assert values[0] == values[1] == values[2] < 1e-8 and values[3] == 0.5
    assert values[4] == values[5] == values[6] > 1 - 1e-6 and values[7] == 77


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0]), min_size=6, max_size=6), st.integers(1, 3))
@settings(max_examples=60)
def test_what_is_close_and_what_is_sure_also_where_values_are_equal(numbers: list[float], count: int) -> None:
    estimates, pixels = np.array(numbers, np.float32).reshape(3, 2), 2
    best, close, winner = dirty(3), dirty(3, dtype=np.int32), dirty(3, dtype=np.int32)
    tile._highest(estimates, count, pixels, best)
    assert best.tolist() == [*estimates[:count].max(0), 77]
    floor = np.array([0.25, -0.5, 0], np.float32)
    tile._close(estimates, count, pixels, floor, close, winner)
    near = estimates[:count] >= floor[:2]
    assert close.tolist() == [*near.sum(0), 77]
    assert winner.tolist() == [*(max(np.flatnonzero(n), default=0) for n in near.T), 77]
    surely, perhaps = tile._surely_and_perhaps(estimates[0], 2, np.float32(0.25), np.float32(0.25))
    assert surely == (estimates[0] > 0.5).sum()
    assert perhaps == ((estimates[0] >= 0) & (estimates[0] <= 0.5)).sum()


@given(st.integers(0, 999), st.integers(1, 4), st.integers(1, 3), st.integers(1, 4))
@settings(max_examples=60)
def test_bounds_are_the_extremes_and_only_masks_that_reach_the_best_are_left(
    seed: int, rows: int, wide: int, masks: int
) -> None:
    rng = np.random.default_rng(seed)
    bounds, scores = rng.random((rows, wide, masks), np.float32), rng.random(masks, np.float32)
    high, low = dirty(wide + 1, masks), dirty(wide + 1, masks)
    streaming._extremes(bounds, high, low)
    assert (high[:wide] == bounds.max(0)).all() and (low[:wide] == bounds.min(0)).all() and (high[wide] == 77).all()
    most, least, upper, left = dirty(masks), dirty(masks), dirty(masks), dirty(masks, dtype=np.int64)
    reached = streaming._bounds(high[:wide], low[:wide], scores, most, least, upper)
    assert (most == bounds.max((0, 1))).all() and (least == bounds.min((0, 1))).all()
    assert (upper == scores * most).all() and reached == (scores * least).max()
    assert left[: streaming._possible(upper, reached, left)].tolist() == np.flatnonzero(upper >= reached).tolist()


def test_which_masks_are_left_where_bounds_are_close_tiny_or_negative() -> None:
    def left(upper: list[float], reached: float) -> list[int]:
        places = dirty(len(upper), dtype=np.int64)
        return list(places[: streaming._possible(np.array(upper, np.float32), np.float32(reached), places)])

    assert left([0.5, 0.9, 0.49], 0.5) == [0, 1]
    assert left([0.9999995, 0.99999], 1.0) == [0]  # within the rounding of bounds, and beyond it
    assert left([-1.0000005, -1.00001, 1.0], -1.0) == [0, 2]
    assert left([0.0, 1e-35, -1.0], 1e-31) == [0, 1, 2]  # too small for bounds: all are computed
    assert left([1e-29, 1e-28], 1e-28) == [1]
    assert left([np.nan, 0.2], np.nan) == [0]


def clear(to_pixels: Stretch) -> tuple[np.ndarray, np.ndarray]:
    """Two masks, the left and the right half of a grid (5,6), which are equally likely nowhere on the pixels."""
    masks = np.full((2, 5, 6), -8, np.float32)
    masks[0, :, :3], masks[1, :, 3:] = 8, 8
    owner = plain.share_pixels(torch.from_numpy(masks), torch.ones(2), to_pixels, True)[0].numpy()
    return masks, owner


@pytest.mark.parametrize("logits", [True, False])
def test_estimates_that_are_sure_decide_without_the_tables(logits: bool) -> None:
    to_pixels = stretch((5, 6), (20, 24))
    masks, expected = clear(to_pixels)
    values = masks if logits else 1 / (1 + np.exp(-masks))
    right, wrong, owner = tables_of(to_pixels), tables_of(to_pixels, wrong=True), dirty(20, 24, dtype=np.int32)
    scores, left = np.array([0.9, 0.9], np.float32), np.array([0, 1])
    for row in streaming._tiles(to_pixels.rows, 5):
        for column in streaming._tiles(to_pixels.columns, 6):
            weights, cells, work = dirty(64, 1024), dirty(64), dirty(1024)
            tile.mixing_weights(row, column, right, weights)
            there = slice(*row[:2]), slice(*column[:2])
            for n in range(2):
                half = tile.count_half(values[n], logits, row, column, wrong, weights, cells, work)
                assert half == (expected[there] == n).sum()
            room = weights, cells, dirty(2, 1024), work, dirty(1024, dtype=np.int32), dirty(1024, dtype=np.int32)
            tile.contest(values, scores, left, logits, row, column, wrong, room, owner)
            assert (owner[there] == expected[there]).all()


def test_bounds_that_are_sure_decide_without_the_masks() -> None:
    to_pixels = stretch((5, 6), (20, 24))
    rows, columns = streaming._tiles(to_pixels.rows, 5), streaming._tiles(to_pixels.columns, 6)
    bounds = np.full((5, 6, 3), 0.1, np.float32)
    bounds[..., 1], bounds[2:, :, 2] = 0.9, 0.95
    values, owner = np.full((3, 5, 6), np.nan, np.float32), dirty(20, 24, dtype=np.int32)
    scores, tables = np.array([0.9, 0.9, 0.1], np.float32), tables_of(to_pixels, wrong=True)
    (first, *_), last = rows, rows[-1]
    won, large = streaming._share(values, bounds, scores, tables, rows[:1], columns, 0, True, True, owner)
    height = first[1] - first[0]
    assert (owner[:height] == 1).all() and (owner[height:] == 77).all()
    assert won.tolist() == [0, 24 * height, 0] and large.tolist() == [0, 24 * height, 0]
    owner[:] = 77
    won, large = streaming._share(values, bounds[2:], scores, tables, rows[-1:], columns, 2, True, True, owner)
    height = last[1] - last[0]
    assert (owner[-height:] == 1).all() and (owner[:-height] == 77).all()
    assert won.tolist() == [0, 24 * height, 0] and large.tolist() == [0, 24 * height, 24 * height]
    assert not streaming._share(values, bounds, scores, tables, rows, columns, 0, True, False, owner)[1].any()
    mask = np.zeros((20, 24), np.bool_)
    for value in (0.9, 0.1):
        streaming._above_half(np.full((5, 6), value, np.float32), tables, rows, columns, mask)
        assert (mask == (value > 0.5)).all()


def test_large_pixels_are_counted_only_where_that_is_asked_for() -> None:
    values, to_pixels = torch.ones(2, 3, 3), stretch((3, 3), (6, 6))
    for way in (plain, streaming):
        for count, large in ((True, [36, 36]), (False, [0, 0])):
            assert way.share_pixels(values, torch.ones(2), to_pixels, True, count)[2].tolist() == large
        assert way.share_pixels(values, torch.ones(2), to_pixels, True)[2].tolist() == [36, 36]
