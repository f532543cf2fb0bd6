"""The pages of `knet demo` in the system's Chromium, as a visitor uses them."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import knet
from knet.data.categories import load_categories
from knet.inference.results.film import Film
from knet.inference.results.page import Row, write_index
from knet.structures import Segment
from tiny_models import tiny_file

pytest.importorskip("gradio", reason="gradio is not installed (pip install 'knet[demo]')")

from browser import chromium, faults

from knet.apps.limits import Limits
from knet.apps.serve import serving

DEMO = Path(knet.__file__).parent / "assets" / "demo"
LIMITS = Limits(megabytes=1, megapixels=1, frames=10, visits=4)
SECONDS = 120_000  # ms; machines that do other work, too, must not fail a test by being slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of a visitor."""
    folder = tmp_path_factory.mktemp("visitor")
    picture = Image.open(DEMO / "city_1.jpg").resize((320, 180))
    picture.save(folder / "street.jpg")
    picture.resize((1600, 900)).save(folder / "large.jpg")
    (folder / "broken.jpg").write_bytes((folder / "street.jpg").read_bytes()[:400])
    for name, frames in (("drive.mp4", 4), ("long.mp4", 30)):
        film = Film(folder / name, Fraction(10))
        for n in range(frames):
            film.add(np.roll(np.asarray(picture.resize((128, 64))), n, axis=1))
        film.finish()
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page keeps its files."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def site(folder: Path, home: Path) -> Iterator[tuple[str, Any]]:
    """Address of a page with two models, and a browser. In the end nothing may be left."""
    with pytest.MonkeyPatch.context() as patch, chromium() as browser:
        patch.setattr("tempfile.tempdir", str(home))
        with serving([str(tiny_file("panoptic", folder))], limits=LIMITS, threads=1) as url:
            yield url, browser
    assert not list(home.glob("knet-page-*"))


@pytest.fixture
def page(site: tuple[str, Any]) -> Iterator[Any]:
    """A visitor's tab; it fails if anything is asked of another place, or a script breaks."""
    url, browser = site
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.set_default_timeout(SECONDS)
    wrong: list[str] = []
    tab.on("request", lambda r: None if r.url.startswith((url, "data:", "blob:")) else wrong.append(r.url))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.goto(url)
    tab.get_by_role("button", name="Segment").wait_for()
    yield tab
    tab.close()
    assert not wrong


def give(page: Any, path: Path) -> None:
    page.set_input_files("input[type=file]", path)


def download(page: Any, ending: str) -> bytes:
    link = page.locator(f"a[download$='{ending}']").first
    answer = page.request.get(page.evaluate("link => link.href", link.element_handle()))
    assert answer.status == 200
    return answer.body()


def test_a_picture_is_segmented_read_changed_and_downloaded(page: Any, folder: Path) -> None:
    assert not faults(page)
    give(page, folder / "street.jpg")
    picture = page.locator("img.knet-picture")
    picture.wait_for()
    assert "Road" in picture.get_attribute("alt")
    assert not faults(page)

    segments = json.loads(download(page, "_segments.json"))["segments"]
    ids = np.asarray(Image.open(BytesIO(download(page, "_panoptic.png")))).astype(int) @ (1, 256, 65536)
    assert ids.shape == (180, 320) and {s["id"] for s in segments} == set(ids.flat) - {0}
    assert Image.open(BytesIO(download(page, "_overlay.jpg"))).size == (320, 180)

    largest = max(segments, key=lambda s: s["area"])
    y, x = np.argwhere(ids == largest["id"])[largest["area"] // 2]
    place = picture.bounding_box()
    for shift in (0, 1):  # the map is fetched at the first touch
        page.mouse.move(
            place["x"] + (x + 0.5) * place["width"] / 320 + shift / 9, place["y"] + (y + 0.5) * place["height"] / 180
        )
        page.wait_for_timeout(300)
    shown = page.locator(".knet-tip").inner_text()
    assert shown == f"{largest['name']} · score {largest['score']:.2f} · id {largest['id']}"

    page.get_by_label(largest["name"], exact=True).uncheck()
    page.wait_for_function(f"!document.querySelector('img.knet-picture')?.alt.includes({largest['name']!r})")
    left = {s["name"] for s in json.loads(download(page, "_segments.json"))["segments"]}
    assert largest["name"] not in left and left


def test_two_models_are_compared_side_by_side(page: Any, folder: Path) -> None:
    page.get_by_label("Compare with").click()
    page.get_by_role("option", name="panoptic.safetensors").click()
    give(page, folder / "street.jpg")
    figures = page.locator("figure.knet-result")
    figures.nth(1).wait_for()
    assert figures.locator("h2").all_inner_texts() == ["rtknet-lite-street", "panoptic.safetensors"]
    first, second = (figures.nth(n).bounding_box() for n in (0, 1))
    assert first["y"] == second["y"] and first["x"] + first["width"] <= second["x"]


def test_a_video_is_tracked_and_plays(page: Any, folder: Path) -> None:
    give(page, folder / "drive.mp4")
    page.locator("video").wait_for()
    page.wait_for_function("document.querySelector('video').videoWidth == 128")
    assert len(download(page, "tracks.jsonl").splitlines()) == 4
    assert not faults(page)


def test_what_cannot_be_taken_is_said_without_where_it_lies(page: Any, folder: Path) -> None:
    for name, words in {
        "broken.jpg": "'broken.jpg'",
        "large.jpg": "1600 x 900 pixels",
        "long.mp4": "takes 10 in 60",
    }.items():
        give(page, folder / name)
        alert = page.get_by_role("alert").filter(has_text=words)
        alert.wait_for()
        assert "/tmp" not in alert.inner_text()
        assert not page.locator("figure.knet-result").count()
        page.locator("#knet-file").get_by_label("Clear").click()
        page.get_by_text("are deleted").wait_for()


def test_the_page_fits_a_phone(site: tuple[str, Any], folder: Path) -> None:
    url, browser = site
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True)
    page = context.new_page()
    page.set_default_timeout(SECONDS)
    page.goto(url)
    give(page, folder / "street.jpg")
    picture = page.locator("img.knet-picture")
    picture.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert 250 < picture.bounding_box()["width"] <= 390
    page.wait_for_function("document.querySelector('img.knet-picture').getBoundingClientRect().top < innerHeight - 100")
    assert not faults(page)
    context.close()


def test_no_file_but_a_visitors_own_can_be_had(page: Any, site: tuple[str, Any], folder: Path) -> None:
    give(page, folder / "street.jpg")
    page.locator("img.knet-picture").wait_for()
    own = page.locator("img.knet-picture").get_attribute("src").split("?")[0]
    port = int(site[0].strip("/").rsplit(":", 1)[1])

    def answer(path: str, host: str = "127.0.0.1") -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", path, headers={"Host": f"{host}:{port}"})
        return connection.getresponse().status

    assert answer(f"/{own}") == 200
    token = own.split("/")[1]
    for path in (
        *("/gradio_api/file=/etc/passwd", "/gradio_api/file=http://127.0.0.1:1/", "/gradio_api/file/etc/passwd"),
        *("/gradio_api/proxy=https://a.hf.space/", "/file=/etc/passwd", "/gradio_api/deep_link", "/docs", "/runs"),
        *(f"/results/{token}/0/..%2f..%2fetc%2fpasswd", f"/results/{token}/0/../../../etc/passwd"),
        *(
            f"/results/{token}/9/x.jpg",
            f"/results/{token}/-1/x.jpg",
            "/results/x/0/x.jpg",
            "/assets/../../../etc/passwd",
        ),
        *("/static/..%2f..%2f..%2f..%2fetc/passwd", "//etc/passwd", f"/{own}/../../../../etc/passwd"),
    ):
        assert answer(path) == 404, path
    assert answer("/", host="evil.example") == 403  # another page's name for this machine

    # The path of an upload is the browser's to send, so another one is tried.
    named: list[str] = []

    def other(route: Any) -> None:
        body = re.sub(r'"path": ?"[^"]+"', f'"path":"{DEMO.parents[1] / "py.typed"}"', route.request.post_data)
        named.append(body)
        route.continue_(post_data=body)

    page.route("**/queue/join*", other)
    page.get_by_role("button", name="Segment").click()
    page.get_by_text("Error").first.wait_for()
    assert "py.typed" in named[0]
    assert "py.typed" not in page.content()


def test_what_a_visitor_gave_is_deleted_when_the_tab_is_closed(site: tuple[str, Any], folder: Path, home: Path) -> None:
    url, browser = site
    page, other = browser.new_page(), browser.new_page()
    page.set_default_timeout(SECONDS)
    page.goto(url)
    page.get_by_role("button", name="Segment").wait_for()
    give(page, folder / "street.jpg")
    page.locator("img.knet-picture").wait_for()

    def left() -> list[Path]:
        return [path for path in home.glob("knet-page-*/**/*street*") if path.is_file()]

    assert {path.name for path in left()} >= {"street.jpg", "street_overlay.jpg"}
    page.close()
    for _ in range(600):
        if not left():
            break
        other.wait_for_timeout(100)
    assert not left()
    other.close()


def test_the_written_page_has_no_faults_and_its_video_plays(
    site: tuple[str, Any], folder: Path, tmp_path: Path
) -> None:
    table = load_categories("camvid")
    segments = [Segment(n, c.id, c.name, c.thing, 0.5, 90, (0, 0, 9, 9)) for n, c in enumerate(table, 1)]
    rows = [Row("street", folder / "street.jpg", folder / "street.jpg", segments, (180, 320)), Row("bad", error="Bad.")]
    path = write_index(tmp_path, "knet", rows, table, "A note.", [folder / "drive.mp4"])
    for scheme, width in (("light", 1280), ("dark", 390)):
        context = site[1].new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
        page = context.new_page()
        page.goto(path.as_uri())
        page.wait_for_function("document.querySelector('video').videoWidth == 128")
        page.locator("summary").click()
        assert not faults(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        context.close()
