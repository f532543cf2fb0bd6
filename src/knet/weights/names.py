"""What all renamings share: how they are applied, and the one tensor whose shape changes as well."""

import re
from collections.abc import Callable

from torch import Tensor

# Regular expressions and their replacements, applied in order to the whole key.
Renames = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]


def renamed(key: str, renames: Renames) -> str:
    """The key after all renames. Unknown keys pass unchanged, to be reported by the strict check."""
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key


def flatten_kernels(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with initial kernels that have lost a convolution's two 1x1 axes. (N,C,1,1) -> (N,C)"""
    return {key: x.flatten(1) if key == "decoder.kernels" and x.ndim == 4 else x for key, x in state.items()}
