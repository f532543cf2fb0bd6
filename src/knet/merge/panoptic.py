"""From masks and classes to one segment for each pixel: RT-K-Net's optimised post-processing (Algorithm 1)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from knet.merge.pixels.backend import backend
from knet.merge.pixels.stretch import stretch


@dataclass(slots=True)
class MergedMasks:
    """One owner for every pixel of an image, among the M masks that passed the score filter. A mask may own none."""

    owner: Tensor  # (H,W) int32, index of the mask that owns the pixel, -1 = void
    areas: Tensor  # (M,) int64, how many pixels each mask owns
    labels: Tensor  # (M,) int64
    scores: Tensor  # (M,) float, 0 to 1
    kernels: Tensor  # (M,) int64, the kernel that each mask comes from


def best_class(class_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Every kernel's best class. (N,K) logits -> scores (N,) 0..1 float32, labels (N,) int64

    Each class has a sigmoid of its own, so the classes of a kernel do not compete.
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

    Each pixel goes to the mask with the largest score x probability, on a tie to the first. A mask is kept if it won
    at least `overlap` times as many pixels as have a probability of 0.5 or more in it; the pixels of dropped masks
    become void. The areas are compared, not intersected, so a mask may also win pixels below 0.5.

    Args:
        mask_logits: on the feature map's grid of the padded image.
        scores, labels: of every mask, see `best_class`.
        size: height and width of the result, without padding.
        score: masks below it are dropped, except the best one, so a result is never empty.
        overlap: 0 makes every pixel void, as in the official code, whose published thresholds are never 0.
        padded: size of the padded image, for the padding to be cut off the masks. None stretches them straight to
            `size`, padding included, as the official code does; the published figures rest on that.
    """
    # Filtering first does not change the result, and spares the work on masks that could not be in it.
    keep = scores >= min(score, scores.max().item())
    if not keep.all():  # otherwise a needless copy, the largest piece of memory for a large image
        mask_logits, scores, labels = mask_logits[keep], scores[keep], labels[keep]

    grid, merging = (mask_logits.shape[1], mask_logits.shape[2]), backend(mask_logits.device)
    to_image = stretch(grid, size) if padded is None else stretch(grid, padded, size, crop=size)
    owner, won, large = merging.share_pixels(mask_logits, scores, to_image, logits=True)
    limit = overlap * large
    survives = (won > 0) & (limit > 0) & (won >= limit)
    numbers = torch.where(survives, torch.arange(len(labels), device=labels.device), -1).int()
    return MergedMasks(merging.relabel(owner, numbers), won * survives, labels, scores, keep.nonzero()[:, 0])


def number_segments(merged: MergedMasks, things: Tensor) -> tuple[Tensor, list[tuple[int, int, float]], dict[int, int]]:
    """Numbers segments 1, 2, ...: a thing is one mask, a segment of stuff all masks of its class. `things`: (K,) bool

    Returns:
        The id map (H,W) int32, 0 = void, in the memory of `owner`; for each segment, in order, its id, label and score
        (of stuff the highest of its masks'); and by id the kernel that it comes from (of stuff the last one).
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
        row = len(rows) if is_thing[label] else stuff_row.setdefault(label, len(rows))
        if row == len(rows):
            rows.append((row + 1, label, scores[mask]))
        else:
            rows[row] = (row + 1, label, max(rows[row][2], scores[mask]))
        segment_of_mask[mask], kernel_of[row + 1] = row + 1, kernels[mask]
    device = merged.owner.device
    return backend(device).relabel(merged.owner, segment_of_mask.to(device)), rows, kernel_of
