"""From K-Net's masks and classes to results, as the official code does it (mmdet's chain of resizes, then K-Net's own
merging).
"""

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
    """Objects of an image; they may overlap. M objects, best first.

    `labels` (M,) int64 · `scores` (M,) float32 0..1 · `kernels` (M,) int64, the kernel that each comes from: one kernel
    may give several, with other classes · `masks` M packed masks, None where an object has no pixel · `best` (H,W)
    int32: 1 + the first object that has the pixel, 0 = none.
    """

    labels: Tensor
    scores: Tensor
    kernels: Tensor
    masks: list[Any]
    best: np.ndarray


def enlarge(mask_logits: Tensor, times: int = 2) -> Tensor:
    """Mask probabilities on a finer grid. (N,h,w) logits -> (N,times*h,times*w) 0..1 float32

    times: 2, but 4 in Video K-Net; there logits become probabilities before they are resized further.
    """
    if not len(mask_logits):  # which torch refuses to resize
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

    The last kernels are those of the `stuff` labels, one each, in that order; the others take their best thing class.
    thing_candidates: a candidate is a kernel with one thing class; things whose kernel is not among so many of the best
    candidates get the score 0, so that they win no pixel (Video K-Net: 100 candidates of 100 kernels, and a kernel may
    be in several).
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

    A pixel goes to the mask with the largest score x probability, whether that mask is kept or not. A mask is kept if
    the pixels it won are at least `overlap` of those where its probability is 0.5 or more, and if it is stuff or its
    score is at least `score`. The pixels of all others become void.

    `to_pixels` leads from the grid of the masks to the pixels, see `to_image`; without it they are the same.

    The masks of the result are in order of falling score, so `number_segments` gives the best kept one the number 1.
    The official numbers start at 0 instead, and category 0 x 1000 + number is then a map value equal to the one its
    evaluation takes for void: a person that is the best segment counts as void there. Here it does not.
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
    """The best pairs of kernel and class of an image. (N,K) logits -> scores (M,) 0..1, labels (M,), kernels (M,)

    Best first, M = `count` or all there are.
    """
    scores = class_logits.float().sigmoid().flatten()
    scores, index = scores.topk(min(count, len(scores)))
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
    """The objects of an image. (N,h,w), (N,K) logits -> Instances of the original size: where the probability is
    above 0.5

    There is never more than one mask at full size.

    Args:
        mask_logits: of the last stage, for one image.
        class_logits: of the last stage, for one image.
        sizes: of the image.
        pack: makes of a mask (H,W) bool what is kept, such as `knet.data.files.masks.pack_mask`.
        score: objects below are left out.
        count: the most objects.
    """
    scores, labels, kernels = best_instances(class_logits, count)
    good = scores >= score
    scores, labels, kernels = scores[good], labels[good], kernels[good]
    first: dict[int, int] = {}  # of a kernel's objects, the best: the others have the same mask and win no pixel
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
