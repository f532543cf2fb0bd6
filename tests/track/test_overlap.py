"""The tracker by overlap: what must hold for any objects."""

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knet.track import OverlapSettings
from knet.track.overlap import (
    BY_EMBEDDINGS,
    BY_KERNELS,
    Appearance,
    OverlapMemory,
    _best,
    coarse_grid,
    match_by_overlap,
)


def square(grid: np.ndarray, value: int, y: float, x: float, side: int = 10) -> None:
    top, left = max(int(y), 0), max(int(x), 0)
    grid[top : max(int(y) + side, 0), left : max(int(x) + side, 0)] = value


def follow(
    frames: list[list[tuple[float, float, int]]],
    kernels: list[np.ndarray] | None = None,
    appearance: Appearance = BY_KERNELS,
    **thresholds: float,
) -> list[list[int]]:
    """The identities of squares at (y, x, label), frame by frame."""
    memory, found = OverlapMemory(), []
    for number, squares in enumerate(frames):
        grid = np.zeros((60, 200), np.int32)
        for value, (y, x, _) in enumerate(squares, start=1):
            square(grid, value, y, x)
        labels = np.array([label for *_, label in squares], np.int64)
        descriptors = None if kernels is None else kernels[number]
        ids, memory = match_by_overlap(
            memory,
            number,
            grid,
            np.full(len(squares), 0.9),
            labels,
            descriptors,
            OverlapSettings(**thresholds),
            appearance,
        )
        found.append(ids.tolist())
    return found


def test_squares_keep_their_identity_wherever_they_stand_in_the_list() -> None:
    frames = [[(5, 10 + 3 * t, 0), (30, 150 - 3 * t, 0)] for t in range(10)]
    turned = [frame[::-1] if t % 2 else frame for t, frame in enumerate(frames)]
    assert follow(frames) == [[1, 2]] * 10
    assert follow(turned) == [[1, 2], [2, 1]] * 5


def test_a_known_speed_carries_over_what_is_hidden() -> None:
    """Moving by more than its own size in the five frames in which it is not seen."""
    frames = [[(5, 4 * t, 0)] if not 6 <= t < 11 else [] for t in range(16)]
    assert [ids for ids in follow(frames) if ids] == [[1]] * 11
    still = [[(5, 4 * t, 0)] if t < 1 or t > 5 else [] for t in range(9)]
    assert [ids for ids in follow(still) if ids] == [[1], [2], [2], [2]]  # nobody knows how fast it is


def test_the_memory_is_the_number_of_frames_after_which_an_object_is_forgotten() -> None:
    for memory in (1, 3):
        for hidden, again in ((memory - 1, [1]), (memory, [2])):
            frames = [[(5, 10, 0)], *[[] for _ in range(hidden)], [(5, 10, 0)]]
            assert follow(frames, memory=memory)[-1] == again


def test_the_overlap_that_is_asked_for() -> None:
    half, apart = [[(5, 10, 0)], [(5, 15, 0)]], [[(5, 10, 0)], [(5, 20, 0)]]  # IoU 1/3 and 0
    assert follow(half, overlap=0.3) == [[1], [1]]
    assert follow(half, overlap=0.4) == [[1], [2]]
    assert follow(apart, overlap=0.0) == [[1], [2]]  # some pixel has to


def test_objects_of_other_classes_are_others() -> None:
    assert follow([[(5, 10, 0)], [(5, 10, 1)], [(5, 10, 0)]]) == [[1], [2], [1]]


def test_kernels_decide_between_neighbours_and_find_again() -> None:
    a, b = np.eye(2)
    # Two squares each of which overlaps both places equally in the next frame.
    frames = [[(5, 10, 0), (15, 10, 0)], [(10, 5, 0), (10, 15, 0)]]
    assert follow(frames, [np.stack([a, b]), np.stack([b, a])])[1] == [2, 1]
    assert follow(frames, [np.stack([a, b]), np.stack([a, b])])[1] == [1, 2]
    jump = [[(5, 10, 0)], [(5, 22, 0)]]
    assert follow(jump, [a[None], 3 * a[None]]) == [[1], [1]]
    assert follow(jump, [a[None], b[None]]) == [[1], [2]]
    for x, found in ((24, 1), (27, 2), (90, 2)):  # not further than one and a half times its size
        assert follow([[(5, 10, 0)], [(5, x, 0)]], [a[None], a[None]]) == [[1], [found]]


@pytest.mark.parametrize(
    ("x", "appearance", "found"), [(13, BY_KERNELS, 1), (12, BY_EMBEDDINGS, 1), (14, BY_EMBEDDINGS, 2)]
)
def test_how_much_descriptors_weigh_against_overlap(x: float, appearance: Appearance, found: int) -> None:
    a, b = np.eye(2)
    alike = b if appearance is BY_KERNELS else 0.61 * a + math.sqrt(1 - 0.61**2) * b
    # It lies more on the first of two, and looks like the second.
    assert follow([[(5, 10, 0), (5, 20, 0)], [(5, x, 0)]], [np.stack([a, alike]), alike[None]], appearance)[1] == [
        found
    ]


def test_embeddings_forbid_what_overlaps_and_find_again_anywhere() -> None:
    a, b = np.eye(2)
    stays, far = [[(5, 10, 0)], [(5, 10, 0)]], [[(5, 10, 0)], [(5, 150, 0)]]
    assert follow(stays, [a[None], b[None]]) == [[1], [1]]
    assert follow(stays, [a[None], b[None]], BY_EMBEDDINGS) == [[1], [2]]
    assert follow(stays, [a[None], a[None]], BY_EMBEDDINGS) == [[1], [1]]
    assert follow(far, [a[None], a[None]], BY_EMBEDDINGS) == [[1], [1]]
    assert follow(far, [a[None], b[None]], BY_EMBEDDINGS) == [[1], [2]]
    like = 0.55 * a + math.sqrt(1 - 0.55**2) * b  # less than overlap asks for, enough where nobody else is left
    assert follow(far, [a[None], like[None]], BY_EMBEDDINGS) == [[1], [1]]
    near = [[(5, 10, 0)], [(5, 22, 0)]]
    assert follow(near, [a[None], like[None]]) == [[1], [2]]
    hidden = [[(5, 10, 0)], [(500, 500, 0)], [(5, 10, 0)]]  # covered whole by what is in front of it
    assert follow(hidden, [a[None]] * 3, BY_EMBEDDINGS) == [[1], [0], [1]]
    assert follow(stays, None, BY_EMBEDDINGS) == [[1], [1]]  # without descriptors nothing is forbidden


def test_weak_objects_begin_no_track_but_go_on_with_one() -> None:
    grid = np.zeros((20, 20), np.int32)
    square(grid, 1, 2, 2)
    labels, weak, sure = np.zeros(1, np.int64), np.full(1, 0.1), np.full(1, 0.9)
    ids, memory = match_by_overlap(OverlapMemory(), 0, grid, weak, labels)
    assert ids.tolist() == [0]
    assert memory.tracks == ()
    _, memory = match_by_overlap(memory, 1, grid, sure, labels)
    assert match_by_overlap(memory, 2, grid, weak, labels)[0].tolist() == [1]
    ids, _ = match_by_overlap(OverlapMemory(), 0, grid, weak, labels, settings=OverlapSettings(start=0.1))
    assert ids.tolist() == [1]


@pytest.mark.parametrize("scale", [2, 0.5, 1.5])
def test_a_video_that_changes_its_size_keeps_its_tracks(scale: float) -> None:
    memory = OverlapMemory()
    for number, s in enumerate([1, 1, scale, scale, 1]):
        grid = np.zeros((int(40 * s), int(60 * s)), np.int32)
        square(grid, 1, 10 * s, (10 + number) * s, int(12 * s))
        square(grid, 2, 10 * s, (40 - number) * s, int(12 * s))
        ids, memory = match_by_overlap(memory, number, grid, np.ones(2), np.zeros(2, np.int64))
        assert ids.tolist() == [1, 2]


@pytest.mark.parametrize(("high", "wide"), [(2, 2), (3, 1), (1, 3), (0.5, 0.5)])
def test_what_moves_is_expected_on_a_grid_of_another_size(high: float, wide: float) -> None:
    """By overlap where its speed takes it while it is hidden, and by its descriptor near that place alone."""
    near = 12 * wide <= BY_KERNELS.reach * 10 * math.sqrt(high * wide)  # both in cells of the new grid
    for moved, found in ((0, 1), (12, 1 if near else 2), (40, 2)):
        memory = OverlapMemory()
        for number in (*range(9), 13):
            grid = np.zeros((48, 120), np.int32)
            square(grid, 1, 4 + 2 * number, 6 + 4 * number + moved * (number == 13))
            if number == 13:
                rows, columns = (np.arange(round(n * r)) / r for n, r in zip(grid.shape, (high, wide), strict=True))
                grid = grid[rows.astype(int)][:, columns.astype(int)]
            ids, memory = match_by_overlap(memory, number, grid, np.ones(1), np.zeros(1, int), np.eye(2)[:1])
        assert ids.tolist() == [found]


@pytest.mark.parametrize("appearance", [BY_KERNELS, BY_EMBEDDINGS])
def test_an_object_of_a_single_cell_is_found_again_and_one_of_none_is_not(appearance: Appearance) -> None:
    memory, found = OverlapMemory(), []
    for number, cells in enumerate([(3, 4), (3, 5), None, (3, 5)]):
        grid = np.zeros((9, 9), np.int32)
        if cells:
            grid[cells] = 1
        one, label, kernel = np.ones(1), np.zeros(1, np.int64), np.eye(2)[:1]
        ids, memory = match_by_overlap(memory, number, grid, one, label, kernel, appearance=appearance)
        found += ids.tolist()
    assert found == [1, 1, 0, 1]


@pytest.mark.parametrize("length", [0.01, 0.5, 30.0])
def test_descriptors_may_have_any_length(length: float) -> None:
    a, b = length * np.eye(2)
    jump, stays = [[(5, 10, 0)], [(5, 22, 0)]], [[(5, 10, 0)], [(5, 10, 0)]]
    assert follow(jump, [a[None], a[None]]) == follow(jump, [a[None], 7 * a[None]]) == [[1], [1]]
    assert follow(jump, [a[None], a[None] + 2 * b]) == [[1], [2]]
    assert follow(stays, [a[None], a[None] + 3 * b], BY_EMBEDDINGS) == [[1], [2]]
    assert follow(jump, [0 * a[None], 0 * a[None]]) == [[1], [2]]  # which says nothing


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 8), missing=st.integers(1, 4))
@settings(max_examples=40)
def test_identities_are_unique_and_the_memory_bounded(seed: int, count: int, missing: int) -> None:
    rng, memory, number = np.random.default_rng(seed), OverlapMemory(), 0
    highest = 0
    for _ in range(25):
        number += int(rng.integers(1, missing + 1))
        grid = rng.integers(0, count + 1, (6, 7)).repeat(3, 0).repeat(3, 1).astype(np.int32)
        labels, scores = rng.integers(0, 2, count), rng.random(count)
        ids, memory = match_by_overlap(memory, number, grid, scores, labels, rng.standard_normal((count, 4)))
        own = ids[ids > 0]
        assert len(set(own.tolist())) == len(own)
        kept = {track.id: track for track in memory.tracks}
        assert set(own.tolist()) <= set(kept)
        assert all(kept[i].label == label for i, label in zip(ids.tolist(), labels.tolist(), strict=True) if i)
        assert all(number - track.last < 10 for track in memory.tracks)
        assert len(kept) == len(memory.tracks) <= 10 * max(count, 1)
        assert memory.given >= highest
        highest = memory.given


def test_a_coarse_grid_keeps_small_images_whole() -> None:
    assert coarse_grid(np.zeros((100, 150))).shape == (100, 150)
    assert coarse_grid(np.zeros((1024, 2048))).shape == (205, 410)
    assert coarse_grid(np.zeros((1, 9000))).shape == (1, 9000)


def test_objects_at_the_border_have_all_their_cells() -> None:
    """An overlap of 1 needs every one of them."""
    corners = [(0, 0, 0), (0, 190, 0), (50, 0, 0), (50, 190, 0)]
    assert follow([corners, corners], overlap=1.0) == [[1, 2, 3, 4]] * 2
    along = [[(52, 100 - 4 * t, 0)] for t in range(5)]  # its lower rows are never seen
    assert follow(along, overlap=0.4) == [[1]] * 5
    down = [[(40 + 5 * t, 7, 0)] for t in range(4)]
    assert follow(down) == [[1]] * 4  # what is expected beyond the border counts no cells there


@pytest.mark.parametrize(("cosine", "same"), [(0.62, True), (0.58, False)])
def test_how_alike_embeddings_have_to_be_for_what_overlaps(cosine: float, same: bool) -> None:
    a, b = np.eye(2)
    other = cosine * a + math.sqrt(1 - cosine**2) * b
    stays = [[(5, 10, 0)], [(5, 10, 0)]]
    least = replace(BY_EMBEDDINGS, likeness=2.0)  # and nothing is found again without overlap
    assert follow(stays, [a[None], other[None]], least) == [[1], [1 if same else 2]]


def test_limits_that_are_met_exactly_are_met() -> None:
    a = np.eye(2)[:1]
    stays, apart = [[(5, 10, 0)], [(5, 10, 0)]], [[(5, 10, 0)], [(5, 20, 0)]]
    assert follow(stays, [a, a], Appearance(0.0, veto=1.0, likeness=2.0, reach=0.0)) == [[1], [1]]
    assert follow(apart, [a, a], Appearance(0.0, veto=1.0, likeness=1.0, reach=1.0)) == [[1], [1]]  # one size away
    assert follow(apart, [a, a], Appearance(0.0, veto=1.0, likeness=1.0, reach=0.99)) == [[1], [2]]
    assert follow([[(5, 10, 0)], [(5, 15, 0)]], overlap=1 / 3) == [[1], [1]]


@given(seed=st.integers(0, 2**32 - 1), tracks=st.integers(1, 5), objects=st.integers(1, 5))
@settings(max_examples=40)
def test_no_other_pairs_overlap_more(seed: int, tracks: int, objects: int) -> None:
    rng = np.random.default_rng(seed)
    value, allowed = rng.integers(1, 9, (tracks, objects)), rng.random((tracks, objects)) < 0.6
    pairs = _best(value, allowed)
    assert len(set(pairs.values())) == len(pairs) and all(allowed[track, thing] for thing, track in pairs.items())
    worth = np.pad(np.where(allowed, value, 0), ((0, objects), (0, 0)))  # an object may stay without a track
    best = max(worth[rows, range(objects)].sum() for rows in map(list, permutations(range(len(worth)), objects)))
    assert sum(value[track, thing] for thing, track in pairs.items()) == best


@pytest.mark.filterwarnings("error")
def test_objects_too_small_for_the_grid_are_compared_without_a_warning() -> None:
    """Neither the track nor the object has a cell, once the video has become smaller."""
    seen, everywhere = np.ones((1, 4), np.float32), OverlapSettings(start=0.0)
    grid = np.zeros((8, 8), np.int32)
    grid[1, 1] = 1
    _, memory = match_by_overlap(OverlapMemory(), 0, grid, np.ones(1), np.zeros(1, int), seen, everywhere)
    for number, small in enumerate((np.zeros((2, 2), np.int32), np.zeros((2, 2), np.int32)), start=1):
        ids, memory = match_by_overlap(
            memory, number, small, np.ones(1), np.zeros(1, int), seen, everywhere, BY_EMBEDDINGS
        )
        assert ids.tolist() == [0] and not len(memory.tracks[0].cells)
