"""Tables and caches that somebody else has written: a sentence, or they are made anew."""

import io
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from knet.data.exports.color_table import read_colors
from knet.data.files.id_cache import IdCache
from knet.errors import DataError
from knet.runs.callbacks.rows import _Rows
from knet.runs.report.plots import read_columns

LONG = "x" * 200_000


@pytest.mark.parametrize("line", [f"{LONG},1,2,3", f'"a{LONG},1,2,3'])
def test_a_cell_without_end_in_a_table_of_colours(line: str, tmp_path: Path) -> None:
    (tmp_path / "colors.csv").write_text(line)
    with pytest.raises(DataError, match=r"The table of colours .*colors\.csv cannot be read"):
        read_colors(tmp_path / "colors.csv")


def test_a_cell_without_end_in_the_table_of_a_run(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text(f'iteration,loss\n1,"{LONG}')
    for read in (read_columns, lambda path: _Rows(path, 5)):
        with pytest.raises(DataError, match=r"'.*train\.csv' cannot be read .*; move it away"):
            read(path)


@pytest.mark.parametrize("number", ["9" * 5000, "٣", "", "-1", "1.5"])
def test_a_row_without_a_number_is_left_out_of_a_resumed_run(number: str, tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text(f"\ufeffiteration,loss\n1,0.5\n{number},0.25\n", encoding="utf-8")
    _Rows(path, 5).append({"iteration": 6, "loss": 0.125})
    assert path.read_text().split() == ["iteration,loss", "1,0.5", "6,0.125"]


def kept(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def enormous() -> bytes:
    """Arrays of 400 GB, as their heads say."""
    head = b"{'descr': '<i4', 'fortran_order': False, 'shape': (99999999999,), }".ljust(117) + b"\n"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("ids", "lengths", "size"):
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head)
    return file.getvalue()


ONE, SIZE = np.ones(1, np.int32), np.array([3, 4])
ARRAY = io.BytesIO()
np.save(ARRAY, np.ones(3))
OTHERS = {
    "an array": ARRAY.getvalue(),
    "enormous": enormous(),
    "an enormous length": kept(ids=ONE, lengths=ONE * 2**30, size=np.array([2**15, 2**15])),
    "fractions": kept(ids=ONE * 1.5, lengths=ONE * 12, size=SIZE),
    "text": kept(ids=np.array(["a"]), lengths=ONE * 12, size=SIZE),
    "no rows": kept(ids=ONE, lengths=ONE * 12, size=np.array([12])),
    "another size": kept(ids=ONE, lengths=ONE * 12, size=np.array([-1, 4])),
    "below zero": kept(ids=-ONE, lengths=ONE * 12, size=SIZE),
    "objects": kept(ids=np.array([{}], object), lengths=ONE * 12, size=SIZE),
    "nothing": b"",
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS.keys())
def test_a_kept_id_map_that_is_none_is_read_anew(content: bytes, tmp_path: Path) -> None:
    path, cache = tmp_path / "a.png", IdCache(tmp_path / "cache")
    Image.fromarray(np.full((3, 4, 3), (7, 0, 0), np.uint8)).save(path)
    whole = cache.read(path)
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(content)
    assert (cache.read(path) == whole).all()
    assert (cache.read(path) == 7).all() and file.read_bytes() != content


def test_a_pipe_in_the_place_of_a_kept_id_map_is_not_waited_for(tmp_path: Path) -> None:
    path, cache = tmp_path / "a.png", IdCache(tmp_path / "cache")
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(path)
    cache.read(path)
    (file,) = (tmp_path / "cache").iterdir()
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(Exception, match="device or a pipe"):
        cache.read(path)
