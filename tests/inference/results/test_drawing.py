from __future__ import annotations

import numpy as np
import pytest
from fake_results import CAR, ROAD, SKY, TABLE, photo, segmentations, segments_of, steady, street
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from knet.errors import DataError
from knet.inference.results import colors, draw, fonts
from knet.inference.results.pixels import borders
from knet.inference.results.segmentation import Segmentation
from knet.structures import Category


def far(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
    return float(np.linalg.norm(np.subtract(a, b)))


@steady
@given(
    st.dictionaries(st.integers(1, 40), st.integers(-5, 200), max_size=8),
    st.lists(st.integers(-3, 60), min_size=6, max_size=6),
    st.integers(0, 1),
)
def test_map_ids_is_a_dictionary_look_up(table: dict[int, int], pixels: list[int], huge: int) -> None:
    shift = huge * draw.LARGEST_TABLE
    table = {key + shift: value for key, value in table.items()}
    id_map = np.array(pixels, np.int32).reshape(2, 3)
    id_map[id_map > 0] += shift
    mapped = draw.map_ids(id_map, list(table), np.array(list(table.values()), np.int16), -9)
    assert mapped.dtype == np.int16
    assert mapped.tolist() == [[table.get(int(i), -9) for i in row] for row in id_map]


def edges(result: Segmentation, width: int = 1) -> np.ndarray:
    """Where the borders of things are."""
    things = [s.id for s in result.segments if s.thing]
    return borders(np.where(np.isin(result.id_map, things), result.id_map, 0), width)


def test_overlay_tints_segments_and_leaves_void() -> None:
    image, result = photo(), street()
    drawn = result.overlay(image, names=False)
    assert drawn.dtype == np.uint8 and drawn.shape == image.shape
    edge = edges(result)
    assert (drawn[edge] == 255).all()
    void = (result.id_map == 0) & ~edge
    assert (drawn[void] == image[void]).all()
    road = (result.id_map == 1) & ~edge
    expected = 0.5 * image[road] + 0.5 * np.array(ROAD.color)
    assert np.abs(drawn[road] - expected).max() <= 1


def test_alpha_zero_shows_the_image_and_one_the_colours() -> None:
    image, result = photo(), street()
    inside = (result.id_map == 2) & ~edges(result)
    assert (result.overlay(image, alpha=0, names=False)[inside] == image[inside]).all()
    assert (result.overlay(image, alpha=1, names=False)[inside] == SKY.color).all()
    assert (result.overlay(names=False)[inside] == SKY.color).all()  # no image: the colours alone


def test_overlay_does_not_touch_its_input() -> None:
    image, result = photo(), street()
    before = image.copy(), result.id_map.copy()
    result.overlay(image, legend=True)
    assert (image == before[0]).all() and (result.id_map == before[1]).all()


def test_a_track_fixes_the_colour() -> None:
    early, late = street(tracks={3: 17, 4: 5}), street(tracks={3: 5, 4: 17})
    first, second = (colors.segment_colors(s.segments, TABLE) for s in (early, late))
    assert first[3] == second[4] and first[4] == second[3] and first[3] != first[4]


def test_a_class_outside_the_table_gets_a_colour_of_its_own() -> None:
    assert colors.class_color(500, TABLE) == colors.class_color(500, ()) != colors.class_color(501, ())


def test_borders_surround_things_only() -> None:
    result = street()
    for width in (1, 2):
        edge = edges(result, width)
        things = [s.id for s in result.segments if s.thing]
        near_thing = np.zeros_like(edge)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                near_thing |= np.isin(np.roll(result.id_map, (dy, dx), (0, 1)), things)
        assert edge.any() and not (edge & ~near_thing).any()
    middle = result.id_map.shape[1] // 2
    assert edge[30, middle] and edge[30, middle - 1]  # between the two cars, on both sides
    assert not edge[5].any() and not edge[-5].any()


def test_inner_depth_counts_steps_from_the_edge() -> None:
    grid = np.zeros((7, 9), int)
    grid[1:6, 1:8] = 3
    depth = draw.inner_depth(grid)
    assert depth[3].tolist() == [0, 1, 2, 3, 3, 3, 2, 1, 0]
    grid[1:6, 4:8] = 5
    assert draw.inner_depth(grid)[3].tolist() == [0, 1, 2, 1, 1, 2, 2, 1, 0]


@steady
@given(st.integers(0, 10_000))
def test_inner_depth_counts_how_often_edges_can_be_taken_away(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = np.kron(rng.integers(0, 4, rng.integers(1, 5, 2)), np.ones(rng.integers(1, 9, 2), int))
    left, depth = np.pad(grid, 1), np.zeros(grid.shape, int)
    while left.any():
        depth += left[1:-1, 1:-1] > 0
        same = (left[:-2, 1:-1], left[2:, 1:-1], left[1:-1, :-2], left[1:-1, 2:])
        left[1:-1, 1:-1] = np.where(np.all([left[1:-1, 1:-1] == other for other in same], 0), left[1:-1, 1:-1], 0)
    assert (draw.inner_depth(grid) == depth).all()


def test_a_name_looks_as_if_it_were_drawn_on_the_picture() -> None:
    below = np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)
    wide, high = draw.name_size("car 7", (300, 400))
    light, share = draw.name_plate("car 7", (300, 400))
    below = below[:high, :wide].copy()
    canvas = Image.fromarray(below)
    pen = ImageDraw.Draw(canvas, "RGBA")
    pen.rounded_rectangle((0, 0, wide - 1, high - 1), radius=3, fill=(16, 18, 24, 170))
    font = fonts.font_for(300, 400)
    pen.text((wide / 2, high / 2), "car 7", font=font, fill=(255, 255, 255, 255), anchor="mm")
    plate = light + np.rint(below * (share / 255))
    assert np.abs(plate - np.asarray(canvas)).max() <= 2  # two roundings each


@steady
@given(st.integers(0, 10_000))
def test_labels_lie_in_the_image_and_do_not_overlap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    id_map = np.kron(rng.integers(0, 8, (5, 6)), np.ones((40, 50), int)).astype(np.int32)
    taken = (0, 150, 80, 200)
    boxes = draw.place_labels(id_map, dict.fromkeys(range(1, 8), (40, 14)), [taken])
    for i, (left, top, right, bottom) in boxes.items():
        assert 0 <= left < right <= 300 and 0 <= top < bottom <= 200
        assert id_map[(top + bottom) // 2, (left + right) // 2] == i
    placed = [*boxes.values(), taken]
    for n, a in enumerate(placed):
        assert not any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in placed[:n])


def test_names_are_written_where_there_is_room() -> None:
    result, image = street(240, 320), photo(240, 320)
    plain, named = result.overlay(image, names=False), result.overlay(image)
    changed = (plain != named).any(-1)
    assert all(changed[result.id_map == s.id].any() for s in result.segments)
    assert changed.mean() < 0.15
    tiny = street(24, 32)
    assert (tiny.overlay(photo(24, 32)) == tiny.overlay(photo(24, 32), names=False)).all()


@steady
@given(segmentations(), st.booleans(), st.floats(0, 1))
def test_anything_can_be_drawn(result: Segmentation, legend: bool, alpha: float) -> None:
    height, width = result.id_map.shape
    drawn = result.overlay(photo(height, width), alpha=alpha, legend=legend)
    assert drawn.shape[0] >= height and drawn.shape[1] >= width and drawn.dtype == np.uint8
    assert legend or drawn.shape == (height, width, 3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 2), (1500, 20)])
def test_odd_sizes_can_be_drawn(shape: tuple[int, int]) -> None:
    id_map = np.ones(shape, np.int32)
    result = Segmentation(id_map, segments_of(id_map, {1: CAR}), TABLE)
    assert result.overlay(photo(*shape)).shape == (*shape, 3)
    assert result.overlay(photo(*shape), legend=True).shape[0] > shape[0]


def test_names_beyond_latin_letters_can_be_drawn() -> None:
    odd = Category(1, "дом 家 🚗", False, (9, 9, 200))
    id_map = np.ones((200, 300), np.int32)
    Segmentation(id_map, segments_of(id_map, {1: odd}), (odd,)).overlay(photo(200, 300), legend=True)


def test_a_wrong_image_is_refused() -> None:
    with pytest.raises(DataError, match=r"\(61, 80, 3\).*\(60, 80\)"):
        street().overlay(photo(61, 80))
