"""Parquet files of others as the images of `knet batch`: what they claim, and what they hold."""

from __future__ import annotations

import io
import os
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from knet.apps.batch_images import find_source, image_bytes
from knet.errors import DataError, KNetError
from knet.inference.sources.plan import ImagePlan

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def written(path: Path, columns: dict[str, Any]) -> str:
    parquet.write_table(pyarrow.table(columns), path)
    return str(path)


def claiming(path: Path, rows: int) -> str:
    """A table of three rows whose footer says of more."""
    raw = Path(written(path, {"image": [b"x"] * 3})).read_bytes()
    size = struct.unpack("<I", raw[-8:-4])[0]
    foot, number, rest = raw[-8 - size : -8], bytearray(), rows << 1
    while rest > 127:
        number.append(rest & 127 | 128)
        rest >>= 7
    place = foot.index(b"\x16\x06\x19")  # the field of the number of rows, which is 3
    foot = foot[: place + 1] + bytes(number) + bytes([rest]) + foot[place + 2 :]
    path.write_bytes(raw[: -8 - size] + foot + struct.pack("<I", len(foot)) + b"PAR1")
    return str(path)


def test_more_rows_than_names_can_be_kept(tmp_path: Path) -> None:
    for rows in (10**12, 5 * 10**7):
        with pytest.raises(DataError, match=rf"a\.parquet' has {rows:,} rows"):
            find_source(claiming(tmp_path / "a.parquet", rows))
    nothing = written(tmp_path / "b.parquet", {"image": pyarrow.array([], pyarrow.binary())})
    with pytest.raises(DataError, match="There is no row"):
        find_source(nothing)


BOMB = ["y" * 1_000_000]
NAMES = {
    "null": [None],
    "nested": [{"a": 1}],
    "bytes": [b"a"],
    "long": BOMB,
    "one long text for many rows": pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 20_000), BOMB),
    "no UTF-8": pyarrow.Array.from_buffers(pyarrow.string(), 1, pyarrow.array([b"\xff\xfe"]).buffers()),
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_that_are_none(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / "a.parquet", {"image": pyarrow.nulls(len(NAMES[kind])), "name": NAMES[kind]})
    with pytest.raises(DataError, match=r"Cannot read '.*a\.parquet' as Parquet: ") as caught:
        find_source(path, names="name")
    assert len(str(caught.value)) < 1000


def test_names_that_are_no_paths(tmp_path: Path) -> None:
    names = ["a\0b", "../../etc/x", "s3://b/y.png", "", "a_b", "A_b"]
    source = find_source(written(tmp_path / "a.parquet", {"image": [b""] * 6, "name": names}), names="name")
    made = [source.plan.name(place) for place in range(6)]
    assert made == ["a_b", "x", "y", "image", "a_b_2", "A_b_3"] and source.plan.stamp(0) is None
    assert [source.plan.file_name(place).rpartition("/")[2] for place in (1, 2)] == ["x", "y.png"]
    assert ImagePlan(["a\0b"]).stamp(0) is None


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="it is no file"):
        find_source(str(tmp_path / "a.parquet"))


def test_changed_bytes_are_one_sentence(tmp_path: Path) -> None:
    rng, path = random.Random(0), tmp_path / "a.parquet"
    columns = {"image": [bytes(range(256))] * 9, "name": [f"n{number}" for number in range(9)]}
    for number in range(150):
        buffer = io.BytesIO()
        compression = rng.choice(["snappy", "zstd", "gzip", "none"])
        parquet.write_table(pyarrow.table(columns), buffer, compression=compression)
        raw = bytearray(buffer.getvalue())
        for _ in range(rng.choice([1, 2, 8])):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        path.write_bytes(raw[: rng.choice([len(raw), len(raw), rng.randrange(len(raw))])])
        try:
            source = find_source(str(path), names="name")
            for place in range(len(source.plan)):
                image_bytes(source, place, retries=0)
        except KNetError as error:
            assert len(str(error)) < 1500, number
