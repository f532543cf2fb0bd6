"""Folders below folders, and links that lead back."""

import glob
import os
from pathlib import Path

import pytest
from PIL import Image

from knet.data.files import walk as walking
from knet.data.files.io import list_images
from knet.errors import DataError
from knet.inference.sources import paths
from knet.inference.sources.paths import expand_sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "a/deep", "b [1]", ".hidden"):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "set" / name / "x.png")
    return tmp_path / "set"


def matched(pattern: Path) -> list[str]:
    return sorted(str(file.path) for file in expand_sources([pattern]))


def test_links_in_a_circle_do_not_hang(folder: Path) -> None:
    for name in ("a", "a/deep", "b [1]"):
        for number in range(3):
            (folder / name / f"back{number}").symlink_to(folder)
    (folder / "itself").symlink_to("itself")
    assert list_images(folder) == ["a/deep/x.png", "a/x.png", "b [1]/x.png"]
    assert matched(folder / "**/*.png") == [str(folder / name) for name in list_images(folder)]
    assert str(folder / "a/deep/x.png") in matched(folder / "**/deep/**/*.png")


def test_links_among_neighbours_do_not_multiply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"f{number}" for number in range(9)]
    for name in names:
        (tmp_path / name).mkdir()
        for other in names:
            (tmp_path / name / other).symlink_to(tmp_path / other)
    for look in (list_images, lambda place: expand_sources([place / "**/*.png"])):
        with pytest.raises(DataError, match="in more than 100 ways"):
            look(tmp_path)


@pytest.mark.parametrize("pattern", ["*/" * 30 + "*.png", "*/*/*/*/*/*/*/*.png", "**/**/**/*.png"])
def test_links_in_a_circle_do_not_multiply_what_a_pattern_matches(folder: Path, pattern: str) -> None:
    for place in (folder, folder / "a", folder / "a" / "deep"):
        for name, target in {"up": "..", "self": ".", "root": folder, "gone": "nowhere", "loop": "loop"}.items():
            (place / name).symlink_to(target)
    found = set(map(str, paths._matches(folder / pattern)))
    assert len(found) < 200
    assert bool(found) == ("**" in pattern)


def test_several_ways_of_one_pattern_are_no_links_to_and_fro(tmp_path: Path) -> None:
    place = tmp_path
    for _ in range(20):
        place = place / "d"
        place.mkdir()
    (place / "x.png").touch()
    assert paths._matches(tmp_path / "**/*/**/*/**/*.png") == {place / "x.png"}


def test_links_to_and_fro_in_a_pattern_are_refused(tmp_path: Path) -> None:
    for one in range(12):
        (tmp_path / str(one)).mkdir()
        for other in range(12):
            (tmp_path / str(one) / f"to{other}").symlink_to(tmp_path / str(other))
    with pytest.raises(DataError, match="in more than 100 ways"):
        paths._matches(tmp_path / "*/*/*/*/*/*.png")


def test_a_folder_that_several_links_lead_to_counts_at_each(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "links"
    root.mkdir()
    for name in ("train", "val"):
        (root / name).symlink_to(folder / "a")
    assert list_images(root) == ["train/deep/x.png", "train/x.png", "val/deep/x.png", "val/x.png"]
    assert len(matched(root / "**/*.png")) == 4


@pytest.mark.parametrize(
    "pattern",
    [
        "**/*.png",
        "*/**/x.png",
        "**",
        "a/**",
        "**/d*/x.png",
        "*/x.png",
        "**/*[[]1]/*",
        "**/**/*.png",
        "*/*/*",
        "a/*/x.png",
    ],
)
def test_patterns_match_what_glob_matches(folder: Path, monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    monkeypatch.chdir(folder)
    files = {os.path.normpath(name) for name in glob.glob(pattern, recursive=True) if Path(name).is_file()}  # noqa: PTH207
    assert files and matched(Path(pattern)) == sorted(files)
    assert matched(folder / pattern) == sorted(str(folder / name) for name in files)


def test_what_may_not_be_looked_at_is_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scan(place: Path) -> object:
        if place.name == "a":
            raise PermissionError(13, "Permission denied")
        return scandir(place)

    scandir = os.scandir
    monkeypatch.setattr(walking.os, "scandir", scan)
    assert list_images(folder) == ["b [1]/x.png"]
