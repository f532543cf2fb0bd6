"""The optimiser: AdamW with its own rate and weight decay for some parameters, and how the rate changes.

RT-K-Net decays no norm layers and lets the rate fall as a polynomial; K-Net has steps, and other rules for each task.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import AdamW

from knet.errors import ConfigError

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.RMSNorm)  # the first: batch and instance norms


def parameter_groups(
    model: nn.Module,
    base: float = 2e-4,
    weight_decay: float = 0.05,
    backbone_multiplier: float = 1.0,
    undecayed: str | None = "norms",
) -> list[dict[str, Any]]:
    """The trainable parameters of a model in groups with their own `lr` and `weight_decay`, each parameter once.

    `undecayed`: "norms" are weights and biases of norm layers (RT-K-Net); any other text is a regular expression, found
    in the names of parameters; None decays all (K-Net). What decays includes, as in the official code, the biases of
    convolutions and linear layers, attention's projections, and the initial kernels. `backbone_multiplier` scales the
    learning rate of parameters whose name starts with "backbone".

    Raises:
        ConfigError: `undecayed` is no regular expression.
    """
    try:
        rule = re.compile(undecayed or "(?!)")  # matches nothing
    except re.error as error:
        raise ConfigError(
            f"The weight decay rule '{undecayed}' is neither norms nor a regular expression ({error})."
        ) from error
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    seen: set[int] = set()
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(path, recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            free = isinstance(module, NORMS) if undecayed == "norms" else rule.search(name) is not None
            decay = 0.0 if free else weight_decay
            lr = base * backbone_multiplier if name.startswith("backbone") else base
            group = groups.setdefault((lr, decay), {"params": [], "lr": lr, "weight_decay": decay})
            group["params"].append(parameter)
    return list(groups.values())


def adamw(
    model: nn.Module,
    base: float = 2e-4,
    weight_decay: float = 0.05,
    backbone_multiplier: float = 1.0,
    undecayed: str | None = "norms",
) -> AdamW:
    """AdamW with the official groups and its usual betas 0.9 and 0.999.

    `base` is the 2e-4 of RT-K-Net's configs (Cityscapes; 1e-4 for Mapillary); the paper says 2e-3. The official code
    also clips the norm of the gradient of the whole model to 1.0 before each step: `torch.nn.utils.clip_grad_norm_`.
    """
    return AdamW(parameter_groups(model, base, weight_decay, backbone_multiplier, undecayed), lr=base)


def learning_rate(
    iteration: int,
    iterations: int = 90_000,
    base: float = 2e-4,
    warmup: int = 1000,
    warmup_factor: float = 1e-3,
    power: float = 0.9,
    steps: Sequence[int] = (),
) -> float:
    """Learning rate of an iteration, counted from 0: base * warm-up * (1 - iteration / iterations) ** power.

    The warm-up rises from `warmup_factor` to 1 over `warmup` iterations (0: none) in a straight line, and the
    polynomial applies during it too. At and after the last iteration the rate is 0, but for a power of 0. At each of
    `steps` the rate falls to a tenth.
    """
    rise = 1.0
    if iteration < warmup:
        rise = warmup_factor + (1 - warmup_factor) * iteration / warmup
    passed = sum(iteration >= step for step in steps)
    return base * rise * max(0.0, 1 - iteration / iterations) ** power * 0.1**passed
