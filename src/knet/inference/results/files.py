"""Files and folders of results in the making: a file has its own name when it is whole.

What a run that was stopped leaves says so in its name: `panoptic_unfinished.json`.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import numpy as np
from PIL import Image

from knet.errors import OutputError
from knet.files import atomic_path, cannot_write, open_own
from knet.structures import Category

F = TypeVar("F", bound="OpenFile")


def make_folder(folder: Path) -> Path:
    """The folder, made if needed; OutputError if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise refused(folder, error) from error
    return folder


def refused(path: Path, error: Exception) -> OutputError:
    """The error for a file or folder that cannot be written."""
    reason = getattr(error, "strerror", None) or error
    return error if isinstance(error, OutputError) else cannot_write(path, reason)


def write_bytes(path: Path, data: bytes) -> Path:
    """Writes a file whole or not at all, and returns its path."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return path


def write_image(path: Path, pixels: np.ndarray) -> Path:
    """Writes (H,W,3) or (H,W) pixels as JPEG or PNG, by the path's ending, whole or not at all; returns the path."""
    buffer = BytesIO()
    try:
        if path.suffix == ".jpg":  # full colour resolution keeps thin borders clean
            Image.fromarray(pixels).save(buffer, "JPEG", quality=92, subsampling=0)
        else:
            Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    except (OSError, ValueError, OverflowError) as error:
        raise refused(path, error) from error
    return write_bytes(path, buffer.getvalue())


class OpenFile:
    """A file that results are added to, under a temporary name until it is finished."""

    def __init__(self, path: Path):
        self.path, self._stack = path, ExitStack()

    def finish(self) -> None:
        """Puts the file under its own name; after an OutputError there is no file."""
        self._stack.close()
        with suppress(OSError):  # what an earlier run left
            self._unfinished().unlink(missing_ok=True)

    def stop(self, asked: bool) -> None:
        """Ends the file early with what it holds so far: because of an error elsewhere, or because it was asked for."""
        if asked:
            self.end_early()
        else:
            self.finish()

    def end_early(self) -> None:
        """Ends the file where its run was stopped: it is finished with what it holds so far, and its name says so."""
        self.finish()
        try:
            self.path = self.path.replace(self._unfinished())
        except OSError as error:
            raise refused(self._unfinished(), error) from error

    def _unfinished(self) -> Path:
        return self.path.with_stem(f"{self.path.stem}_unfinished")

    def abort(self) -> None:
        """Leaves nothing behind."""
        with suppress(Exception), self._stack:  # one in flight makes `atomic_path` remove its file
            raise RuntimeError


class Appended:
    """An open file that is added to; after an OutputError, which names `path`, it is as it was before."""

    def __init__(self, file: FileIO, path: Path):
        self.file, self.path, self.size = file, path, 0

    def append(self, data: bytes) -> None:
        """Adds to the file."""
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self.file.write(rest) :]
            self.size += len(data)
        except OSError as error:
            self.cut(self.size)  # a full disk may have taken half of it
            raise refused(self.path, error) from error

    def cut(self, size: int) -> None:
        """Takes off what was added after the file had this size."""
        with suppress(OSError):
            self.file.seek(size)
            self.file.truncate()
        self.size = size

    def content(self) -> Iterator[bytes]:
        """All of it, in parts."""
        self.file.seek(0)
        while part := self.file.read(1 << 20):
            yield part


class GrowingFile(OpenFile):
    """A file whose content goes to disk as soon as it is added, so that memory stays flat."""

    def __init__(self, path: Path, head: bytes = b""):
        super().__init__(path)
        try:
            self._growing = Appended(self._stack.enter_context(self._opened()), path)
            self.append(head)
        except (OSError, OutputError) as error:
            self.abort()
            raise refused(path, error) from error

    def _opened(self) -> FileIO:
        """What is written to, empty: it has another name as long as the file grows."""
        return self._stack.enter_context(atomic_path(self.path)).open("wb", buffering=0)

    def append(self, data: bytes) -> None:
        """Adds to the file; if the disk is full (OutputError) it is as it was before."""
        self._growing.append(data)

    def _beside(self) -> Appended:
        """A file without a name, for what has to wait for the end of this one."""
        try:
            unnamed = tempfile.TemporaryFile(dir=self.path.parent, buffering=0)  # noqa: SIM115
            file = self._stack.enter_context(unnamed)
        except OSError as error:
            self.abort()
            raise refused(self.path, error) from error
        return Appended(cast(FileIO, file), self.path)

    def tail(self) -> Iterable[bytes]:
        """What ends the file, in parts."""
        return ()

    def finish(self) -> None:
        """See `OpenFile`."""
        try:
            for part in self.tail():
                self.append(part)
        except OutputError:
            self.abort()
            raise
        super().finish()


class LiveFile(GrowingFile):
    """A file that others may read while it grows, as it has its own name from the beginning."""

    def _opened(self) -> FileIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return FileIO(open_own(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w")


class JsonRows(GrowingFile):
    """A JSON document whose last part is a list that grows by rows; without a `head`, the list alone."""

    def __init__(self, path: Path, head: bytes = b"["):
        super().__init__(path, head)
        self._separator = b"\n"

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Adds rows; if the disk is full (OutputError) the file is as it was before."""
        lines = b",\n".join(json.dumps(row).encode() for row in rows)
        if lines:
            self.append(self._separator + lines)
            self._separator = b",\n"

    def tail(self) -> Iterable[bytes]:
        """Closes the list."""
        return (b"\n]\n",)


class Writer:
    """Writes results to a folder, which is made if needed; the base of all writers. A context manager.

    Files that hold the results of many images stay open, and are finished by `close` or at the end of the `with` block.
    If the block ends with an error, files that are of use as far as they go are finished, and the others removed; the
    caller then sees that error alone; after Ctrl-C their names say that they are not whole. `end_early` finishes all of
    a run that is stopped, and their names say so.
    `categories` is the class table of the model.

    Attributes:
        keeps_rows: whether an image's rows of the document of all images wait in `kept` for the caller, who gives them
            to `add_rows` later, instead of being added at once.
    """

    def __init__(self, folder: str | Path, categories: Sequence[Category]):
        self.folder, self.categories = make_folder(Path(folder)), tuple(categories)
        self._open: dict[str, OpenFile] = {}
        self.keeps_rows = False
        self.kept: list[Any] | None = None

    def _file(self, name: str, make: Callable[[], F]) -> F:
        """The open file of that name, which is made when it is first asked for."""
        if name not in self._open:
            self._open[name] = make()
        return cast(F, self._open[name])

    def _note_rows(self, *rows: dict[str, Any]) -> None:
        if self.keeps_rows:
            self.kept = list(rows)
        else:
            self.add_rows(*rows)

    def add_rows(self, *rows: dict[str, Any]) -> None:
        """Adds an image's rows to the document of all images, if this writer has one."""
        raise NotImplementedError

    def _finish(self, name: str) -> None:
        """Finishes the open file of that name, if there is one."""
        if name in self._open:
            self._open.pop(name).finish()

    def close(self) -> list[Path]:
        """Finishes all open files, each even if another fails, and returns their paths; a second call does nothing."""
        files, self._open = list(self._open.values()), {}
        with ExitStack() as stack:
            for file in files:
                stack.callback(file.finish)
        return [file.path for file in files]

    def end_early(self) -> None:
        """Finishes all open files as those of a run that was stopped: their names then end in `_unfinished`."""
        files, self._open = list(self._open.values()), {}
        with ExitStack() as stack:
            for file in files:
                stack.callback(file.end_early)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        if kind is not None:
            for file in self._open.values():
                with suppress(OutputError):  # the error on its way says more
                    file.stop(asked=not issubclass(kind, Exception))
            self._open.clear()
        self.close()
