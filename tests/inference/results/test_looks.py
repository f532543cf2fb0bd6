"""How results look: colours that can be told apart, legends, scores, contours, and what is refused."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fake_results import CAR, ROAD, TABLE, photo, segments_of, street

from knet.cli.main import main
from knet.data.categories import categories_from_rows, category_tables, load_categories
from knet.errors import ConfigError
from knet.inference.results.colors import KINDS, class_color, instance_color, listed_colors, oklab, segment_colors
from knet.inference.results.fonts import font_for
from knet.inference.results.legend import with_legend
from knet.inference.results.segmentation import Segmentation
from knet.inference.results.writers import ResultWriter
from knet.inference.sources.videos import VideoInfo
from knet.structures import Category

Color = tuple[int, int, int]


def difference(a: Color, b: Color) -> float:
    """How different two colours look: a just noticeable difference is some 0.02."""
    return float(np.linalg.norm(oklab(np.array(a)) - oklab(np.array(b))))


def things() -> set[Color]:
    tables = (load_categories(name) for name in category_tables())
    return {c.color for table in tables for c in table if c.thing} | {(0, 0, 0), (255, 255, 255), (128, 128, 128)}


def test_all_colours_of_a_class_differ_and_can_be_seen_by_night() -> None:
    for base in things():
        colors = [instance_color(base, n) for n in range(KINDS)]
        assert min(difference(a, b) for a, b in combinations(colors, 2)) > 0.05, base
        assert all(0.45 < oklab(np.array(color))[0] < 0.9 for color in colors), base
        assert instance_color(base, KINDS) == colors[0]


def test_the_first_object_has_the_class_colour_unless_it_is_dark() -> None:
    assert instance_color((200, 60, 60), 0) == (200, 60, 60)
    assert instance_color((0, 0, 142), 0) != (0, 0, 142)
    assert oklab(np.array(instance_color((0, 0, 142), 0)))[2] < -0.1  # still blue


def many_cars(rows: int = 6, columns: int = 9) -> Segmentation:
    """Cars without gaps, more than there are colours."""
    id_map = np.kron(np.arange(1, rows * columns + 1).reshape(rows, columns), np.ones((20, 20), int)).astype(np.int32)
    return Segmentation(id_map, segments_of(id_map, dict.fromkeys(range(1, id_map.max() + 1), CAR)), TABLE)


def test_objects_that_touch_never_share_a_colour() -> None:
    result = many_cars()
    colors = segment_colors(result.segments, TABLE)
    pairs = {(int(a), int(b)) for a, b in zip(result.id_map[:, :-1].flat, result.id_map[:, 1:].flat, strict=True)}
    pairs |= {(int(a), int(b)) for a, b in zip(result.id_map[:-1].flat, result.id_map[1:].flat, strict=True)}
    assert len({colors[i] for i in colors}) == KINDS
    assert all(difference(colors[a], colors[b]) > 0.05 for a, b in pairs if a != b)


def test_the_legend_has_the_colours_of_the_objects_and_hides_none() -> None:
    result, image = street(240, 320), photo(240, 320)
    plain, drawn = result.overlay(image, alpha=1.0), result.overlay(image, alpha=1.0, legend=True)
    assert drawn.shape[0] > 240 and drawn.shape[1] == 320
    assert (drawn[:240] == plain).all()
    panel = drawn[240:].reshape(-1, 3)
    for segment in result.segments:
        color = segment_colors(result.segments, TABLE)[segment.id]
        assert (plain[result.id_map == segment.id] == color).all(1).any()
        assert (panel == color).all(1).sum() > 20, segment.name
    assert not (panel == CAR.color).all(1).any()  # no car is that dark


def test_a_picture_of_nothing_gets_no_legend() -> None:
    empty = Segmentation(np.zeros((40, 40), np.int32), [], TABLE)
    assert (empty.overlay(photo(40, 40), legend=True) == photo(40, 40)).all()


def test_the_legend_of_a_tiny_picture_is_as_wide_as_its_names() -> None:
    long = Category(1, "something with a very long name", False, (9, 90, 200))
    id_map = np.ones((20, 24), np.int32)
    result = Segmentation(id_map, segments_of(id_map, {1: long}), (long,))
    drawn = result.overlay(photo(20, 24), legend=True)
    assert drawn.shape[1] > font_for(20, 24).getlength(long.name)
    assert (drawn[:20, :24] == result.overlay(photo(20, 24))).all()


def test_many_classes_are_all_listed_in_rows() -> None:
    table = tuple(Category(n, f"class {n}", False, (n, 250 - n, 128)) for n in range(1, 101))
    id_map = np.arange(1, 101, dtype=np.int32).repeat(30).reshape(50, 60)
    segments = segments_of(id_map, {c.id: c for c in table})
    panel = with_legend(photo(50, 60), segments, table)[50:].reshape(-1, 3)
    assert all((panel == category.color).all(1).any() for category in table)


def test_all_frames_of_a_film_with_a_legend_are_equally_large(tmp_path: Path) -> None:
    info = VideoInfo(tmp_path / "drive.mp4", Fraction(10), None, 120, 160)
    empty = Segmentation(np.zeros((120, 160), np.int32), [], TABLE)
    with ResultWriter(tmp_path, ["video"], TABLE, {"legend": True}) as writer:
        for result in (empty, street(120, 160)):
            writer.write(result, photo(120, 160), video=info)
    with av.open(str(tmp_path / "drive_overlay.mp4")) as container:
        first, second = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
    assert first.shape == second.shape and first.shape[0] > 120
    assert np.abs(first[:110, 1:30].astype(int) - photo(120, 160)[:110, 1:30]).mean() < 6  # not squeezed
    assert first[125:].max() < 60 < second[125:].max()


def test_scores_are_written_where_asked_for() -> None:
    result, image = street(240, 320), photo(240, 320)
    named, scored = result.overlay(image), result.overlay(image, scores=True)
    assert (named != scored).any()
    assert (result.overlay(image, names=False) != result.overlay(image, names=False, scores=True)).any()


def test_contours_are_around_objects_everything_or_nothing() -> None:
    result, image = street(240, 320), photo(240, 320)
    plain: Any = {"names": False, "alpha": 0.5}
    white = {key: (result.overlay(image, contours=key, **plain) == 255).all(-1) for key in (None, True, False)}
    horizon, car = (slice(119, 122), slice(2, 60)), (slice(80, 82), slice(90, 150))
    assert white[None][car].any() and not white[None][horizon].any()
    assert white[True][car].any() and white[True][horizon].any()
    assert not white[False].any()


def test_names_can_be_read_on_a_page_that_shrinks_the_picture() -> None:
    for height, width in ((720, 1280), (1024, 2048), (2160, 3840)):
        assert font_for(height, width).size * 700 / width >= 11, (height, width)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alpha": 2}, "alpha is 2"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"alpha": "half"}, "alpha is 'half'"),
        ({"alpha": True}, "alpha is True"),
        ({"names": "yes"}, "names cannot be 'yes'"),
        ({"contours": 2}, "contours cannot be 2"),
        ({"legnd": True}, "did you mean 'legend'"),
    ],
)
def test_wrong_options_of_drawing_are_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        street().overlay(photo(), **options)
    with pytest.raises(ConfigError, match=words):
        street().save(tmp_path, ["json"], **options)
    with pytest.raises(ConfigError, match=words):
        ResultWriter(tmp_path, ["json"], TABLE, options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--alpha", "1.5"], "alpha is 1.5"),
        (["--alpha", "nan"], "alpha is nan"),
        (["--legend", "--formats", "json"], "--legend is for pictures"),
    ],
)
def test_the_command_line_refuses_them_before_any_work(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert (
        main(["predict", "rtknet-lite-street", str(tmp_path / "a.png"), "--output", str(tmp_path / "o"), *words]) == 2
    )
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not (tmp_path / "o").exists()


# What is left of linear red, green and blue without one kind of cone (Machado, Oliveira and Fernandes, 2009).
BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def seen(color: Color, kind: str) -> np.ndarray:
    share = np.array(color) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    left = np.clip(linear @ np.array(BLIND[kind]).T, 0, 1)
    return oklab(255 * np.where(left <= 0.0031308, left * 12.92, 1.055 * left ** (1 / 2.4) - 0.055))


@pytest.mark.parametrize("kind", BLIND)
def test_own_classes_get_colours_that_the_colour_blind_can_tell_apart(kind: str) -> None:
    rows = [{"id": n, "name": f"class {n}", "thing": False} for n in range(1, 41)]
    table, _ = categories_from_rows(rows, "a table")
    assert len({category.color for category in table}) == 40
    looks = [seen(category.color, kind) for category in table[:16]]
    assert min(np.linalg.norm(a - b) for a, b in combinations(looks, 2)) > 0.07


def test_a_legend_lists_classes_by_their_area_with_all_their_colours() -> None:
    listed = list(listed_colors(street(tracks={3: 1, 4: 2}).segments, TABLE))
    assert [name for _, name, _ in listed] == ["road", "sky", "car"]
    assert listed[0][2] == [ROAD.color] and len(listed[2][2]) == 2
    assert class_color(CAR.id, TABLE) == CAR.color
