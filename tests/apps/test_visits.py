"""The page of `knet demo --serve` without a browser: its limits, what it keeps and forgets, and its command."""

from __future__ import annotations

import json
import socket
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_results import TABLE, photo, segments_of, street
from PIL import Image

import knet
from knet.apps import serve
from knet.apps.limits import Limits, check_file, check_frame
from knet.apps.shelf import BUNDLED, Shelf
from knet.apps.view import results
from knet.apps.visits import Found, Kept, Visits, segment, told, write
from knet.cli.main import main
from knet.errors import ConfigError, DataError
from knet.inference.results.film import Film
from knet.inference.results.segmentation import Segmentation
from knet.structures import Category
from knet.weights import fetch
from knet.weights.released import RELEASED
from tiny_models import tiny_file

ASSETS = Path(knet.__file__).parent / "assets"


def picture(path: Path, width: int = 80, height: int = 60) -> Path:
    Image.fromarray(photo(height, width)).save(path)
    return path


def film(path: Path, frames: int) -> Path:
    made = Film(path, Fraction(10))
    for _ in range(frames):
        made.add(photo(32, 48))
    made.finish()
    return path


def test_limits_are_told_with_the_value_and_what_to_do(tmp_path: Path) -> None:
    limits = Limits(megabytes=1, megapixels=1, frame_megapixels=1, seconds=2, frames=30)
    assert check_file(picture(tmp_path / "a.png"), limits) is False
    assert check_file(film(tmp_path / "a.mp4", 20), limits) is True
    (tmp_path / "huge.jpg").write_bytes(b"\xff\xd8\xff" + bytes(1_500_000))
    for path, words in (
        (tmp_path / "huge.jpg", "has 2 MB, and this page takes 1"),
        (picture(tmp_path / "wide.png", 2000, 600), "has 2000 x 600 pixels, and this page takes 1 million"),
        (film(tmp_path / "b.mp4", 25), "25 frames in 2 seconds, and this page takes 30 in 2"),
        (film(tmp_path / "c.mp4", 31), "31 frames"),
    ):
        with pytest.raises(DataError, match=words):
            check_file(path, limits)
    with pytest.raises(DataError, match="cut a part out of it"):  # a file that does not say how long it is
        check_frame(tmp_path / "a.mp4", 31, 0.0, limits)


def test_the_pixels_of_an_image_are_counted_before_it_is_decoded(tmp_path: Path, monkeypatch: Any) -> None:
    path = picture(tmp_path / "wide.png", 1200, 1000)
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(DataError, match="1200 x 1000"):
        check_file(path, Limits(megapixels=1))


def test_visits_are_forgotten_with_their_files_and_the_oldest_go_first(tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir()
    visits = Visits(tmp_path, Limits(visits=2))
    same = picture(tmp_path / "uploads" / "same.png")
    first, second = visits.begin("anna", str(same)), visits.begin("ben", str(same))
    assert visits.begin("anna", str(same)) is first and first.path.is_file()
    visits.forget("anna")
    assert not first.folder.exists() and not same.exists()
    assert second.path.is_file()  # another visitor's, of the same content
    for name in ("clara", "dora"):
        visits.begin(name, str(picture(tmp_path / "uploads" / f"{name}.png")))
    assert not second.folder.exists()
    with pytest.raises(DataError, match="drop it again"):
        visits.of("ben")
    with pytest.raises(DataError, match="drop an image"):
        visits.begin("ben", None)
    with pytest.raises(DataError, match="drop it again"):
        visits.begin("ben", str(tmp_path / "none.png"))
    visits.forget("nobody")
    example = visits.begin("clara", str(ASSETS / "demo" / "highway_1.jpg"))
    visits.forget("clara")
    assert example.source.is_file()  # the package's own


def test_files_are_found_by_their_lists_alone(tmp_path: Path) -> None:
    visits = Visits(tmp_path, Limits())
    visit = visits.begin("anna", str(picture(tmp_path / "street.png")))
    result = street()
    visit.found = [Found("model", TABLE, [Kept.of(result)])]
    list(write(visit, ["car", "road"], {}, Limits()))
    assert sorted(visit.found[0].files) == [
        "panoptic.json",
        "street_overlay.jpg",
        "street_panoptic.png",
        "street_segments.json",
    ]
    rows = json.loads(visit.found[0].files["street_segments.json"].read_text())["segments"]
    assert {row["name"] for row in rows} == {"road", "car"}
    assert visits.file(visit.token, 0, "panoptic.json") == visit.folder / "0" / "panoptic.json"
    for token, number, name in (
        ("x", 0, "panoptic.json"),
        (visit.token, 1, "panoptic.json"),
        (visit.token, 0, "../street.png"),
    ):
        assert visits.file(token, number, name) is None
    assert (visit.found[0].frames[0].whole().id_map == result.id_map).all()


def test_names_of_classes_and_files_are_no_html(tmp_path: Path) -> None:
    odd = Category(1, "<img src=x onerror=alert(1)>'\"", True, (9, 9, 200))
    id_map = np.ones((60, 80), np.int32)
    visits = Visits(tmp_path, Limits())
    visit = visits.begin("anna", str(picture(tmp_path / "<b>x'.png")))
    visit.found = [Found("<i>model", (odd,), [Kept.of(Segmentation(id_map, segments_of(id_map, {1: odd}), (odd,)))])]
    list(write(visit, [odd.name], {}, Limits()))
    html = results(visit, [odd.name])
    assert "<b>" not in html and "<i>model" not in html and "<img src=x" not in html and "onerror=alert(1)>" not in html


def test_a_video_is_followed_and_one_that_is_longer_than_it_says_ends(tmp_path: Path) -> None:
    shelf = Shelf([str(tiny_file("panoptic", tmp_path)), str(tiny_file("semantic", tmp_path))], threads=1)
    limits = Limits()
    visit = Visits(tmp_path, limits).begin("anna", str(film(tmp_path / "drive.mp4", 3)))
    told = list(
        segment(visit, shelf, ["panoptic.safetensors", "semantic.safetensors"], {"score": 0.1, "overlap": 0.1}, limits)
    )
    assert told[0] == "Loading panoptic.safetensors" and told[-1] == "semantic.safetensors: frame 3"
    assert [len(found.frames) for found in visit.found] == [3, 3]
    list(write(visit, visit.found[0].classes(), {"legend": True}, limits))
    assert sorted(visit.found[0].files) == ["drive_overlay.mp4", "tracks.jsonl"]
    with pytest.raises(DataError, match="3 frames"):
        list(segment(visit, shelf, ["panoptic.safetensors"], {}, Limits(frames=2)))
    visit.closing.set()
    with pytest.raises(DataError, match="closed"):
        list(segment(visit, shelf, ["panoptic.safetensors"], {}, limits))


def test_messages_do_not_say_where_files_are_kept(tmp_path: Path) -> None:
    error = DataError(f"'{tmp_path}/uploads/1234/a b.jpg' is broken, and '{tmp_path}/visit-x/c.jpg' as well.")
    assert told(error, tmp_path) == "'a b.jpg' is broken, and 'c.jpg' as well."


def test_the_page_offers_the_bundled_model_first_then_what_was_fetched_then_own_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KNET_HOME", str(tmp_path))
    assert Shelf().names == [BUNDLED]
    name = "knet-r50-coco-panoptic"
    place = fetch._place(name, RELEASED[name])
    place.parent.mkdir()
    place.write_bytes(b"")
    (tmp_path / "other").mkdir()
    one, other = tiny_file("panoptic", tmp_path), tiny_file("panoptic", tmp_path / "other")
    shelf = Shelf([str(one), str(other)])
    assert shelf.names == [BUNDLED, name, "panoptic.safetensors", "panoptic.safetensors (another)"]
    assert shelf["panoptic.safetensors"] is shelf["panoptic.safetensors"]
    with pytest.raises(ConfigError, match="has no model 'x'"):
        shelf["x"]
    with pytest.raises(ConfigError, match="is for clips"):
        Shelf([str(tiny_file("clip", tmp_path))])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--host", "127.0.0.1"], "--host is for the page that is served"),
        (["--port", "7860"], "--port is for the page that is served"),
        (["a.safetensors"], "MODEL is for the page that is served"),
        (["--serve", "--output", "x"], "--output is for the page that is written"),
        (["--serve", "--port", "99999"], "the port 99999"),
        (["--serve", "--host", "192.0.2.1"], "Cannot listen on '192.0.2.1'"),
        (["--serve", "--port", "0", "none.safetensors"], "none.safetensors"),
    ],
)
def test_wrong_use_of_the_command_is_one_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed")
    assert main(["demo", *words]) == 2
    out, error = capsys.readouterr()
    assert sentence in error and not out and error.count("\n") == 1


def test_a_taken_port_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["demo", "--serve", "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert f"the port {port}" in error and "--port" in error


def test_without_gradio_the_extra_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    assert main(["demo", "--serve"]) == 2
    assert "pip install 'knet[demo]'" in capsys.readouterr().err


def test_loopback_is_what_no_other_machine_reaches() -> None:
    assert all(map(serve.loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(serve.loopback, ("0.0.0.0", "192.168.0.1", "::", "example.org")))
