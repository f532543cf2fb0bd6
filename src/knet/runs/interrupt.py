"""SIGTERM, with which a scheduler takes a machine back: the run saves its state and ends."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Self

from knet.errors import StoppedError


class Interrupt:
    """Catches SIGTERM while the context lasts. When it comes, `asked` becomes true, for the run to stop when it can."""

    def __init__(self, folder: Path) -> None:
        self.asked = False
        self.error = StoppedError(f"Stopped by SIGTERM; the state is saved, go on with `knet train --resume {folder}`.")
        self._at_once = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other may have handlers
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._before)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Lets SIGTERM stop the work at once, by `error`, while the context lasts, as the state was saved before."""
        if self.asked:
            raise self.error
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if self._at_once:
            raise self.error
