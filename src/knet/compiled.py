"""Loops over pixels, compiled by Numba where it is installed; callers do without such loops elsewhere."""

import functools
import importlib
import logging
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

Function = Callable[..., Any]

_logger = logging.getLogger("knet")
_thread = threading.local()


@functools.cache
def optional(module: str, needs: str = "numba") -> ModuleType | None:
    """The module of a full name, imported when first asked for (Numba takes half a second); None without its library.

    Only the library that it needs, "numba" or "triton", may fail to import: it is not installed, or does not fit the
    rest of the installation. A wrong name, or a mistake in the module, raises as everywhere.
    """
    try:
        importlib.import_module(needs)
    except ImportError:
        return None
    return importlib.import_module(module)


def compiled(function: Function) -> Function:
    """The function, compiled at its first call and kept on disk for later processes if possible; it releases the GIL.

    Floating point follows IEEE 754, in the order that is written.
    """
    return _compiled(function)


def compiled_any_order(function: Function) -> Function:
    """As `compiled`, for loops over finite numbers that may become vector instructions: maxima in any order, a product
    and a sum rounded together, no check for division by zero.
    """
    return _compiled(function, fastmath={"nnan", "nsz", "contract"}, error_model="numpy")


def working_seconds() -> float:
    """A clock that stands still while this thread compiles, or waits for another one that does."""
    return time.perf_counter() - getattr(_thread, "compiling", 0.0)


@functools.cache
def _watch_compiler() -> None:
    """Lets `working_seconds` know of Numba's work, and says when it begins: once on a machine, where it can be kept."""
    from numba.core import event

    class Clock(event.Listener):
        def on_start(self, event: Any) -> None:
            _thread.depth = getattr(_thread, "depth", 0) + 1
            if _thread.depth == 1:
                _thread.start = time.perf_counter()

        def on_end(self, event: Any) -> None:
            _thread.depth -= 1
            if _thread.depth == 0:
                _thread.compiling = getattr(_thread, "compiling", 0.0) + time.perf_counter() - _thread.start

    class Note(event.Listener):
        said = False

        def on_start(self, event: Any) -> None:
            if not self.said:
                _logger.info("Compiling loops for this machine, which is done once; it takes some seconds.")
            self.said = True

        def on_end(self, event: Any) -> None:
            pass

    event.register("numba:compiler_lock", Clock())
    event.register("numba:compile", Note())


def _compiled(function: Function, **options: Any) -> Function:
    from numba import njit

    _watch_compiler()
    try:
        return njit(nogil=True, cache=True, **options)(function)
    except RuntimeError:  # no folder can be written
        return njit(nogil=True, **options)(function)
