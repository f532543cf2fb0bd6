"""Journals that damage or somebody else has written: what they say counts for nothing, and no name leads elsewhere."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from knet.errors import ConfigError, OutputError
from knet.inference.results.journal import Journal
from knet.inference.sources.paths import expand_sources
from knet.inference.sources.plan import ImagePlan, plan_images

HEAD = json.dumps({"options": {"size": 1}, "images": 2}) + "\n"
WRONG: dict[str, Any] = {
    "at": ["x", 0.5, float("nan"), [], {}, None],
    "image": [[], {}, None, 3],
    "name": [{}, None],
    "stamp": ["x", {}],
    "files": [None, 3, [3], [{}], "abc", ["a\0b"], ["x" * 300]],
    "rows": [None, 3, "x", {}],
}


@pytest.fixture
def plan(tmp_path: Path) -> ImagePlan:
    (tmp_path / "images").mkdir()
    for name in "ab":
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / f"{name}.png")
    return plan_images(expand_sources([tmp_path / "images"]))


def line(plan: ImagePlan, place: int = 0, **changed: Any) -> str:
    stamp = plan.stamp(place)
    assert stamp is not None
    row = {"at": place, "image": plan.paths[place], "name": plan.name(place), "stamp": list(stamp)}
    row |= {"files": [], "rows": ["mine"]} | changed
    return json.dumps({key: value for key, value in row.items() if value is not ...}) + "\n"


def resumed(plan: ImagePlan, folder: Path, text: str) -> int:
    """How many images count as done after the file."""
    folder.mkdir(exist_ok=True)
    (folder / ".knet-predict.jsonl").write_text(text)
    with Journal(folder, plan, {"size": 1}, resume=True) as journal:
        for place in list(journal.places()):
            journal.add(place, [], [place])
        assert len(list(journal.rows() or ())) == 2
        return journal.resumed


def test_a_line_of_another_kind_counts_for_nothing(plan: ImagePlan, tmp_path: Path) -> None:
    assert resumed(plan, tmp_path / "out", HEAD + line(plan)) == 1
    for key, values in WRONG.items():
        for value in [*values, ...]:  # the last leaves the key out
            text = HEAD + line(plan, **{key: value}) + line(plan, 1)
            assert resumed(plan, tmp_path / "out", text) == 1, (key, value)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"at": ' + "9" * 5000 + "}", "[]", "\0" * 100], ids=len)
def test_what_is_no_line_ends_the_journal(text: str, plan: ImagePlan, tmp_path: Path) -> None:
    assert resumed(plan, tmp_path / "out", f"{HEAD}{line(plan)}{text}\n{line(plan, 1)}") == 1
    assert resumed(plan, tmp_path / "out", f"{text}\n{line(plan)}") == 0


@pytest.mark.parametrize("options", [[1], None, 5, {"size": [[2]]}], ids=str)
def test_options_of_another_kind_are_other_options(options: Any, plan: ImagePlan, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="were made with size"):
        resumed(plan, tmp_path / "out", json.dumps({"options": options}) + "\n")


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("kind", ["link", "nowhere", "circle", "pipe", "device"])
def test_a_planted_journal_is_neither_followed_nor_waited_for(
    kind: str, resume: bool, plan: ImagePlan, tmp_path: Path
) -> None:
    folder, precious = tmp_path / "out", tmp_path / "precious"
    folder.mkdir()
    precious.write_text("mine")
    place = folder / ".knet-predict.jsonl"
    make: dict[str, Callable[[], None]] = {
        "link": lambda: place.symlink_to(precious),
        "nowhere": lambda: place.symlink_to(tmp_path / "new"),
        "circle": lambda: place.symlink_to(place.name),
        "pipe": lambda: os.mkfifo(place),
        "device": lambda: place.symlink_to("/dev/zero"),
    }
    make[kind]()
    with pytest.raises(OutputError, match="it is a link, a folder, a device or a pipe"):
        Journal(folder, plan, {"size": 1}, resume=resume)
    assert precious.read_text() == "mine" and not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", ["link", "pipe", "nonsense"])
def test_the_journal_of_another_part_that_is_none_is_not_waited_for(kind: str, plan: ImagePlan, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    place = tmp_path / "out" / ".knet-predict-2-of-2.jsonl"
    make: dict[str, Callable[[], object]] = {
        "link": lambda: place.symlink_to("/dev/zero"),
        "pipe": lambda: os.mkfifo(place),
        "nonsense": lambda: place.write_text(HEAD + line(plan, at="x") + "[" * 100_000 + "\n"),
    }
    make[kind]()
    with Journal(tmp_path / "out", plan, {"size": 1}, (1, 2)) as journal:
        journal.add(0, [], [])
        journal.end(clean=True)
        assert journal.rows() is None
