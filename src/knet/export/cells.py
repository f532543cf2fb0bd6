"""Adaptive pooling over a grid of cells, in operations that every runtime has."""

import torch
from torch import Tensor


def cell_maxima(x: Tensor, cells: int, *sides: Tensor | int) -> Tensor:
    """The maxima over a grid of cells of so many rows and columns. (B,C,H,W) -> (B,C,n,n)

    Cells overlap if the sides are no multiples of n.
    """
    for axis, side in zip((2, 3), sides, strict=True):
        first, end = cell_edges(cells, side)
        longest = torch.arange((x.shape[axis] + cells - 1) // cells + 1)
        rows = torch.minimum(first[:, None] + longest, end[:, None] - 1)  # short cells repeat their last row
        x = x.index_select(axis, rows.flatten()).unflatten(axis, (cells, -1)).amax(axis + 1)
    return x


def cell_means(x: Tensor, cells: int, *sides: Tensor | int) -> Tensor:
    """The means over a grid of cells of so many rows and columns. (B,C,H,W) -> (B,C,n,n)"""
    rows, columns = (_shares(cells, n, side).to(x.dtype) for n, side in zip(x.shape[2:], sides, strict=True))
    return rows @ x @ columns.T


def _shares(cells: int, length: int, side: Tensor | int) -> Tensor:
    """The weight of each of `length` pixels in each cell, which add up to 1. -> (n,length)"""
    first, end = (edge[:, None] for edge in cell_edges(cells, side))
    position = torch.arange(length)
    inside = ((position >= first) & (position < end)).float()
    return inside / inside.sum(1, keepdim=True)


def cell_edges(cells: int, side: Tensor | int) -> tuple[Tensor, Tensor]:
    """Where the cells of an adaptive pooling begin and end (exclusive). -> (n,), (n,)"""
    number = torch.arange(cells)
    return number * side // cells, ((number + 1) * side + cells - 1) // cells
