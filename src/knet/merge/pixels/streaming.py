"""Which mask owns each pixel, on the CPU and without any mask at full size; the results equal those of `plain`.

A bilinear resize never leaves the range of the values that it mixes. So on a tile of pixels that mix the same few
source values, the largest and the smallest of these bound a mask. A mask whose upper bound is below what another
surely reaches owns no pixel of the tile. Where one mask is left, no pixel has to be computed; elsewhere only the masks
that are left are (see `tile`). Numba compiles the loops at the first use and keeps the result on disk.

For the owner of this code. It assumes finite float32 masks, weights of 0 to 1 that sum to 1 (bilinear, not bicubic),
and that `_SLACK` covers the rounding of float32 bounds under Numba's fastmath flags (`compiled_any_order`). It pays:
`benchmarks/merge.py` measured 29.7 ms and 13 MB for 100 masks at 1024x2048, the original's way 12.6 s and 3.8 GB
(benchmarks/README.md, "From an image to its map"). When torch or Numba changes, tests/merge/pixels/test_streaming.py
fails first: `test_positions_are_those_of_torch` if torch resizes in another way,
`test_pixels_are_shared_as_by_the_plain_way` if a bound is too tight.
"""
# mypy: disable-error-code="no-untyped-def"
# (Numba's functions take arrays; their docstrings give shapes and dtypes.)

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from knet.compiled import compiled, compiled_any_order
from knet.merge.pixels.stretch import Axis, Stretch
from knet.merge.pixels.tile import contest, count_half, exact, mixing_weights

_SLACK = np.float32(1e-6)  # relative: bounds are float32, so two masks this close are both computed
_TINY = np.float32(1e-30)  # for smaller bounds rounding is no longer relative: all masks are computed
_ABOVE, _BELOW = np.float32(0.5) + _SLACK, np.float32(0.5) - _SLACK
_LONGEST = 32  # pixels along a side of a tile, so that its values fit the processor's cache
_PART = 2**17  # values of all masks in a part, which one thread takes at a time


def share_pixels(
    values: Tensor, scores: Tensor, stretch: Stretch, logits: bool, count: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """As `merge.pixels.plain.share_pixels`, with equal results and with as many threads as torch uses."""
    grid, scores = values.float().contiguous(), scores.float().contiguous()
    if not 0 < len(grid) == len(scores):
        raise ValueError(f"{len(scores)} scores of {len(grid)} masks share no pixels.")
    rows, columns = _tiles(stretch.rows, grid.shape[1]), _tiles(stretch.columns, grid.shape[2])
    owner = np.empty(stretch.size, np.int32)
    tables = stretch.rows.index, stretch.rows.weight, stretch.columns.index, stretch.columns.weight

    def share(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen = grid[:, part[0, 2] : part[-1, 3]]  # a part at a time, as all bounds would be as large as the masks
        bounds = (seen.sigmoid() if logits else seen).permute(1, 2, 0).contiguous()
        arrays = grid.numpy(), bounds.numpy(), scores.numpy()
        return _share(*arrays, tables, part, columns, int(part[0, 2]), logits, count, owner)

    threads = torch.get_num_threads()  # with several parts each, as some rows of a scene are busier than others
    smallest = -(-grid.numel() // _PART)  # an image of 24 million pixels has masks of 150 MB
    parts = np.array_split(rows, min(max(8 * threads, smallest), len(rows)))
    if threads == 1:
        counts = [share(part) for part in parts]
    else:
        with ThreadPoolExecutor(threads) as pool:
            counts = list(pool.map(share, parts))
    won, large = (np.sum(counted, axis=0) for counted in zip(*counts, strict=True))
    return torch.from_numpy(owner), torch.from_numpy(won), torch.from_numpy(large)


def masks_above_half(probabilities: Tensor, stretch: Stretch) -> Iterator[Tensor]:
    """As `merge.pixels.plain.masks_above_half`, with equal results."""
    rows, columns = _tiles(stretch.rows, probabilities.shape[1]), _tiles(stretch.columns, probabilities.shape[2])
    tables = stretch.rows.index, stretch.rows.weight, stretch.columns.index, stretch.columns.weight
    for map_ in probabilities.float().contiguous().numpy():
        mask = np.empty(stretch.size, np.bool_)
        _above_half(map_, tables, rows, columns, mask)
        yield torch.from_numpy(mask)


def relabel(owner: Tensor, numbers: Tensor) -> Tensor:
    """As `merge.pixels.plain.relabel`."""
    if not _relabel(owner.numpy(), numbers.numpy()):
        raise IndexError(f"Owners reach from {owner.min()} to {owner.max()}, and there are {len(numbers)} numbers.")
    return owner


def _tiles(axis: Axis, side: int) -> np.ndarray:
    """Cuts an axis where its pixels' source values, of which there are `side`, change.

    -> (n,4) int64: a tile's first pixel, its end, its first source value, their end
    """
    first, end = axis.index.min(axis=1), axis.index.max(axis=1) + 1
    if first.min() < 0 or end.max() > side:  # compiled code does not look
        raise IndexError(f"The table takes the value {end.max() - 1} of a side of {side}.")
    # Masks enlarged four times or more keep two source values for several pixels; others get up to five to a tile.
    widest = max(int((end - first).max()), 2 if len(first) >= 4 * (end.max() - first.min()) else 5)
    tiles, start = list[tuple[int, int, int, int]](), 0
    for pixel in range(1, len(first) + 1):
        if pixel == len(first) or end[pixel] - first[start] > widest or pixel - start == _LONGEST:
            tiles.append((start, pixel, int(first[start]), int(end[pixel - 1])))
            start = pixel
    return np.array(tiles, np.int64)


@compiled
def _share(values, bounds, scores, tables, rows, columns, offset, logits, count, owner):
    """Writes the owners in the given rows of tiles. -> how many pixels each mask won, and in how many it is large

    values (N,h,w), bounds (rows from `offset`,w,N), scores (N,) float32; tables of `Axis`, tiles of `_tiles`; owner
    (H,W) int32
    """
    masks, width = values.shape[0], values.shape[2]
    won, large = np.zeros(masks, np.int64), np.zeros(masks, np.int64)
    high, low = np.empty((width, masks), np.float32), np.empty((width, masks), np.float32)
    most, least, upper = np.empty(masks, np.float32), np.empty(masks, np.float32), np.empty(masks, np.float32)
    left = np.empty(masks, np.int64)
    # Work space for one tile.
    pixels = (rows[:, 1] - rows[:, 0]).max() * (columns[:, 1] - columns[:, 0]).max()
    cells = np.empty((rows[:, 3] - rows[:, 2]).max() * (columns[:, 3] - columns[:, 2]).max(), np.float32)
    weights, estimates = np.empty((len(cells), pixels), np.float32), np.empty((masks, pixels), np.float32)
    floor, close, winner = np.empty(pixels, np.float32), np.empty(pixels, np.int32), np.empty(pixels, np.int32)
    for row in rows:
        _extremes(bounds[row[2] - offset : row[3] - offset], high, low)
        for column in columns:
            pixels = (row[1] - row[0]) * (column[1] - column[0])
            reached = _bounds(high[column[2] : column[3]], low[column[2] : column[3]], scores, most, least, upper)
            mixed = False  # whether the weights are those of this tile
            for n in range(masks if count else 0):
                if least[n] >= _ABOVE:
                    large[n] += pixels
                elif most[n] >= _BELOW:
                    if not mixed:
                        mixing_weights(row, column, tables, weights)
                        mixed = True
                    large[n] += count_half(values[n], logits, row, column, tables, weights, cells, floor)
            possible = _possible(upper, reached, left)
            if possible == 1:
                owner[row[0] : row[1], column[0] : column[1]] = left[0]
                won[left[0]] += pixels
                continue
            if not mixed:
                mixing_weights(row, column, tables, weights)
            masks_left, room = left[:possible], (weights, cells, estimates, floor, close, winner)
            contest(values, scores, masks_left, logits, row, column, tables, room, owner)
            for y in range(row[0], row[1]):
                for x in range(column[0], column[1]):
                    won[owner[y, x]] += 1
    return won, large


@compiled
def _above_half(map_, tables, rows, columns, mask):
    """Writes into `mask` (H,W) bool where a map (h,w) float32 exceeds 0.5 on its pixels."""
    for row in rows:
        for column in columns:
            tile = map_[row[2] : row[3], column[2] : column[3]]
            most, least = tile.max(), tile.min()
            if least >= _ABOVE or most < _BELOW:
                mask[row[0] : row[1], column[0] : column[1]] = least >= _ABOVE
                continue
            for y in range(row[0], row[1]):
                for x in range(column[0], column[1]):
                    mask[y, x] = np.float32(exact(map_, tables, y, x)) > 0.5


@compiled
def _relabel(owner, numbers):
    """In place; False, and nothing has changed, if some owner has no number."""
    last = len(numbers) - 1
    least = most = last
    for y in range(owner.shape[0]):
        for x in range(owner.shape[1]):
            least, most = min(least, owner[y, x]), max(most, owner[y, x])
    if least < -1 or most > last or last < 0:
        return False
    for y in range(owner.shape[0]):
        for x in range(owner.shape[1]):
            owner[y, x] = numbers[owner[y, x]]  # -1 is the last
    return True


@compiled
def _extremes(bounds, high, low):
    """Largest and smallest over a few rows. (rows,w,N) -> (w,N), (w,N) in place"""
    for x in range(bounds.shape[1]):
        for n in range(bounds.shape[2]):
            high[x, n] = low[x, n] = bounds[0, x, n]
    for y in range(1, len(bounds)):
        for x in range(bounds.shape[1]):
            for n in range(bounds.shape[2]):
                value = bounds[y, x, n]
                high[x, n] = value if value > high[x, n] else high[x, n]
                low[x, n] = value if value < low[x, n] else low[x, n]


@compiled_any_order  # otherwise a maximum is no vector operation
def _bounds(high, low, scores, most, least, upper):
    """Largest, smallest and score x largest over a few columns, in place. (columns,N) -> (N,) each

    -> the score x probability that some mask reaches in every pixel
    """
    for n in range(len(scores)):
        most[n], least[n] = high[0, n], low[0, n]
    for x in range(1, len(high)):
        for n in range(len(scores)):
            most[n] = high[x, n] if high[x, n] > most[n] else most[n]
            least[n] = low[x, n] if low[x, n] < least[n] else least[n]
    reached = scores[0] * least[0]
    for n in range(len(scores)):
        upper[n] = scores[n] * most[n]
        value = scores[n] * least[n]
        reached = value if value > reached else reached
    return reached


@compiled
def _possible(upper, reached, left):
    """Writes the masks that may own a pixel into `left`, in order. -> how many"""
    limit = reached - abs(reached) * _SLACK
    everything = abs(limit) < _TINY
    count = 0
    for n in range(len(upper)):
        if everything or upper[n] + abs(upper[n]) * _SLACK >= limit:
            left[count] = n
            count += 1
    if count == 0:  # NaN: no mask reaches anything, and still each pixel gets one of them
        left[0], count = 0, 1
    return count
