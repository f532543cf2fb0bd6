"""Chooses how masks are merged: by compiled code for the CPU or the GPU where that is possible, else by plain torch."""

import functools
from types import ModuleType

import torch

from knet.compiled import optional
from knet.merge.pixels import plain


@functools.cache
def backend(device: torch.device) -> ModuleType:
    """The module whose `share_pixels`, `masks_above_half` and `relabel` take tensors of a device, see `plain`.

    `streaming` needs Numba; `gpu` needs Triton, which comes with torch for CUDA on Linux. The results are equal.
    """
    if device.type == "cpu":
        return optional("knet.merge.pixels.streaming") or plain
    gpu = optional("knet.merge.pixels.gpu", needs="triton") if device.type == "cuda" else None
    return gpu if gpu is not None and gpu.usable() else plain
