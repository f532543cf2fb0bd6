"""Which mask owns each pixel, written to be read: the reference of the fast versions, and what runs without them.

Pixel values are computed in float64 (see `stretch`) and rounded to float32 before they are compared. So masks that the
original's float32 could hardly distinguish are tied, and the first of them wins.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from knet.merge.pixels.stretch import Stretch


def share_pixels(
    values: Tensor, scores: Tensor, stretch: Stretch, logits: bool, count: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Gives every pixel to the mask with the largest score x probability there, on a tie to the first.

    Args:
        values: (N,h,w), N at least 1, finite: each mask's logits, or values to be compared as they are.
        scores: (N,), 0 or more.
        stretch: from the grid (h,w) to the pixels (H,W).
        logits: whether a sigmoid turns the resized values into probabilities.
        count: whether to count `large`, which is 0 otherwise.

    Returns:
        The mask that owns each pixel, (H,W) int32; how many pixels each owns (`won`), and in how many its probability
        is 0.5 or more (`large`), (N,) int64 each.
    """
    best, owner, large = torch.empty(0), torch.empty(0), list[Tensor]()
    for index, value in enumerate(values):
        probability = stretch(value).sigmoid() if logits else stretch(value)
        large.append((probability.float() >= 0.5).sum() * count)
        weighted = (scores[index].double() * probability).float()
        if not index:
            best, owner = weighted, torch.zeros_like(weighted, dtype=torch.int32)
            continue
        owner.masked_fill_(weighted > best, index)
        torch.maximum(best, weighted, out=best)
    return owner, torch.bincount(owner.flatten(), minlength=len(values)), torch.stack(large)


def masks_above_half(probabilities: Tensor, stretch: Stretch) -> Iterator[Tensor]:
    """Where the resized probability of each mask exceeds 0.5, one mask at a time. (N,h,w) -> (H,W) bool each"""
    for probability in probabilities:
        yield stretch(probability).float() > 0.5


def relabel(owner: Tensor, numbers: Tensor) -> Tensor:
    """Replaces every number in `owner` by `numbers[it]`, in place. (H,W) int32 -1..N-1, (N or more,) int32 -> (H,W)

    As an index, -1 takes the last of `numbers`.
    """
    return owner.copy_(numbers[owner])
