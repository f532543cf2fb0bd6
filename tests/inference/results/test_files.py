"""How writers end: what is open is finished, once, whatever else goes wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_results import TABLE, names_in

from knet.errors import OutputError
from knet.inference.results.files import GrowingFile, JsonRows, OpenFile, Writer


class Broken(OpenFile):
    """A file that cannot be finished."""

    def finish(self) -> None:
        raise OutputError("no space")


class Two(Writer):
    """Has two files open, of which the one or the other may be broken."""

    def __init__(self, folder: Path, broken: bool = False):
        super().__init__(folder, TABLE)
        self._file("a", lambda: GrowingFile(folder / "a.txt", b"a"))
        if broken:
            self._file("broken", lambda: Broken(folder / "b.txt"))
        self._file("c", lambda: GrowingFile(folder / "c.txt", b"c"))


def test_closing_finishes_every_file_once(tmp_path: Path) -> None:
    writer = Two(tmp_path)
    assert all(name.startswith(".") for name in names_in(tmp_path))
    assert writer.close() == [tmp_path / "a.txt", tmp_path / "c.txt"]
    assert writer.close() == []
    assert names_in(tmp_path) == ["a.txt", "c.txt"]


def test_a_file_that_fails_does_not_keep_the_others_from_being_finished(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no space"), Two(tmp_path, broken=True):
        pass
    assert names_in(tmp_path) == ["a.txt", "c.txt"]


def test_the_error_on_its_way_is_the_one_that_is_seen(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="first"), Two(tmp_path, broken=True) as writer:
        raise KeyError("first")
    assert names_in(tmp_path) == ["a.txt", "c.txt"]
    assert writer.close() == []


def test_rows_of_json_are_a_list_at_any_length(tmp_path: Path) -> None:
    for count in range(3):
        file = JsonRows(tmp_path / "rows.json")
        for n in range(count):
            file.add([{"n": n}])
            file.add([])
        file.finish()
        assert json.loads((tmp_path / "rows.json").read_bytes()) == [{"n": n} for n in range(count)]
