"""Modules whose library may be missing: only the library may be, and nothing else goes wrong in silence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from knet.compiled import optional


@pytest.fixture(autouse=True)
def asked_for_the_first_time() -> Iterator[None]:
    optional.cache_clear()
    yield
    optional.cache_clear()


def test_a_typo_in_the_name_is_no_missing_library() -> None:
    pytest.importorskip("numba")
    with pytest.raises(ModuleNotFoundError, match="png_row"):
        optional("knet.data.files.png_row")


def test_a_mistake_in_the_module_is_no_missing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    (tmp_path / "broken_loops.py").write_text("from knet.compiled import nothing\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        optional("broken_loops")


@pytest.mark.parametrize("source", [None, "raise ImportError('Numba needs NumPy 2.2 or less')"])
def test_without_the_library_there_is_no_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str | None
) -> None:
    if source is None:
        monkeypatch.setitem(sys.modules, "numba", None)
    else:
        (tmp_path / "numba.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "numba", raising=False)
    assert optional("knet.data.files.png_rows") is None


def test_other_libraries_may_be_needed() -> None:
    assert optional("knet.data.files.png_rows", needs="no_such_library") is None


def test_the_first_call_says_that_it_compiles_and_does_not_count_as_work() -> None:
    pytest.importorskip("numba")
    code = (
        "import logging, time; logging.basicConfig(level='INFO', format='%(message)s')\n"
        "from knet.compiled import compiled, working_seconds\n"
        "from numba import njit\n"
        "compiled(lambda: 0)\n"  # which watches the compiler
        "start, worked = time.perf_counter(), working_seconds()\n"
        "assert njit(lambda x: 2 * x)(3) == 6 == njit(lambda x: x + x)(3)\n"
        "print(time.perf_counter() - start, working_seconds() - worked)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    whole, worked = map(float, done.stdout.split())
    assert worked < whole / 2
    assert done.stderr.count("Compiling loops for this machine") == 1
