"""Which mask owns each pixel, on a GPU and without any mask at full size; the results equal those of `plain`.

The idea is that of `streaming`, in Triton. Torch bounds every mask on every tile of pixels, and one program a tile
computes the masks that these bounds leave there. Nothing waits for the GPU.
"""
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import functools
import logging

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from knet.merge.pixels.plain import masks_above_half, relabel
from knet.merge.pixels.stretch import Axis, Stretch

__all__ = ["masks_above_half", "relabel", "share_pixels", "usable"]

_logger = logging.getLogger("knet")

_TILE = (16, 32)  # pixels
_SLACK, _TINY = 1e-6, 1e-30  # see `merge.pixels.streaming`
_POSSIBLE, _MIXED = 1, 2  # what bounds leave open for a mask on a tile: whether it wins pixels, how many are large


def share_pixels(
    values: Tensor, scores: Tensor, stretch: Stretch, logits: bool, count: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """As `merge.pixels.plain.share_pixels`, with equal results."""
    grid, scores = values.float().contiguous(), scores.float().contiguous()
    bounds = grid.sigmoid() if logits else grid
    (height, width), tables, sources = stretch.size, list[Tensor](), list[Tensor]()
    for axis, side in zip((stretch.rows, stretch.columns), _TILE, strict=True):
        index, weight, tiles = _on_device(axis, side, values.device)
        tables += [index, weight]
        sources.append(tiles)
    high, low = (
        _over_tiles(_over_tiles(bounds, sources[0], dim=1, most=most), sources[1], dim=2, most=most)
        for most in (True, False)
    )
    upper, lower = scores[:, None, None] * high, (scores[:, None, None] * low).amax(0)
    limit = lower - lower.abs() * _SLACK
    possible = (upper + upper.abs() * _SLACK >= limit) | (limit.abs() < _TINY)
    whole = low >= 0.5 + _SLACK
    mixed = ~whole & (high >= 0.5 - _SLACK) & count
    asked = (possible * _POSSIBLE + mixed * _MIXED).to(torch.int32).contiguous()

    rows, columns = (
        torch.tensor([min(tile, side - start) for start in range(0, side, tile)], device=values.device)
        for side, tile in zip(stretch.size, _TILE, strict=True)
    )
    large = (whole * count * rows[:, None] * columns).sum((1, 2))
    owner = torch.empty((height, width), dtype=torch.int32, device=values.device)
    _share[asked.shape[1:]](
        grid, scores, asked, *tables, owner, large,
        len(grid), grid.shape[1], grid.shape[2], height, width, asked.shape[1], asked.shape[2],
        LOGITS=logits, ROW_TAPS=tables[0].shape[1], COLUMN_TAPS=tables[2].shape[1], ROWS=_TILE[0], COLUMNS=_TILE[1],
        enable_fp_fusion=False,
    )  # fmt: skip
    return owner, torch.bincount(owner.flatten(), minlength=len(grid)), large


@functools.cache
def usable() -> bool:
    """Whether Triton can build and run its program here, for which it needs a C compiler. Warns if it cannot."""
    try:
        one = torch.ones(1, 1, 1, device="cuda")
        share_pixels(one, one[0, 0], Stretch(*[Axis(np.zeros((1, 1), np.int32), np.ones((1, 1)))] * 2), logits=True)
    except Exception as fault:  # from missing compilers to drivers
        _logger.warning("Triton does not work here, so masks are merged the slow way: %s", fault)
        return False
    return True


@functools.lru_cache(maxsize=64)
def _on_device(axis: Axis, side: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The table's indices and weights, and the source values of each tile: (tiles,span) int64, the last repeated."""
    starts = range(0, len(axis.index), side)
    first = np.array([axis.index[start : start + side].min() for start in starts], np.int64)[:, None]
    last = np.array([axis.index[start : start + side].max() for start in starts], np.int64)[:, None]
    tiles = np.minimum(first + np.arange((last - first).max() + 1), last)
    return tuple(torch.tensor(table, device=device) for table in (axis.index, axis.weight, tiles))  # type: ignore[return-value]


def _over_tiles(bounds: Tensor, sources: Tensor, dim: int, most: bool) -> Tensor:
    """The largest (or smallest) source value of each tile along an axis. (N,...) -> (N,...), that axis now of tiles"""
    result = bounds.index_select(dim, sources[:, 0])
    for place in range(1, sources.shape[1]):
        other = bounds.index_select(dim, sources[:, place])
        result = torch.maximum(result, other) if most else torch.minimum(result, other)
    return result


@triton.jit
def _share(
    values, scores, asked, row_index, row_weight, column_index, column_weight, owner, large,
    masks, grid_height, grid_width, height, width, tile_rows, tile_columns,
    LOGITS: tl.constexpr, ROW_TAPS: tl.constexpr, COLUMN_TAPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    tile_y, tile_x = tl.program_id(0), tl.program_id(1)
    y, x = tile_y * ROWS + tl.arange(0, ROWS), tile_x * COLUMNS + tl.arange(0, COLUMNS)
    in_rows, in_columns = y < height, x < width
    inside = in_rows[:, None] & in_columns[None, :]
    best = tl.full((ROWS, COLUMNS), float("-inf"), tl.float32)
    winner = tl.zeros((ROWS, COLUMNS), tl.int32)
    for n in range(masks):
        wanted = tl.load(asked + (n * tile_rows + tile_y) * tile_columns + tile_x)
        if wanted > 0:
            map_ = values + n * grid_height * grid_width
            value = tl.zeros((ROWS, COLUMNS), tl.float64)
            for column_tap in tl.static_range(COLUMN_TAPS):
                column = tl.load(column_index + x * COLUMN_TAPS + column_tap, in_columns, 0)
                mixed = tl.zeros((ROWS, COLUMNS), tl.float64)
                for row_tap in tl.static_range(ROW_TAPS):
                    row = tl.load(row_index + y * ROW_TAPS + row_tap, in_rows, 0)
                    source = tl.load(map_ + row[:, None] * grid_width + column[None, :]).to(tl.float64)
                    mixed += source * tl.load(row_weight + y * ROW_TAPS + row_tap, in_rows, 0.0)[:, None]
                value += mixed * tl.load(column_weight + x * COLUMN_TAPS + column_tap, in_columns, 0.0)[None, :]
            if LOGITS:
                value = 1.0 / (1.0 + tl.exp(-value))
            if wanted >= 2:
                tl.atomic_add(large + n, tl.sum(tl.sum((inside & (value.to(tl.float32) >= 0.5)).to(tl.int64), 1), 0))
            weighted = (value * tl.load(scores + n).to(tl.float64)).to(tl.float32)
            better = weighted > best
            best = tl.where(better, weighted, best)
            winner = tl.where(better, n, winner)
    tl.store(owner + y[:, None] * width + x[None, :], winner, inside)
