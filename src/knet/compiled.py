"""Loops over pixels, compiled by Numba. Without Numba the import of this file fails, and callers do without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

Function = Callable[..., Any]


def compiled(function: Function) -> Function:
    """The function, compiled at its first call and kept on disk for later processes where that is possible.

    It releases the GIL. Floating point follows IEEE 754, in the order that is written.
    """
    return _compiled(function)


def compiled_any_order(function: Function) -> Function:
    """As `compiled`, for loops over finite numbers that may become vector instructions: maxima in any order, a product
    and a sum rounded together, no check for division by zero.
    """
    return _compiled(function, fastmath={"nnan", "nsz", "contract"}, error_model="numpy")


def _compiled(function: Function, **options: Any) -> Function:
    try:
        return njit(nogil=True, cache=True, **options)(function)
    except RuntimeError:  # no folder can be written
        return njit(nogil=True, **options)(function)
