"""Files of results in the making: each is there under its own name when it is whole, or not at all."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, suppress
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from knet.errors import OutputError
from knet.files import atomic_path, cannot_write


def make_folder(folder: Path) -> Path:
    """The folder, made if needed and tried out. OutputError if nothing can be written there."""
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
    """Writes a file whole or not at all, and returns its path. OutputError if it cannot be written."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return path


def encoded(pixels: np.ndarray, path: Path) -> bytes:
    """An image file's content: JPEG or PNG by the path's ending."""
    buffer = BytesIO()
    try:
        if path.suffix == ".jpg":  # full colour resolution keeps thin borders clean
            Image.fromarray(pixels).save(buffer, "JPEG", quality=92, subsampling=0)
        else:
            Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    except (OSError, ValueError, OverflowError) as error:
        raise refused(path, error) from error
    return buffer.getvalue()


class AbortError(Exception):
    """Makes atomic_path throw its file away."""


class GrowingFile:
    """A file in the making: what is added goes to disk at once, so memory stays flat; it gets its name when finished.

    Raises:
        OutputError: the file cannot be made.
    """

    def __init__(self, path: Path, head: bytes):
        self.path, self._size = path, 0
        self._stack = ExitStack()
        try:
            temporary = self._stack.enter_context(atomic_path(path))
            self._file = self._stack.enter_context(temporary.open("wb", buffering=0))
            self.append(head)
        except (OSError, OutputError) as error:
            self._abort()
            raise refused(path, error) from error

    def append(self, data: bytes) -> None:
        """After an OutputError the file is as it was before."""
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
            self._size += len(data)
        except OSError as error:
            with suppress(OSError):  # a full disk may have taken half of it
                self._file.seek(self._size)
                self._file.truncate()
            raise refused(self.path, error) from error

    def end(self, tail: bytes) -> None:
        """Puts the file under its own name. After an OutputError there is none."""
        try:
            self.append(tail)
        except OutputError:
            self._abort()
            raise
        self._stack.close()

    def _abort(self) -> None:
        with suppress(AbortError, OutputError, OSError), self._stack:
            raise AbortError
