"""Loops over pixels, compiled by Numba where it is installed; callers do without such loops elsewhere."""

import functools
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

Function = Callable[..., Any]


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


def _compiled(function: Function, **options: Any) -> Function:
    from numba import njit

    try:
        return njit(nogil=True, cache=True, **options)(function)
    except RuntimeError:  # no folder can be written
        return njit(nogil=True, **options)(function)
