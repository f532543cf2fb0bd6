"""The images of `knet batch`, in folders, object stores and Parquet tables: which there are, and their bytes."""

from __future__ import annotations

import glob
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knet.data.files.pictures import IMAGE_SUFFIXES
from knet.errors import ConfigError, DataError, shown
from knet.files import exists, is_dir, is_file
from knet.inference.sources.images import why_not
from knet.inference.sources.paths import expand_sources, natural_order
from knet.inference.sources.plan import ImagePlan, plan_images

_MOST = 10**7  # images of a run, whose names are kept in memory
_LONGEST = 4096  # characters of a name
_ADDRESS = re.compile(r"^[a-z][a-z0-9+.-]+://")


@dataclass(frozen=True)
class Table:
    """A Parquet file with a row for each image.

    Attributes:
        path: a path or an address that fsspec knows.
        first: the place of its first image in the plan of all.
        rows: how many it has.
    """

    path: str
    first: int
    rows: int


@dataclass(frozen=True)
class Source:
    """All images of a run: their plan, and the tables that they are in, none of image files.

    Attributes:
        column: of the bytes in tables.
    """

    plan: ImagePlan
    tables: tuple[Table, ...] = ()
    column: str = "image"


def find_source(source: str, column: str = "image", names: str | None = None) -> Source:
    """The images of a folder, a pattern, an address (s3://..., gs://..., file://...) or Parquet files.

    Args:
        column: the column of a table that has the bytes of image files.
        names: the column that has their names; without it they are named by file and row.

    Raises:
        DataError: there is nothing, or it cannot be read.
        ConfigError: a video, a column that is not there, or an address whose package is not installed.
    """
    tables = _tables_in(source)
    if tables:
        return _from_tables(tables, column, names)
    if _ADDRESS.match(source):
        return Source(ImagePlan(_listed(source, IMAGE_SUFFIXES)))
    files = expand_sources([source])
    if video := next((file.path for file in files if file.video), None):
        raise ConfigError(f"`knet batch` is for images, and '{video}' is a video; give it to `knet predict`.")
    return Source(plan_images(files))


def image_bytes(source: Source, place: int, retries: int = 2) -> bytes | None:
    """The bytes of an image in a table or an object store; None of a file on this machine, which is read by its path.

    Raises:
        DataError: it cannot be read, also when that is tried again some seconds later.
    """
    path = source.plan.paths[place]
    if not source.tables and not _ADDRESS.match(path):
        return None
    for again in range(retries, -1, -1):
        try:
            if source.tables:
                return _cell(source, place)
            with _filesystem(path)[0].open(path, "rb") as file:
                return file.read()
        except Exception as error:  # each kind of store raises its own
            if not again:
                raise DataError(f"Cannot read '{path}': {_reason(error)}.") from error
            time.sleep(1)
    raise AssertionError  # not reached


def _tables_in(source: str) -> list[str]:
    """The Parquet files that a path, folder or address stands for; none if it stands for images."""
    if not _ADDRESS.match(source) and not is_dir(source) and not source.lower().endswith(".parquet"):
        return []
    try:
        return _listed(source, (".parquet",))
    except DataError:
        if source.lower().endswith(".parquet"):
            raise
        return []


def _listed(source: str, endings: Sequence[str]) -> list[str]:
    """What of a folder, a pattern or a file has one of the endings, in natural order."""
    try:
        if _ADDRESS.match(source):
            files, path = _filesystem(source)
            found = files.glob(path) if "*" in path else files.ls(path, detail=False) if files.isdir(path) else [path]
            found = [files.unstrip_protocol(name) for name in found if files.exists(name)]
        elif is_dir(source):
            found = list(map(str, Path(source).iterdir()))
        else:
            found = glob.glob(source)  # noqa: PTH207  # pathlib's does not take absolute patterns
    except ConfigError:
        raise
    except Exception as error:  # each kind of store raises its own
        raise DataError(f"Cannot read '{source}': {_reason(error)}.") from error
    found = [name for name in found if name.lower().endswith(tuple(endings))]
    if not found:
        raise DataError(f"There is no {' or '.join(endings)} in '{source}'; give the folder that holds them.")
    return sorted(found, key=lambda name: natural_order(Path(name)))


def _reason(error: Exception) -> str:
    return "it is not there" if isinstance(error, FileNotFoundError) else why_not(error).rstrip(".")


def _filesystem(path: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"'{path}' cannot be opened: {error}; install the package for such addresses.") from error


def _parquet(path: str) -> Any:
    from pyarrow import parquet

    if not _ADDRESS.match(path) and exists(path) and not is_file(path):  # a pipe would be waited for
        raise DataError("it is no file")
    files, place = _filesystem(path)
    return parquet.ParquetFile(files.open(place, "rb"))


def _from_tables(paths: Sequence[str], column: str, names: str | None) -> Source:
    tables, named = list[Table](), list[str]()
    for path in paths:
        try:
            table = _parquet(path)
        except Exception as error:  # pyarrow's errors have no common class
            raise DataError(f"Cannot read '{path}' as Parquet: {_reason(error)}.") from error
        for wanted in filter(None, (column, names)):
            if wanted not in table.schema_arrow.names:
                there = ", ".join(table.schema_arrow.names)
                raise ConfigError(f"'{path}' has no column '{wanted}'; it has: {there} (--column, --names).")
        rows = table.metadata.num_rows
        if not 0 <= rows <= _MOST - len(named):
            raise DataError(f"'{path}' has {rows:,} rows; give tables of {_MOST:,} images together at most.")
        tables.append(Table(path, len(named), rows))
        if names is None:
            named += [f"{Path(path).stem}_{row:06d}" for row in range(rows)]
        else:
            named += _names_in(table, path, names)
    if not named:
        raise DataError(f"There is no row in {', '.join(paths[:5])}; give tables of images.")
    return Source(ImagePlan(named), tuple(tables), column)


def _names_in(table: Any, path: str, column: str) -> list[str]:
    """The names in a column, of which there have to be as many as rows."""
    found = list[str]()
    try:
        for batch in table.iter_batches(256, columns=[column]):
            for cell in batch.column(0):  # one at a time: each may refer to the same long text
                name = cell.as_py()
                if not isinstance(name, str | int) or len(str(name)) > _LONGEST:
                    raise DataError(f"row {len(found)} of the column '{column}' holds no name, but {shown(name)}")
                found.append(str(name))
        if len(found) != table.metadata.num_rows:
            raise DataError(f"it says of {table.metadata.num_rows:,} rows, and has {len(found):,}")
    except Exception as error:  # pyarrow's errors have no common class
        raise DataError(f"Cannot read '{path}' as Parquet: {_reason(error)}.") from error
    return found


_open: dict[tuple[str, int], Any] = {}  # the group of rows that was read last, by this process


def _cell(source: Source, place: int) -> bytes:
    table = next(table for table in source.tables if table.first <= place < table.first + table.rows)
    row, file = place - table.first, _parquet(table.path)
    for group in range(file.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        if row < count:
            if (table.path, group) not in _open:
                _open.clear()
                _open[table.path, group] = file.read_row_group(group, [source.column])[source.column]
            value = _open[table.path, group][row].as_py()
            value = value.get("bytes") if isinstance(value, dict) else value  # as Hugging Face's data sets hold images
            if not isinstance(value, bytes):
                raise DataError(f"Row {place - table.first} of '{table.path}' holds no bytes in '{source.column}'.")
            return value
        row -= count
    raise DataError(f"'{table.path}' has no row {place - table.first} any more; leave it as it is during a run.")


def chunks(places: Sequence[int], size: int) -> Iterator[list[int]]:
    """The places in parts that do not depend on which of them are left: by hundreds, if `size` is 100."""
    part: list[int] = []
    for place in places:
        if part and place // size != part[0] // size:
            yield part
            part = []
        part.append(place)
    if part:
        yield part
