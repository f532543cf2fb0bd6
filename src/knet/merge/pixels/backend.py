"""Chooses how masks are merged: by compiled code for the CPU or the GPU where that is possible, else by plain torch."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

import torch


def backend(device: torch.device) -> ModuleType:
    """The module whose `share_pixels`, `masks_above_half` and `relabel` take tensors of a device, see `plain`.

    `streaming` needs Numba; `gpu` needs Triton, which comes with torch for CUDA on Linux. The results are equal.
    """
    return _first({"cpu": "streaming", "cuda": "gpu"}.get(device.type, "plain"))


@functools.cache
def _first(name: str) -> ModuleType:
    plain = importlib.import_module("knet.merge.pixels.plain")
    try:
        module = importlib.import_module(f"knet.merge.pixels.{name}")
    except ImportError:
        return plain
    return plain if name == "gpu" and not module.usable() else module
