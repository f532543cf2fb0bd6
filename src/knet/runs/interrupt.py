"""SIGTERM, by which a scheduler takes a machine back, and SIGHUP, when a terminal is closed: a run saves and ends."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Self

from knet.errors import StoppedError

ENDS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def handled(numbers: Iterable[int], handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """While this lasts, a handler has these signals. In the main thread alone, as no other may have handlers."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: old for number in numbers if (old := signal.getsignal(number)) is not None}
        for ignored in (signal.SIGHUP, signal.SIGINT):  # by nohup, and by shells for what runs behind a script
            if before.get(ignored) == signal.SIG_IGN:
                del before[ignored]
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class Interrupt:
    """Catches both while the context lasts. When one comes, `asked` becomes true, for the run to stop when it can."""

    def __init__(self, folder: Path) -> None:
        self.asked = False
        self._folder, self._at_once, self._stack = folder, False, ExitStack()
        self.error = self._error(signal.SIGTERM)

    def __enter__(self) -> Self:
        self._stack.enter_context(handled(ENDS, self._note))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Lets a signal stop the work at once, by `error`, while the context lasts, as the state was saved before."""
        if self.asked:
            raise self.error
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked, self.error = True, self._error(signal.Signals(number))
        if self._at_once:
            raise self.error

    def _error(self, number: signal.Signals) -> StoppedError:
        advice = f"the state is saved, go on with `knet train --resume {self._folder}`"
        return StoppedError(f"Stopped by {number.name}; {advice}.", number)
