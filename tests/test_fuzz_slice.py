"""A few seconds of `make fuzz`, and that its oracle sees what it should."""

from __future__ import annotations

import importlib
from pathlib import Path
from random import Random

import pytest

from fuzz import oracle, worker
from knet.errors import DataError

SLOW = {"cards": 6, "commands": 10, "calls": 20, "annotations": 15}


@pytest.mark.filterwarnings("ignore")  # of Pillow, about damage
@pytest.mark.parametrize("kind", worker.KINDS)
def test_hostile_cases_are_refused_in_a_sentence(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    case = importlib.import_module(f"fuzz.{kind}").prepare(tmp_path)
    said = [case(Random(f"slice/{kind}/{number}")) for number in range(SLOW.get(kind, 40))]
    assert any(said)


def test_the_oracle_lets_nothing_else_through(tmp_path: Path) -> None:
    def fail(error: Exception) -> None:
        raise error

    assert oracle.refused(lambda: fail(DataError("No."))) and not oracle.refused(lambda: None)
    with pytest.raises(ZeroDivisionError):
        oracle.refused(lambda: 1 / 0)
    for text in ("", "x" * 3000, "Traceback (most recent call last):", "a\x1b[2Jb", "x\n" * 1000):
        with pytest.raises(oracle.BrokenError):
            oracle.look_at(text)
    assert oracle.command("nothing") and not oracle.command("models")
    (tmp_path / ".a.part-1").touch()
    with pytest.raises(oracle.BrokenError):
        oracle.no_parts(tmp_path)


def test_a_crash_and_a_fault_are_counted_and_the_next_case_runs() -> None:
    tally = worker.run("for_the_watch", 0, range(4))
    assert (tally.worked, tally.refused, tally.broken) == (1, 1, 2)
    assert [what.split()[0] for what in sorted(tally.faults)] == ["ValueError", "died"]
    assert [cases[0][0] for _, cases in sorted(tally.faults.items())] == [2, 1]
