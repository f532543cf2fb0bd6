"""Matches kernels to ground-truth segments by the Hungarian method: which kernel should become which segment.

RT-K-Net's code matches things and stuff alike; K-Net matches things and gives every stuff class a kernel of its own.
The costs of all images and stages are computed on the device and reach the CPU in one copy, because each copy waits for
the device. Nothing here needs a gradient.

Shapes: B images, N kernels, T segments (padded to the largest number in the batch), K classes, h x w pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from knet.training.losses import in_float32

CLASS_WEIGHT, MASK_WEIGHT, DICE_WEIGHT = 2.0, 1.0, 4.0
INVALID_COST = 100.0  # replaces NaN, as in the official code; any finite cost is below 60
HELD_COST = -1000.0  # of a match that is fixed beforehand, so low that no other choice can be cheaper


class Match(NamedTuple):
    """Which kernel is matched to which segment in one image: `kernels` (M,) int64 ascending, `segments` (M,) int64."""

    kernels: Tensor
    segments: Tensor


Held = Sequence[Match] | None
"""For each image, one-to-one matches that are fixed beforehand."""


@in_float32
def class_cost(class_logits: Tensor, labels: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """How the focal loss would change if a kernel took a segment's class. (B,N,K) logits, (B,T) int64 -> (B,N,T)"""
    eps = 1e-12
    p = class_logits.sigmoid()
    positive = -(p + eps).log() * alpha * (1 - p) ** gamma
    negative = -(1 - p + eps).log() * (1 - alpha) * p**gamma
    return (positive - negative).gather(2, labels[:, None].expand(-1, p.shape[1], -1))


@in_float32
def mask_cost(probabilities: Tensor, masks: Tensor) -> Tensor:
    """Minus the share of pixels on which both agree. (B,N,h,w) in 0..1, (B,T,h,w) in 0..1 -> (B,N,T) in -1..0

    The agreement p*t + (1 - p)*(1 - t) is expanded, so that one matrix product gives it for all N x T.
    """
    p, t = probabilities.flatten(2), masks.flatten(2)
    agreement = 2 * (p @ t.transpose(1, 2)) - p.sum(2)[:, :, None] - t.sum(2)[:, None] + p.shape[2]
    return -agreement / p.shape[2]


@in_float32
def dice_cost(probabilities: Tensor, masks: Tensor, *, eps: float = 1e-3) -> Tensor:
    """Minus the dice coefficient. (B,N,h,w) in 0..1, (B,T,h,w) in 0..1 -> (B,N,T) in -1..0"""
    p, t = probabilities.flatten(2), masks.flatten(2)
    overlap = 2 * (p @ t.transpose(1, 2))
    sizes = p.square().sum(2)[:, :, None] + t.square().sum(2)[:, None] + 2 * eps
    return -overlap / sizes


@torch.no_grad()
@in_float32
def matching_cost(
    mask_logits: Tensor,
    class_logits: Tensor | None,
    masks: Tensor,
    labels: Tensor,
    floors: tuple[float, float] = (0.001, 0.01),
) -> Tensor:
    """Weighted cost of matching kernel n to segment t. (B,N,h,w), (B,N,K) or None, (B,T,h,w), (B,T) int64 -> (B,N,T)

    Logits and masks are on the same grid; a stage without classes costs nothing for them. The floors raise the
    probabilities for the dice cost and for the mask cost, ascending: RT-K-Net's official code has them, K-Net's none.
    """
    p = mask_logits.sigmoid()
    cost = DICE_WEIGHT * dice_cost(p.clamp_(min=floors[0]), masks)
    cost += MASK_WEIGHT * mask_cost(p.clamp_(min=floors[1]), masks)
    if class_logits is not None:
        cost += CLASS_WEIGHT * class_cost(class_logits, labels)
    return cost


def assign(costs: Sequence[Tensor], counts: Sequence[int], held: Held = None) -> tuple[list[list[Match]], int]:
    """The cheapest one-to-one assignments, by stage and image, on the CPU; and how many costs were not finite.

    Costs are (B,N,T) for each stage, of which an image uses as many columns as `counts` says. Where there are more
    segments than kernels, the most expensive ones stay without. A cost that is not finite becomes 100, so that the
    assignment avoids it; a matrix of nothing else gives no other matches than what is `held`, which is assigned
    whatever it costs.
    """
    matches: list[list[Match]] = []
    invalid = 0
    for stage in torch.stack(list(costs)).cpu().numpy():
        matches.append([])
        for image, (cost, count) in enumerate(zip(stage, counts, strict=True)):
            cost = cost[:, :count]
            bad = ~np.isfinite(cost)
            invalid += int(bad.sum())
            usable = np.where(bad, INVALID_COST, cost)
            if held is not None:
                usable[held[image].kernels.numpy(), held[image].segments.numpy()] = HELD_COST
            pairs = linear_sum_assignment(usable)
            kept = (usable[pairs] == HELD_COST) | ~bad.all()
            matches[-1].append(Match(*(torch.from_numpy(places[kept].astype(np.int64)) for places in pairs)))
    return matches, invalid


def owners(kernels: Tensor, masks: Tensor, nobody: int) -> Tensor:
    """Which kernel owns each pixel. (M,) int64 ascending, (M,h,w) in 0..1, the masks matched to them -> (h,w) int64

    It is the kernel of the largest mask value, on a tie the lower one, and `nobody` where no mask reaches a half.
    """
    candidates = F.pad(masks, (0, 0, 0, 0, 0, 1), value=0.5)
    return F.pad(kernels, (0, 1), value=nobody)[candidates.argmax(0)]


def last_owners(values: Tensor, masks: Tensor, nobody: int) -> Tensor:
    """The value of the last mask that covers a pixel, `nobody` if none does. (M,) int64, (M,h,w) in 0..1 -> (h,w)

    K-Net's rule: one mask after the other writes its value wherever it is above 0.
    """
    order = torch.arange(1, len(values) + 1, device=values.device)[:, None, None]
    return F.pad(values, (1, 0), value=nobody)[F.pad(order * (masks > 0), (0, 0, 0, 0, 1, 0)).amax(0)]
