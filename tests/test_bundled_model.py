"""The bundled model: the README's figures are measured ones, of the file that is there, and the demo works."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import av
import pytest
from safetensors import safe_open

import knet
from knet.cli.main import main

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("bundled_model", ROOT / "benchmarks" / "bundled_model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_shows_the_measured_figures_of_this_file(script: Any) -> None:
    figures = json.loads((script.FOLDER / "figures.json").read_text())
    assert figures["weights_sha256"] == script.digest()
    assert (figures["camvid_val"]["images"], figures["development"]["images"]) == (101, 18)
    for path, render in (("README.md", script.render), ("benchmarks/README.md", script.render_goals)):
        shown = (ROOT / path).read_text().split(script.MARKS[0])[1].split(script.MARKS[1])[0].strip()
        assert shown == render(figures)


def test_the_file_is_small_and_says_what_it_is(script: Any) -> None:
    assert script.ASSET.stat().st_size <= 20e6
    segmenter = knet.load("rtknet-lite-street", device="cpu")
    things = [category.name for category in segmenter.categories if category.thing]
    assert (len(segmenter.categories), things) == (11, ["Car", "Pedestrian", "Bicyclist"])
    with safe_open(script.ASSET, framework="pt") as file:
        assert json.loads(file.metadata()["knet"]) == json.loads(segmenter.card.text())  # nothing is left to defaults


def test_the_demo_makes_a_page_with_pictures_and_a_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--output", str(tmp_path / "demo")]) == 0
    folder = tmp_path / "demo"
    page = (folder / "index.html").read_text()
    assert str(folder / "index.html") in capsys.readouterr().out
    for name in ("city_1", "city_2", "highway_1", "highway_2", "suburb_1"):
        assert f"{name}.jpg" in page
        assert f"{name}_overlay.jpg" in page
        assert (folder / f"{name}_overlay.jpg").stat().st_size > 10_000
        segments = json.loads((folder / f"{name}_segments.json").read_text())["segments"]
        # Streets by day: most of every picture is road, sky and trees, whatever else the model finds.
        assert "Road" in {segment["name"] for segment in segments}
    assert 'src="drive_overlay.mp4"' in page and "non-commercial" in page
    with av.open(str(folder / "drive_overlay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 38
