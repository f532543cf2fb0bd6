"""Weights for other classes than those they learned: what a class of the same name learned is kept."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from knet.class_names import same_names
from knet.models.zoo import create, entry
from knet.weights.no_numbers import NoNumbers

KERNELS = "decoder.kernels"


def class_layers(model: str, arguments: dict[str, Any]) -> list[str]:
    """The tensors of a model whose rows are its classes: those that another number of classes makes longer."""
    classes = {**entry(model).arguments, **arguments}["classes"]
    with torch.device("meta"), NoNumbers():  # shapes alone: no memory, no time
        first, more = (create(model, **{**arguments, "classes": classes + extra}).state_dict() for extra in (0, 1))
    return [key for key in first if first[key].shape[:1] != more[key].shape[:1]]


def class_count(state: dict[str, Tensor], layers: Sequence[str]) -> int | None:
    """How many classes weights know, by their class layers; None if these do not agree."""
    counts = {len(state[key]) for key in layers if key in state}
    return counts.pop() if len(counts) == 1 else None


def with_kernels(state: dict[str, Tensor], own: dict[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Weights with as many initial kernels as the network whose first weights are `own`: those there are, then its own.

    Also returns how many start anew.
    """
    learned, first = state.get(KERNELS), own.get(KERNELS)
    if learned is None or first is None or learned.shape[1:] != first.shape[1:] or len(learned) == len(first):
        return state, 0
    kernels, count = first.clone(), min(len(learned), len(first))
    kernels[:count] = learned[:count].to(first.dtype)
    return {**state, KERNELS: kernels}, len(first) - count


def with_classes(
    state: dict[str, Tensor], own: dict[str, Tensor], layers: Sequence[str], before: Sequence[str], now: Sequence[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Weights whose class layers have a row for each class of `now`.

    A class that is among those of `before` has its learned row, any other the row of `own`.

    Args:
        state: the learned weights, of a network with the classes `before`; if that are not as many as it has, none of
            them is known.
        own: the first weights of the network with the classes `now`.
        layers: as from `class_layers`.

    Returns:
        The weights, and the classes that were learned.
    """
    found = same_names(now, before) if class_count(state, layers) == len(before) else [None] * len(now)
    kept = [name for name, place in zip(now, found, strict=True) if place is not None]
    rows_now = [row for row, place in enumerate(found) if place is not None]
    rows_before = [place for place in found if place is not None]
    changed = dict(state)
    for key in layers:
        if key in state and key in own and state[key].shape[1:] == own[key].shape[1:]:
            changed[key] = own[key].clone()
            changed[key][rows_now] = state[key][rows_before].to(own[key].dtype)
    return changed, kept
