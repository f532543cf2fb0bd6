"""What the files of renames have in common: how they are applied, and the one tensor that also changes its shape."""

import re

from torch import Tensor

Renames = tuple[tuple[str, str], ...]  # a regular expression and what it becomes, one applied after the other


def renamed(key: str, renames: Renames) -> str:
    """The key after all renames; one that is not known passes unchanged, for the strict check."""
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key


def flatten_kernels(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict whose initial kernels have lost the two 1x1 axes of a convolution. (N,C,1,1) -> (N,C)"""
    kernels = state.get("decoder.kernels")
    if kernels is None or kernels.ndim != 4:
        return state
    return {**state, "decoder.kernels": kernels.flatten(1)}
