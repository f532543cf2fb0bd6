"""Resizing to the bit as OpenCV does it, which K-Net's images went through; networks notice the last bit."""

from __future__ import annotations

import torch
from torch import Tensor

_ONE = 2048  # OpenCV's weights are whole numbers of this part


def resize_as_opencv(image: Tensor, size: tuple[int, int]) -> Tensor:
    """cv2.resize, INTER_LINEAR, of 8-bit images. (3,H,W) uint8 -> (3,h,w) uint8

    Fixed-point arithmetic as there: first along rows, then along columns, where products lose their last bits one by
    one. Nothing is smoothed when the image shrinks.
    """
    top, bottom, upper, lower = _taps(image.shape[1], size[0], image.device)
    left, right, near, far = _taps(image.shape[2], size[1], image.device)
    # Along rows OpenCV gives a pixel beyond the edge no weight, along columns that of the edge's own: all the same
    # but for rounding, which only the columns' shorter numbers show.
    pixels = image.permute(1, 2, 0).int()  # colours side by side, as in files: whole pixels are copied
    rows = pixels.index_select(1, left).mul_(near[:, None])
    rows += pixels.index_select(1, right).mul_(far[:, None])
    rows >>= 4
    columns = rows.index_select(0, top).mul_(upper[:, None, None]).bitwise_right_shift_(16)
    columns += rows.index_select(0, bottom).mul_(lower[:, None, None]).bitwise_right_shift_(16)
    columns += 2
    columns >>= 2
    return columns.clamp_(0, 255).byte().permute(2, 0, 1)


def _taps(before: int, after: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The two pixels that each new one lies between, and their weights. -> (after,) int64, int64, int32, int32"""
    place = ((torch.arange(after, dtype=torch.float64) + 0.5) * (before / after) - 0.5).float()
    first = place.floor()
    share = place - first
    weights = ((1 - share) * _ONE).round().int(), (share * _ONE).round().int()
    first = first.long()
    ends = first.clamp(0, before - 1), (first + 1).clamp(0, before - 1)
    return ends[0].to(device), ends[1].to(device), weights[0].to(device), weights[1].to(device)
