"""Weights for other classes than those they learned: what a class of the same name learned is kept."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from knet.models.zoo import create


def class_layers(model: str, arguments: dict[str, Any]) -> list[str]:
    """The tensors of a model whose rows are its classes: those that another number of classes makes longer."""
    with torch.device("meta"):  # shapes alone, no memory
        first, more = (
            create(model, **{**arguments, "classes": arguments["classes"] + extra}).state_dict() for extra in (0, 1)
        )
    return [key for key in first if first[key].shape[:1] != more[key].shape[:1]]


def with_classes(
    state: dict[str, Tensor], own: dict[str, Tensor], layers: Sequence[str], before: Sequence[str], now: Sequence[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Weights whose class layers have a row for each class of `now`.

    A class that is among those of `before` has its learned row, any other the row of `own`.

    Args:
        state: the learned weights, of a network with the classes `before`.
        own: the first weights of the network with the classes `now`.
        layers: as from `class_layers`.

    Returns:
        The weights, and the classes that were learned.
    """
    kept = [name for name in now if name in before]
    rows_now, rows_before = [now.index(name) for name in kept], [before.index(name) for name in kept]
    changed = dict(state)
    for key in layers:
        if key in state and key in own and len(state[key]) == len(before):
            changed[key] = own[key].clone()
            changed[key][rows_now] = state[key][rows_before].to(own[key].dtype)
    return changed, kept
