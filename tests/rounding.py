"""Comparisons that hold in exact arithmetic, on processors that round in another way than the goldens' did.

Kernels gather features under masks with hard edges: a rounding error that moves one pixel over an edge changes all that
follows by more than any tolerance. So a comparison that float32 misses on a processor may be met, within the same
tolerances, in float64, where no rounding moves a pixel. The goldens are the original's float32, which in a few cases
has moved a pixel itself: these agree in float32 alone, in some order of summation, or lie among draws of what float32
may give (`in_float64` with seeds), whose spread is then the tolerance.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from typing import ParamSpec, Protocol, Self, TypeVar

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

P = ParamSpec("P")
C = TypeVar("C", bound="Repeatable")

# How many comparisons of a session may be met in float64 alone: those of one file of goldens, on another processor.
MOST_IN_FLOAT64 = 12
_ways: Counter[str] = Counter()

FLOAT32 = 2.0**-24  # relative error of rounding to float32


def _doubled(value: object, noise: torch.Generator | None) -> object:
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return value
    value = value.double()
    if noise is None:
        return value
    return value * (1 + FLOAT32 * torch.randn(value.shape, generator=noise, dtype=torch.float64))


@contextmanager
def in_float64(seed: int | None = None) -> Iterator[None]:
    """All numbers are float64, also where the package asks for float32.

    With a seed, what goes into each module gets random errors of the size of float32's rounding: one draw of what
    arithmetic in float32 may give (Monte Carlo arithmetic), whatever its order.
    """
    noise = None if seed is None else torch.Generator().manual_seed(seed)
    single = torch.Tensor.float
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    hook = register_module_forward_pre_hook(lambda _, inputs: tuple(_doubled(x, noise) for x in inputs))
    try:
        yield
    finally:
        hook.remove()
        torch.set_default_dtype(torch.float32)
        torch.Tensor.float = single  # type: ignore[method-assign]


def _met(way: str) -> None:
    """Says in which numbers a comparison was met, if not as it is written: pytest lists it with the warnings."""
    _ways[way] += 1
    if way != "float32":
        warnings.warn(f"met in {way} ({_ways[way]} times by now), not in float32 as it is", stacklevel=3)
    assert _ways["float64"] <= MOST_IN_FLOAT64, "so many comparisons that need float64 are no rounding any more"


def exact(comparison: Callable[P, None]) -> Callable[P, None]:
    """The comparison in float32; where that fails, with convolutions that add up in another order than oneDNN's; and
    where that fails in float64, which then decides.
    """

    @wraps(comparison)
    def compared(*args: P.args, **kwargs: P.kwargs) -> None:
        for fused in (True, False):
            with suppress(AssertionError), torch.backends.mkldnn.flags(enabled=fused):
                comparison(*args, **kwargs)
                return _met("float32" if fused else "float32 without oneDNN")
        with in_float64():
            comparison(*args, **kwargs)
        return _met("float64")

    return compared


class Repeatable(Protocol):
    """A case of a golden: what our network makes of its input."""

    def again(self) -> Self:
        """The same, computed anew in the numbers of now."""
        ...


def compare_exactly(comparison: Callable[[C], None], case: C) -> None:
    """As `exact`, for a comparison of what was computed before."""
    try:
        comparison(case)
    except AssertionError:
        with in_float64():
            comparison(case.again())
        _met("float64")


def again_in_avx2(request: pytest.FixtureRequest) -> None:
    """The test that asks, in a process of its own, which adds up as processors without AVX-512 do.

    It fails if that fails, and if this process is such a one already.
    """
    older = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
    if older.items() <= os.environ.items():
        raise AssertionError("in AVX2 neither")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "large", request.node.nodeid]
    warnings.warn("asked again in a process that computes as AVX2 does", stacklevel=2)
    done = subprocess.run(
        command, env=os.environ | older, cwd=request.config.rootpath, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
