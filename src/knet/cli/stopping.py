"""Ctrl-C and SIGTERM while frames are predicted: the frame in hand is finished, and then the files."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")
_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Terminated(KeyboardInterrupt):
    """SIGTERM, which else would end the process with half-written files left behind."""


@contextmanager
def sigterm_unwinds() -> Iterator[None]:
    """While this lasts, SIGTERM raises `Terminated`, so that what is open is closed. In the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def raise_it(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, raise_it)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Stopping:
    """Catches both signals while the context lasts; the first lets `frames` end, the second stops at once.

    Attributes:
        signal: the first that came, None as long as none has.
        event: is set when one has come.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.event = threading.Event()
        self.at_once = False
        self._waiting = False

    @property
    def name(self) -> str:
        """What the signal is called."""
        return _NAMES[signal.Signals(self.signal or signal.SIGINT)]

    def __enter__(self) -> Self:
        self._before = {}
        if threading.current_thread() is threading.main_thread():  # no other may have handlers
            self._before = {number: signal.signal(number, self._note) for number in _NAMES}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def frames(self, frames: Iterable[T]) -> Generator[T, None, None]:
        """The frames until a signal comes; waiting for the next one ends then, too."""
        them = iter(frames)
        while True:
            self._waiting = True
            try:
                if self.signal is not None:
                    return
                frame = next(them)
            except StopIteration:
                return
            except KeyboardInterrupt:
                if self.at_once:
                    raise
                return
            finally:
                self._waiting = False
            yield frame

    def ask(self, number: int = signal.SIGINT) -> None:
        """Lets `frames` end, as a signal does."""
        self.signal = number if self.signal is None else self.signal
        self.event.set()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.at_once = self.signal is not None
        self.ask(number)
        if self.at_once or self._waiting:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
