"""RT-K-Net's own way from an image to its map, written plainly from its description: what others are compared with.

The operations and their order are the original's: float32, PyTorch's default layout, masks by a 1x1 convolution for
each image (which leaves them channels-last), all masks resized to the image before any is dropped, then copies at full
size for the sigmoid, the weighted scores, the winners as one-hot masks, the masks above one half, and an einsum that
writes the map. Also the scenes that benchmarks use, and how they are timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import knet.models.decoder
import knet.models.kernels

VOID = -1


def masks_by_convolution(kernels: Tensor, features: Tensor) -> Tensor:
    """Mask logits as the original makes them. (B,N,C), (B,C,h,w) -> (B,N,h,w)"""
    return torch.cat([F.conv2d(f[None], k[:, :, None, None]) for f, k in zip(features, kernels, strict=True)])


class OriginalNetwork:
    """A network run as the original is: default layout, float32, eager, masks by convolutions."""

    def __init__(self, net: nn.Module):
        self.net = net.float().to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(1,3,H,W) normalised -> mask logits (N,h,w), class logits (N,K)"""
        ours = knet.models.kernels.predict_masks
        for module in (knet.models.kernels, knet.models.decoder):
            module.predict_masks = masks_by_convolution  # type: ignore[attr-defined]
        try:
            last = self.net(images)[-1]
        finally:
            for module in (knet.models.kernels, knet.models.decoder):
                module.predict_masks = ours  # type: ignore[attr-defined]
        return last.mask_logits[0], last.class_logits[0]


def normalised(image: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(H,W,3) uint8 -> (1,3,H,W) float32, in the default layout"""
    x = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1))).float()
    return ((x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None])[None]


@torch.inference_mode()
def original_merge(
    mask_logits: Tensor,
    scores: Tensor,
    labels: Tensor,
    things: Tensor,
    size: tuple[int, int],
    score: float,
    overlap: float,
) -> Tensor:
    """From masks to the map. (N,h,w), (N,), (N,), (K,) bool -> (H,W) int64: label x 1000 + number, -1 = void"""
    masks = F.interpolate(mask_logits[None], size, mode="bilinear", align_corners=False)[0]
    keep = scores >= min(score, float(scores.max()))
    scores, labels, masks = scores[keep], labels[keep], masks[keep]
    probabilities = masks.sigmoid()
    winner = (scores[:, None, None] * probabilities).argmax(0)
    won = F.one_hot(winner, len(scores)).permute(2, 0, 1).bool()
    above = probabilities >= 0.5
    areas, own = won.sum((1, 2)), overlap * above.sum((1, 2))
    survives = (areas > 0) & (own > 0) & (areas >= own)
    numbers = torch.arange(len(scores), device=things.device) * things[labels]
    ids = (labels * 1000 + numbers + 1).float()[survives]
    return torch.einsum("n,nhw->hw", ids, won[survives].float()).long() + VOID


def scene(size: tuple[int, int], kept: int, seed: int = 0, masks: int = 100, classes: int = 19) -> tuple[Tensor, ...]:
    """Mask logits of a street that nobody saw, as a trained network would say them, with `kept` scores above 0.3.

    A Voronoi map of `kept` regions, larger at the bottom than at the horizon, whose borders are as soft as a trained
    network's (logits fall from +8 to -8 over about four cells), plus smooth noise and, for the masks that are not kept,
    faint copies of others.

    Returns:
        Mask logits (masks,H/8,W/8), class logits (masks,classes).
    """
    rng = np.random.default_rng(seed)
    h, w = size[0] // 8, size[1] // 8
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    centres = np.stack([h * rng.random(kept) ** 0.7, w * rng.random(kept)], 1).astype(np.float32)
    weight = rng.uniform(0.6, 1.6, kept).astype(np.float32)
    distance = np.stack([np.hypot(y - cy, x - cx) / k for (cy, cx), k in zip(centres, weight, strict=True)])
    order = np.sort(distance, axis=0)
    nearest, second = order[0], order[min(1, kept - 1)]
    logits = np.where(distance <= nearest, second - nearest, nearest - distance) * 2
    noise = rng.normal(0, 1, (masks, 1, h // 8 + 2, w // 8 + 2)).astype(np.float32)
    smooth = F.interpolate(torch.from_numpy(noise), (h, w), mode="bicubic")[:, 0]
    of_mask = np.concatenate([np.arange(kept), rng.integers(0, kept, masks - kept)]).astype(np.int64)
    tensor = torch.from_numpy(np.clip(logits, -12, 8))[torch.from_numpy(of_mask)] + 0.5 * smooth
    certain = np.concatenate([rng.uniform(0.35, 0.99, kept), rng.uniform(0.005, 0.25, masks - kept)])
    classes_logits = torch.full((masks, classes), -7.0)
    labels = torch.from_numpy(rng.integers(0, classes, masks))
    classes_logits[torch.arange(masks), labels] = torch.from_numpy(certain).float().logit()
    shuffle = torch.from_numpy(rng.permutation(masks))
    return tensor[shuffle].contiguous(), classes_logits[shuffle]


def keep_about(net: nn.Module, images: Tensor, kept: int, score: float = 0.3) -> None:
    """Moves the bias of a random network's classes so that `kept` of its masks are above the threshold for images.

    A random network is as sure of every mask; here the scores are spread (the last layer's weights are made larger)
    and shifted to the wanted number.
    """
    last = net.decoder.stages[-1].to_class[-1]  # type: ignore[union-attr,index]
    with torch.inference_mode():
        spread = net(images)[-1].class_logits[0].max(1).values.std()
    with torch.no_grad():
        last.weight.mul_(2.0 / max(float(spread), 1e-3))
        with torch.inference_mode():
            best = net(images)[-1].class_logits[0].max(1).values.sort(descending=True).values
        limit = float(torch.tensor(score).logit())
        middle = (best[min(kept, len(best)) - 1] + (best[kept] if kept < len(best) else best[-1] - 1)) / 2
        last.bias.add_(limit - float(middle))


def settle(net: nn.Module) -> None:
    """Gives the batch norms of a random network the statistics of activations, so that these stay in range."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 0.5
    net.train()
    with torch.no_grad():
        for _ in range(4):
            net(F.interpolate(torch.randn(2, 3, 12, 24), (192, 384), mode="bicubic"))
    net.eval()


def take_turns(ways: dict[str, Callable[[], object]], rounds: int, warm: int = 1) -> dict[str, dict[str, float]]:
    """Times each way in turn, so that a busy machine is busy for all of them.

    Returns:
        For each, the medians in milliseconds: "wall" of the clock and "cpu" of the processor.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(warm + rounds):
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            way()
            if turn >= warm:
                times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: {
            "wall": 1000 * statistics.median(t[0] for t in taken),
            "cpu": 1000 * statistics.median(t[1] for t in taken),
        }
        for name, taken in times.items()
    }
