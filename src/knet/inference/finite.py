"""Numbers of a network are looked at once, before anything is made of them: no rule of merging holds for NaN."""

from collections.abc import Sequence

import torch
from torch import Tensor

from knet.errors import NotFiniteError
from knet.inference.engines.engine import Engine
from knet.structures import Output


def require_finite(name: str, engine: Engine, outputs: Sequence[Output]) -> None:
    """Raises `NotFiniteError`, with the name of the image, unless all numbers of a result are finite.

    `outputs` are those of a network; only the last one is the result.
    """
    last, merged = outputs[-1], getattr(outputs[-1], "merged", None)
    parts = (last.kernels, last.mask_logits, last.class_logits, last.linked, merged and merged.scores)
    require_finite_numbers(name, engine, *(part for part in parts if part is not None))


def require_finite_numbers(name: str, engine: Engine, *parts: Tensor) -> None:
    """As `require_finite`, for tensors."""
    # A sum is finite only if all its numbers are, and reads them once; where it is too large, each is looked at.
    sums = [part.sum(dtype=torch.float32) for part in parts if part.numel()]  # exported models lack some parts
    if not sums or torch.stack(sums).isfinite().all() or all(part.isfinite().all() for part in parts):
        return
    half = engine.precision in ("fp16", "bf16")
    advice = f"{engine.precision} may be too small for it, so try fp32 (--precision)" if half else "take other weights"
    raise NotFiniteError(
        f"What the network says of '{name}' is not finite (NaN or infinity), so nothing can be made of it; {advice}."
    )
