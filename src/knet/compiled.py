"""Loops over pixels, compiled by Numba. Where it is missing importing this fails, and callers have another way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

Function = Callable[..., Any]


def compiled(function: Function) -> Function:
    """Compiled when it is first called, and kept on disk for later processes where a folder for that can be written.

    Other threads run meanwhile. Floating point is IEEE's, in the order that is written.
    """
    return _compiled(function)


def compiled_any_order(function: Function) -> Function:
    """The same for loops over finite numbers that may be vectors' operations: largest and smallest in any order, a
    product and a sum rounded once, nothing divided by zero.
    """
    return _compiled(function, fastmath={"nnan", "nsz", "contract"}, error_model="numpy")


def _compiled(function: Function, **options: Any) -> Function:
    try:
        return njit(nogil=True, cache=True, **options)(function)
    except RuntimeError:  # no folder can be written
        return njit(nogil=True, **options)(function)
