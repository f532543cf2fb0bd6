"""Signals that come before the command line is even imported, which takes some tenths of a second."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def sentence_for_signals() -> Iterator[None]:
    """While this lasts, Ctrl-C, SIGTERM and SIGHUP end the process with a sentence and their status.

    Where somebody else minds a signal, or it is ignored, it is left alone.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, _end)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _end(number: int, frame: FrameType | None) -> None:
    if sys.stderr is not None:
        said = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
        print(f"knet: {said}", file=sys.stderr)
    raise SystemExit(128 + number)
