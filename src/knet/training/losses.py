"""The losses of RT-K-Net as functions: predictions and truth in, one unweighted scalar out.

    L = L_mask + L_dice + L_cls + L_aux (Eq. 6),  L_aux = L_rank + L_seg + L_inst (Eq. 12), each with a weight

Equation numbers are those of RT-K-Net (Schoen et al., IV 2023, section III), whose first four losses are K-Net's
(Zhang et al., NeurIPS 2021); they apply to every stage, L_seg and L_inst once. Where paper and official code differ,
the value is the code's. Everything is computed in float32, also under autocast. A loss of nothing (no matched mask, no
labelled pixel) is a zero that still has a graph, so that no image can stop a training run.

Shapes: B images, N kernels, M matched masks, T segments, K classes, C channels, h x w the pixels the losses look at.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from knet.distributed import gather, mean_over_processes, world

P = ParamSpec("P")

IGNORE = -100  # no class or no kernel: the `ignore_index` that is torch's default
VOID_PENALTY = -99999.0  # the official code's sampling logit of void pixels, drawn only when nothing else is left


def in_float32(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """The same function without autocast, its half-precision arguments converted to float32 (float64 stays).

    Sums over the pixels of an image overflow in float16, and lose small masks in bfloat16.
    """

    def lift(value: object) -> object:
        half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
        return value.float() if half else value  # type: ignore[attr-defined]

    @wraps(function)
    def lifted(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        device = next((a.device.type for a in (*args, *kwargs.values()) if isinstance(a, Tensor)), "cpu")
        with torch.autocast(device, enabled=False):
            return function(*map(lift, args), **{name: lift(value) for name, value in kwargs.items()})  # type: ignore[arg-type]

    return lifted


@in_float32
def focal_loss(logits: Tensor, targets: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Class loss L_cls: sigmoid focal loss (Lin et al., ICCV 2017), summed. (...,K) logits, (...,K) of 0 or 1 -> ()

    The caller divides by the number of targets. A kernel without a segment has a row of zeros.
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    p = logits.sigmoid()
    wrong = p + targets - 2 * p * targets  # 1 - p where the target is 1, p where it is 0
    weight = (1 - alpha) + (2 * alpha - 1) * targets
    return (weight * wrong**gamma * cross_entropy).sum()


@in_float32
def mask_loss(logits: Tensor, masks: Tensor, count: float | None = None) -> Tensor:
    """Mask loss L_mask: binary cross entropy, mean over masks and pixels. (M,h,w) logits, (M,h,w) in 0..1 -> ()

    Masks may be soft, as a low-resolution pixel at the edge of a segment belongs to it only in part. `count` replaces M
    as the number of masks to divide by: a part of a batch divides by the mean number of its parts, see `Counts`.
    """
    total = F.binary_cross_entropy_with_logits(logits, masks.to(logits.dtype), reduction="sum")
    return total / (max(1, len(logits)) if count is None else count) / logits.shape[1:].numel()


@in_float32
def dice_loss(logits: Tensor, masks: Tensor, count: float | None = None, *, eps: float = 1e-3) -> Tensor:
    """Dice loss L_dice (V-Net form, squares below), mean over masks. (M,h,w) logits, (M,h,w) in 0..1 -> () in 0..1

    Unlike in the mask loss, every mask counts the same whatever its size. `eps` is added to each of the two sums.
    `count`: see `mask_loss`.
    """
    p, t = logits.sigmoid().flatten(1), masks.to(logits.dtype).flatten(1)
    overlap = 2 * (p * t).sum(1)
    sizes = p.square().sum(1) + t.square().sum(1) + 2 * eps
    return (1 - overlap / sizes).sum() / (max(1, len(p)) if count is None else count)


@in_float32
def rank_loss(logits: Tensor, owners: Tensor) -> Tensor:
    """Rank loss L_rank: the kernels compete for each pixel. (B,N,h,w) logits, (B,h,w) int64 kernel or IGNORE -> ()

    Cross entropy over the N kernels: the one that owns a pixel should have the highest logit there. The mean is over
    all pixels; ignored ones count as zeros. Where kernels are classes it is K-Net's semantic loss.
    """
    return F.cross_entropy(logits, owners, ignore_index=IGNORE, reduction="sum") / max(1, owners.numel())


@in_float32
def semantic_loss(logits: Tensor, labels: Tensor, *, share: float = 0.2) -> Tensor:
    """Auxiliary semantic loss L_seg: bootstrapped cross entropy. (B,K,h,w) logits, (B,h,w) int64 or IGNORE -> ()

    Only the hardest `share` of the batch's pixels counts. The paper calls the loss weighted, as in DeeperLab (Yang et
    al., 2019); the official code has no weights, and divides the sum over the chosen pixels by the number of all
    labelled ones, so the value is about `share` times a mean over the chosen.

    The pixels are chosen among those of all processes, whose parts have equal shapes; the mean of their values is the
    loss of the whole batch. (The official code chooses in each process alone, so its loss depends on their number.)
    """
    losses = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none").flatten()
    chosen = int(share * losses.numel() * world())
    hardest = losses.topk(min(chosen, losses.numel())).values
    if world() > 1 and chosen:
        hardest = hardest * (hardest >= gather(hardest).topk(chosen).values[-1])
    labelled = mean_over_processes((labels != IGNORE).sum().to(losses.dtype))
    return hardest.sum() / labelled.clamp(min=1 / world())


@in_float32
def instance_discrimination_loss(
    features: Tensor, masks: Tensor, noise: Tensor | None = None, *, pixels: int = 4096, temperature: float = 0.3
) -> Tensor:
    """Instance discrimination loss L_inst: pixels of one segment should look alike, others not (Eq. 11). -> ()

    For each of `pixels` drawn pixels an image, the cross entropy between softmax(similarity to all drawn pixels /
    temperature) and "the same segment", the pixel itself included. As in the official code, the similarity is the
    cosine (paper: the product), the mean over pixels is taken (paper: the sum), and stuff takes part as well.

    Args:
        features: (B,C,h,w)
        masks: (B,T,h,w) in 0..1, of which at most one exceeds 0.5 at a pixel.
        noise: (B,h*w) uniform in 0..1, decides which pixels are drawn; random if None.
    """
    segments = segment_index(masks).flatten(1)
    chosen = sample_pixels(segments, noise, masks.shape[1], pixels, temperature)
    losses = [
        _contrast(feature.index_select(1, index).T, segment[index], masks.shape[1], temperature)
        for feature, segment, index in zip(features.flatten(2), segments, chosen, strict=True)
    ]
    return torch.stack(losses).mean()


def segment_index(masks: Tensor) -> Tensor:
    """The segment that has more than half of a pixel. (B,T,h,w) in 0..1 -> (B,h,w) int64, t + 1, or 0 for none

    Exactly a half is none, as the official code rounds its masks half to even.
    """
    half = masks.new_full((len(masks), 1, *masks.shape[2:]), 0.5)
    return torch.cat([half, masks], dim=1).argmax(1)  # the first of equals wins


def sample_pixels(segments: Tensor, noise: Tensor | None, count: int, pixels: int, temperature: float) -> Tensor:
    """Pixels drawn without replacement, small segments favoured. (B,P) int64 0..count -> (B, min(pixels, P)) int64

    Gumbel top-k: the largest k of log weight - log(-log(u)) are k draws without replacement. A pixel's weight is
    (P / area of its segment) ** temperature. Void pixels are drawn only when nothing else is left.
    """
    B, P = segments.shape
    area = torch.zeros(B, count + 1, device=segments.device)
    area.scatter_add_(1, segments, torch.ones_like(segments, dtype=area.dtype))
    log_weights = temperature * torch.log(P / area.gather(1, segments)) + VOID_PENALTY * (segments == 0)
    uniform = torch.rand(B, P, device=segments.device) if noise is None else noise.to(segments.device)
    return (log_weights - torch.log(-torch.log(uniform))).topk(min(pixels, P), dim=1).indices


def _contrast(features: Tensor, segments: Tensor, count: int, temperature: float) -> Tensor:
    """Cross entropy of one image's pixels against "same segment". (P,C), (P,) int64 0..count -> ()

    A pixel's mean similarity to its segment is its product with the segment's mean, so no (P,P) target is needed.
    """
    features = F.normalize(features, dim=1) * temperature**-0.5  # so that products are similarity / temperature
    sums = features.new_zeros(count + 1, features.shape[1]).index_add(0, segments, features)
    sizes = features.new_zeros(count + 1).index_add(0, segments, torch.ones_like(features[:, 0]))
    means = sums / sizes.clamp(min=1)[:, None]
    positive = (features * means[segments]).sum(1)
    partition: Tensor = _LogPartition.apply(features)
    return ((partition - positive) * (segments > 0)).mean()


class _LogPartition(torch.autograd.Function):
    """log sum_j exp(x_i . x_j) for every row i. (P,C) -> (P,). Twice as fast as logsumexp, in a third of its memory.

    All products are at most 1 / temperature, so exp needs no shift against overflow; and exp(x x^T) is symmetric, so
    the backward pass needs no second (P,P) matrix.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        similar = (x @ x.T).exp_()
        total = similar.sum(1)
        ctx.save_for_backward(x, similar, total)
        return total.log()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x, similar, total = ctx.saved_tensors
        weight = (gradient / total)[:, None]
        plain, weighted = (similar @ torch.cat([x, weight * x], dim=1)).chunk(2, dim=1)
        return weight * plain + weighted
