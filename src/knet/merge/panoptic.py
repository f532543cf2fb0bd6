"""From masks and classes to one segment for each pixel: RT-K-Net's optimised post-processing (Algorithm 1)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from knet.merge.pixels.backend import backend
from knet.merge.pixels.stretch import stretch


@dataclass(slots=True)
class MergedMasks:
    """One owner for every pixel of an image.

    `owner` (H,W) int32: index of the mask that has the pixel, -1 = void · `areas` (M,) int64: the pixels of each mask ·
    `labels` (M,) int64 and `scores` (M,) float of the masks that passed the score filter · `kernels` (M,) int64, the
    kernel that each mask comes from. A mask may own no pixel.
    """

    owner: Tensor
    areas: Tensor
    labels: Tensor
    scores: Tensor
    kernels: Tensor


def best_class(class_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Every kernel's best class. (N,K) logits -> scores (N,) 0..1 float32, labels (N,) int64

    Each class has its own sigmoid, so scores of different classes do not compete.
    """
    scores, labels = class_logits.float().sigmoid().max(dim=1)
    return scores, labels


def merge_panoptic(
    mask_logits: Tensor,
    scores: Tensor,
    labels: Tensor,
    size: tuple[int, int],
    score: float,
    overlap: float,
    padded: tuple[int, int] | None = None,
) -> MergedMasks:
    """Gives every pixel to one mask (Algorithm 1). (N,h,w) logits, (N,), (N,) -> MergedMasks of `size`

    A pixel goes to the mask with the largest score x probability; on a tie to the first. A mask is kept if the pixels
    it won are at least `overlap` of the pixels where its probability is 0.5 or more; the pixels of a mask that is not
    kept become void. The two areas are compared, not their intersection, so a mask may win pixels below 0.5.

    Args:
        mask_logits: on the feature map's grid of the padded image.
        scores, labels: best class of every mask, see `best_class`.
        size: height and width of the result, without padding.
        score: masks below are dropped. The best mask always stays, so there is never an empty result.
        overlap: 0 makes every pixel void (a fault of the official code that published thresholds never meet).
        padded: height and width of the padded image; the padding is cut away from the masks. None stretches them
            straight to `size`, padding and all, as in the official code, whose figures include that.
    """
    # Filtering first changes nothing in the result and saves looking at masks that nobody will see.
    keep = scores >= min(score, scores.max().item())
    if not keep.all():  # a copy of all masks of a large image would be what takes most memory
        mask_logits, scores, labels = mask_logits[keep], scores[keep], labels[keep]

    grid, merging = (mask_logits.shape[1], mask_logits.shape[2]), backend(mask_logits.device)
    to_image = stretch(grid, size) if padded is None else stretch(grid, padded, size, crop=size)
    owner, won, large = merging.share_pixels(mask_logits, scores, to_image, logits=True)
    limit = overlap * large
    survives = (won > 0) & (limit > 0) & (won >= limit)
    numbers = torch.where(survives, torch.arange(len(labels), device=labels.device), -1).int()
    return MergedMasks(merging.relabel(owner, numbers), won * survives, labels, scores, keep.nonzero()[:, 0])


def number_segments(merged: MergedMasks, things: Tensor) -> tuple[Tensor, list[tuple[int, int, float]], dict[int, int]]:
    """Numbers the segments 1, 2, ...: a thing is one mask, a segment of stuff all masks of its class.

    Args:
        merged: its `owner` is lost: the id map takes the place.
        things: (K,) bool, which classes are things.

    Returns:
        The id map (H,W) int32, 0 = void; for each segment, in order, its id, its label and its score (of stuff the
        highest of its masks' scores); and by id the kernel that it comes from (of stuff the last one).
    """
    labels, scores, is_thing = merged.labels.tolist(), merged.scores.tolist(), things.tolist()
    areas, kernels = merged.areas.tolist(), merged.kernels.tolist()
    segment_of_mask = torch.zeros(len(labels) + 1, dtype=torch.int32)  # the last entry serves the index -1: void
    rows: list[tuple[int, int, float]] = []
    kernel_of: dict[int, int] = {}
    stuff_row: dict[int, int] = {}
    for mask, label in enumerate(labels):
        if not areas[mask]:
            continue
        row = None if is_thing[label] else stuff_row.get(label)
        if row is None:
            row = len(rows)
            rows.append((row + 1, label, scores[mask]))
            if not is_thing[label]:
                stuff_row[label] = row
        rows[row] = (row + 1, label, max(rows[row][2], scores[mask]))
        segment_of_mask[mask], kernel_of[row + 1] = row + 1, kernels[mask]
    device = merged.owner.device
    return backend(device).relabel(merged.owner, segment_of_mask.to(device)), rows, kernel_of
