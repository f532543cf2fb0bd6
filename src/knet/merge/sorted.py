"""From K-Net's masks and classes to results as in the official code: mmdet's chain of resizes, then K-Net's merging."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from knet.merge.panoptic import MergedMasks, best_class
from knet.merge.pixels.backend import backend
from knet.merge.pixels.stretch import Stretch, stretch
from knet.preprocess import ImageSizes


@dataclass(slots=True)
class Instances:
    """The M objects of an image, best first. They may overlap, and a kernel may give several, each of another class."""

    labels: Tensor  # (M,) int64
    scores: Tensor  # (M,) float32, 0 to 1
    kernels: Tensor  # (M,) int64
    masks: list[Any]  # M packed masks, None where an object has no pixel
    best: np.ndarray  # (H,W) int32, 1 + the first object that has the pixel, 0 = none


def enlarge(mask_logits: Tensor, times: int = 2) -> Tensor:
    """Mask probabilities on a grid `times` as fine: 2, or 4 in Video K-Net. (N,h,w) logits -> (N,...) 0..1 float32

    As in the official code the sigmoid comes here, between two resizes.
    """
    if not len(mask_logits):  # torch refuses to resize nothing
        return mask_logits.new_zeros((0, times * mask_logits.shape[1], times * mask_logits.shape[2])).float()
    size = [times * side for side in mask_logits.shape[1:]]
    return F.interpolate(mask_logits.float()[None], size, mode="bilinear", align_corners=False)[0].sigmoid()


def to_image(probabilities: Tensor, sizes: ImageSizes) -> Stretch:
    """From the grid of `enlarge`, (N,h,w), to the original image's pixels."""
    grid = (probabilities.shape[1], probabilities.shape[2])
    return stretch(grid, sizes.padded, sizes.original, crop=sizes.resized)


def panoptic_classes(
    class_logits: Tensor, stuff: Sequence[int], thing_candidates: int | None = None
) -> tuple[Tensor, Tensor]:
    """Every kernel's class where stuff has kernels of its own. (N,K) logits -> scores (N,) 0..1, labels (N,) int64

    The kernels of `stuff` come last, in the order of these labels; the others take their best thing class. Of these
    only kernels among the best `thing_candidates` of `best_instances` take part (Video K-Net: 100; None: all); the rest
    get the score 0 and win no pixel.
    """
    things = torch.tensor([label for label in range(class_logits.shape[1]) if label not in set(stuff)])
    things, stuff_labels = things.to(class_logits.device), torch.tensor(stuff, device=class_logits.device)
    count = len(class_logits) - len(stuff)
    thing_scores, best = best_class(class_logits[:count, things])
    if thing_candidates is not None:
        listed = torch.zeros_like(thing_scores, dtype=torch.bool)
        listed[best_instances(class_logits[:count, things], thing_candidates)[2]] = True
        thing_scores = thing_scores * listed
    stuff_scores = class_logits[count:].float().sigmoid().gather(1, stuff_labels[:, None])[:, 0]
    return torch.cat((thing_scores, stuff_scores)), torch.cat((things[best], stuff_labels))


def merge_sorted(
    probabilities: Tensor,
    scores: Tensor,
    labels: Tensor,
    things: Tensor,
    score: float,
    overlap: float,
    to_pixels: Stretch | None = None,
) -> MergedMasks:
    """Gives every pixel to one mask (K-Net's panoptic merging). (N,h,w) 0..1, (N,), (N,), (K,) bool -> MergedMasks

    Each pixel goes to the mask with the largest score x probability, whether that mask is kept or not. A mask is kept
    if it won at least `overlap` times as many pixels as have a probability of 0.5 or more in it, and if it is stuff or
    its score is at least `score`. The pixels of all others become void. `to_pixels` leads from the masks' grid to the
    pixels, see `to_image`; without it they are the same.

    The masks of the result are in order of falling score, so `number_segments` gives the best one the number 1. The
    official numbers start at 0, where category 0 x 1000 + number equals the value that the official evaluation takes
    for void: a person that is the best segment counts as void there. Here it does not.
    """
    merging = backend(probabilities.device)
    to_pixels = to_pixels or stretch((probabilities.shape[1], probabilities.shape[2]))
    owner, won, large = merging.share_pixels(probabilities, scores, to_pixels, logits=False)
    kept = (won > 0) & (large > 0) & (won.double() / large.clamp(min=1) >= overlap)
    kept &= ~things.to(labels.device)[labels] | (scores >= score)
    order = scores.argsort(descending=True, stable=True)
    rank = torch.where(kept, order.argsort(), -1).int()
    return MergedMasks(merging.relabel(owner, rank), (won * kept)[order], labels[order], scores[order], order)


def best_instances(class_logits: Tensor, count: int = 100) -> tuple[Tensor, Tensor, Tensor]:
    """The best `count` of all kernels with all classes. (N,K) logits -> scores (M,) 0..1, labels (M,), kernels (M,)"""
    scores, index = class_logits.float().sigmoid().flatten().topk(min(count, class_logits.numel()))
    classes = class_logits.shape[1]
    return scores, index % classes, index // classes


def instances(
    mask_logits: Tensor,
    class_logits: Tensor,
    sizes: ImageSizes,
    pack: Callable[[np.ndarray], Any],
    score: float = 0.0,
    count: int = 100,
) -> Instances:
    """The objects of an image, with masks where the probability exceeds 0.5. (N,h,w), (N,K) logits -> Instances

    Only one mask at a time exists at full size. At most `count` objects; those below `score` are left out. `pack` turns
    a mask (H,W) bool into what is stored.
    """
    scores, labels, kernels = best_instances(class_logits, count)
    good = scores >= score
    scores, labels, kernels = scores[good], labels[good], kernels[good]
    first: dict[int, int] = {}  # each kernel's best object: its others have the same mask and win no pixel
    for place, kernel in enumerate(kernels.tolist()):
        first.setdefault(kernel, place)
    probabilities = enlarge(mask_logits[list(first)])
    masks = backend(mask_logits.device).masks_above_half(probabilities, to_image(probabilities, sizes))
    best, packed = np.zeros(sizes.original, np.int32), {}
    for (kernel, place), mask in zip(first.items(), masks, strict=True):
        pixels = mask.cpu().numpy()
        packed[kernel] = pack(pixels) if pixels.any() else None
        best[pixels & (best == 0)] = place + 1
    return Instances(labels, scores, kernels, [packed[kernel] for kernel in kernels.tolist()], best)
