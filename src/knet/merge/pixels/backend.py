"""The fastest way to merge masks that is there: compiled for the processor, or for the GPU, or plain torch."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

import torch


def backend(device: torch.device) -> ModuleType:
    """The module with `share_pixels`, `masks_above_half` and `relabel` for tensors of a device; see `plain`.

    `merge.pixels.streaming` needs Numba, `merge.pixels.gpu` Triton, which comes with torch for CUDA on Linux.
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
