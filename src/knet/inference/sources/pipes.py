"""Standard input and named pipes, read so that waiting for them can be ended."""

import os
import select
import sys
import threading
from pathlib import Path
from typing import Any

_PATIENCE = 0.2  # seconds between two looks at whether to stop


class Pipe:
    """An open pipe as a file that can be read once, from its begin to its end. Without a path it is standard input."""

    def __init__(self, path: Path | None, stop: threading.Event | None):
        self._stop = stop or threading.Event()
        # Not blocking: else opening a pipe waits for its writer, and nothing could end that.
        self._file = sys.stdin.fileno() if path is None else os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._own = path is not None

    def read(self, size: int) -> bytes:
        """The next bytes, at most so many; none at the end, or when it is time to stop."""
        while not self._stop.is_set():
            if select.select([self._file], [], [], _PATIENCE)[0]:
                return os.read(self._file, size)
        return b""

    def close(self) -> None:
        """Closes it, unless it is standard input, which is not ours."""
        if self._own:
            os.close(self._file)


def open_pipe(path: Path | None, stop: threading.Event | None) -> Any:
    """A pipe, or standard input, which may also be a file that is read from any place."""
    if path is None and sys.stdin.buffer.seekable():
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb")  # closing it leaves standard input open
    return Pipe(path, stop)
