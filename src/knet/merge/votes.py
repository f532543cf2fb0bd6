"""What pixels are by several views and several networks: the class that they agree on, or nothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from knet.merge.sorted import enlarge, to_image
from knet.preprocess import ImageSizes

_LEAST = 0.05  # what a kernel holds for less likely than this is never looked at


@dataclass(frozen=True, slots=True)
class KernelView:
    """What a network of kernels says of one view of an image."""

    mask_logits: Tensor  # (N,h,w)
    classes: Tensor  # (N,K) 0..1, see `kernel_classes`
    sizes: ImageSizes
    flipped: bool = False  # whether the view is the mirror image
    enlarged: int = 2  # see `enlarge`

    def present(self) -> list[int]:
        """The labels that some kernel holds for possible."""
        return (self.classes.amax(0) >= _LEAST).nonzero()[:, 0].tolist()

    def map_of(self, label: int) -> Tensor:
        """How likely each pixel is of a class: the best of the kernels' class x mask. -> (H,W) float32, 0..1"""
        kernels = self.classes[:, label] >= _LEAST
        if not kernels.any():
            return self.mask_logits.new_zeros(self.sizes.original, dtype=torch.float32)
        masks = enlarge(self.mask_logits[kernels], self.enlarged) * self.classes[kernels, label, None, None]
        best = to_image(masks, self.sizes)(masks.amax(0)).float()
        return best.flip(1) if self.flipped else best


def kernel_classes(class_logits: Tensor, stuff: Sequence[int]) -> Tensor:
    """How likely each kernel is of each class, 0 where `stuff` has kernels of its own and it cannot be. (N,K) -> 0..1

    The kernels of `stuff` come last, in the order of these labels, and mean nothing else.
    """
    classes = class_logits.float().sigmoid()
    if stuff:
        possible = torch.ones_like(classes, dtype=torch.bool)
        possible[:, list(stuff)] = False
        possible[-len(stuff) :] = False
        possible[range(-len(stuff), 0), list(stuff)] = True
        classes = classes * possible
    return classes


def best_of_kernels(views: Sequence[KernelView]) -> tuple[Tensor, Tensor]:
    """Each pixel's best class in the mean of all views of an image -> labels (H,W) int64, likelihoods (H,W) float32

    Pixels that no kernel holds for anything have the label -1.
    """
    size, device = views[0].sizes.original, views[0].mask_logits.device
    top = torch.zeros(size, device=device)
    labels = torch.full(size, -1, dtype=torch.int64, device=device)
    for label in sorted({label for view in views for label in view.present()}):
        mean = torch.zeros_like(top)
        for view in views:
            mean += view.map_of(label)
        mean /= len(views)
        labels[mean > top] = label
        top = torch.maximum(top, mean)
    return labels, top


def agreed(votes: Sequence[tuple[Tensor, Tensor]], share: float, score: float) -> Tensor:
    """The class that at least a `share` of all voters name, if they are sure of it. -> (H,W) int64, -1 = none

    Args:
        votes: labels (H,W) int64, of which -1 is none, and likelihoods (H,W) of every voter.
        share: above 0.5, so that two classes cannot both have it.
        score: what the likelihood must be in the mean of those that name the class.
    """
    labels, sure = torch.stack([vote[0] for vote in votes]), torch.stack([vote[1] for vote in votes])
    needed = math.ceil(share * len(votes) - 1e-6)
    result = torch.full_like(labels[0], -1)
    for named in labels[: len(votes) - needed + 1]:  # one of these is among any `needed` voters
        same = labels == named
        count = same.sum(0)
        kept = (named >= 0) & (count >= needed) & ((sure * same).sum(0) / count >= score)
        result = torch.where(kept, named, result)
    return result
