"""Ctrl-C, SIGTERM and SIGHUP while frames are predicted: the frame in hand is finished, and then the files."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Self, TypeVar

from knet.runs.interrupt import ENDS, handled

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")
_NAMES = {signal.SIGINT: "Ctrl-C", **{number: number.name for number in ENDS}}


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which else would end the process with half-written files left behind."""

    def __init__(self, number: int = signal.SIGTERM):
        super().__init__()
        self.signal = signal.Signals(number)


def _stop(number: int) -> KeyboardInterrupt:
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)


@contextmanager
def signals_unwind() -> Iterator[None]:
    """While this lasts, the signals raise `Terminated`, Ctrl-C KeyboardInterrupt, so that what is open is closed.

    Libraries that were not written in Python may make another error of it, which says nothing to anybody.
    """
    came: int | None = None

    def raise_it(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if number != signal.SIGHUP or number != came:  # which both a terminal and its shell send
            came = number
            raise _stop(number)

    try:
        with handled(_NAMES, raise_it):
            yield
    except Exception as error:
        if came is None:
            raise
        raise _stop(came) from error


class Stopping:
    """Catches the signals while the context lasts; the first lets `frames` end, the second stops at once.

    Attributes:
        signal: the first that came, None as long as none has.
        event: is set when one has come.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.event = threading.Event()
        self.at_once = False
        self._waiting, self._stack = False, ExitStack()

    @property
    def name(self) -> str:
        """What the signal is called."""
        return _NAMES[signal.Signals(self.signal or signal.SIGINT)]

    def __enter__(self) -> Self:
        self._stack.enter_context(handled(_NAMES, self._note))
        return self

    def __exit__(self, kind: object, error: BaseException | None, *trace: object) -> None:
        self._stack.close()
        if self.at_once and self.signal is not None and isinstance(error, Exception):  # see `signals_unwind`
            raise _stop(self.signal) from error

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
            except BaseException:  # see `signals_unwind`
                if self.at_once or self.signal is None:
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
        if number == self.signal == signal.SIGHUP:  # which both a terminal and its shell send
            return
        self.at_once = self.signal is not None
        self.ask(number)
        if self.at_once or self._waiting:
            raise _stop(number)
