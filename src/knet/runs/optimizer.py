"""The optimiser, AdamW with its own learning rate and weight decay for some parameters, and the schedule.

RT-K-Net decays no norm layers and lets the rate fall as a polynomial; K-Net has steps, and other rules for each task.
"""

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
    """The trainable parameters of a model, each of them once, in groups with their own `lr` and `weight_decay`.

    As in the official code, weight decay also applies to the biases of convolutions and linear layers, to attention's
    projections, and to the initial kernels.

    Args:
        base: learning rate, which `backbone_multiplier` scales for parameters whose names start with "backbone".
        undecayed: which parameters do not decay. "norms" stands for the weights and biases of norm layers (RT-K-Net);
            any other text is a regular expression to be found in their names; None makes all decay (K-Net).
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
    """AdamW with the groups of `parameter_groups` and the usual betas, 0.9 and 0.999.

    The default of `base` is that of RT-K-Net's config for Cityscapes (1e-4 for Mapillary); the paper says 2e-3.
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
    """The learning rate of an iteration, counted from 0: base * warm-up * (1 - iteration / iterations) ** power.

    During `warmup` iterations the warm-up rises linearly from `warmup_factor` to 1. At each of `steps` the rate falls
    to a tenth, and after `iterations` it is 0, unless the power is 0.
    """
    rise = warmup_factor + (1 - warmup_factor) * iteration / warmup if iteration < warmup else 1.0
    passed = sum(iteration >= step for step in steps)
    return base * rise * max(0.0, 1 - iteration / iterations) ** power * 0.1**passed
