"""Which mask owns each pixel, written to be read: what the fast versions equal, and what runs without them.

Values of pixels are float64 (see `stretch`), what is compared is rounded to float32: masks that the original's float32
would hardly tell apart are ties, which go to the first mask.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from knet.merge.pixels.stretch import Stretch


def share_pixels(
    values: Tensor, scores: Tensor, stretch: Stretch, logits: bool, count: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Gives every pixel to the mask with the largest score x probability there; on a tie to the first.

    Args:
        values: (N,h,w), N at least 1, finite: each mask's logits, or whatever is to be compared as it is.
        scores: (N,), 0 or more.
        stretch: from the grid of (h,w) to pixels (H,W).
        logits: whether the stretched values become probabilities by a sigmoid.
        count: whether `large` is wanted; it is 0 otherwise.

    Returns:
        `owner` (H,W) int32, index of a mask · `won` (N,) int64, the pixels that each mask owns · `large` (N,) int64,
        those where its probability is 0.5 or more.
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
    """Where each mask's stretched probability is above 0.5, one after the other. (N,h,w) -> (H,W) bool each"""
    for probability in probabilities:
        yield stretch(probability).float() > 0.5


def relabel(owner: Tensor, numbers: Tensor) -> Tensor:
    """Every pixel's new number, in the old one's place. (H,W) int32 -1 .. N-1, (N or more,) int32 -> (H,W) int32

    -1 takes the last number.
    """
    return owner.copy_(numbers[owner])
