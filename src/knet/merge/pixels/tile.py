"""Which mask owns each pixel of one tile: pixels that mix the same few cells of every mask's grid.

Estimates in float32, computed for many pixels at once and with known bounds of their errors, decide most pixels; values
equal to those of `plain` decide the rest. All functions are compiled by Numba; their docstrings give the arrays.

For the owner of this code. `VALUE_ERROR`, `SIGMOID_ERROR` and `FLOOR` assume float32 with no more of Numba's fastmath
flags than nnan, nsz and contract (`compiled_any_order`), the few cells of a bilinear resize, and the series in
`estimate_sigmoid`. That it pays was measured together with `streaming` (see there). When Numba changes,
`test_estimates_are_as_close_as_is_said` in tests/merge/pixels/test_streaming.py fails first: it allows a third of these
errors. `test_pixels_are_shared_as_by_the_plain_way` fails if `exact` no longer equals `plain`.
"""
# mypy: disable-error-code="no-untyped-def"

import numpy as np

from knet.compiled import compiled, compiled_any_order

# The error of a value relative to the largest cell, and of a probability beyond what the error of its logit causes.
# Both are at least three times what was measured.
VALUE_ERROR, SIGMOID_ERROR = np.float32(4e-6), np.float32(1e-4)
SMALLEST, LARGEST = np.float32(1e-30), np.float32(1e30)  # below, rounding is not relative; above, sums may overflow
_FLAT = np.float32(20)  # beyond it a sigmoid changes by less than FLOOR
FLOOR = np.float32(1e-8)
_HALF_LOGIT, _HALF = -(2.0**-24), 0.5 - 2.0**-26  # the least logit and the least value that are 0.5 as float32


@compiled
def mixing_weights(row, column, tables, weights):
    """The weight of each cell in each pixel. Tiles of `streaming._tiles`, tables of `Axis` -> (cells,pixels) in place

    Pixels and cells are counted row by row.
    """
    row_index, row_weight, column_index, column_weight = tables
    cells_wide, wide = column[3] - column[2], column[1] - column[0]
    weights[: (row[3] - row[2]) * cells_wide, : (row[1] - row[0]) * wide] = 0
    for y in range(row[0], row[1]):
        for x in range(column[0], column[1]):
            pixel = (y - row[0]) * wide + x - column[0]
            for s in range(row_index.shape[1]):
                for t in range(column_index.shape[1]):
                    cell = (row_index[y, s] - row[2]) * cells_wide + column_index[x, t] - column[2]
                    weights[cell, pixel] += np.float32(row_weight[y, s] * column_weight[x, t])


@compiled
def gather(map_, row, column, cells):
    """Copies the cells of a map (h,w) that a tile mixes. -> the largest magnitude, infinity from LARGEST on"""
    largest, place = np.float32(0), 0
    for y in range(row[2], row[3]):
        for x in range(column[2], column[3]):
            cells[place] = map_[y, x]
            size = abs(map_[y, x])
            largest = max(largest, size if size < LARGEST else np.float32(np.inf))  # NaN is not smaller either
            place += 1
    return largest


@compiled_any_order
def estimate(cells, weights, count, pixels, values):
    """Pixel values, to VALUE_ERROR x the largest cell. (count,) cells, (count,pixels) -> (pixels,) in place"""
    for p in range(pixels):
        values[p] = cells[0] * weights[0, p]
    for c in range(1, count):
        for p in range(pixels):
            values[p] += cells[c] * weights[c, p]


@compiled_any_order
def estimate_sigmoid(values, pixels):
    """Turns logits into probabilities, to a relative SIGMOID_ERROR plus FLOOR. (pixels,) in place

    exp(-x) is computed as exp(-x / 256) ** 256, the inner one by a short series.
    """
    for p in range(pixels):
        x = values[p]
        x = _FLAT if x > _FLAT else x
        x = -_FLAT if x < -_FLAT else x
        z = x * np.float32(-1 / 256)
        e = np.float32(1) + z * (
            np.float32(1) + z * (np.float32(1 / 2) + z * (np.float32(1 / 6) + z * np.float32(1 / 24)))
        )
        for _ in range(8):
            e *= e
        values[p] = np.float32(1) / (np.float32(1) + e)


@compiled
def exact(map_, tables, y, x):
    """A pixel's value, in the order of operations of `Stretch`. -> float64"""
    row_index, row_weight, column_index, column_weight = tables
    value = 0.0
    for t in range(column_index.shape[1]):
        cell = column_index[x, t]
        mixed = np.float64(map_[row_index[y, 0], cell]) * row_weight[y, 0]
        for s in range(1, row_index.shape[1]):
            mixed += np.float64(map_[row_index[y, s], cell]) * row_weight[y, s]
        value = mixed * column_weight[x, t] if t == 0 else value + mixed * column_weight[x, t]
    return value


@compiled_any_order
def _surely_and_perhaps(values, pixels, limit, margin):
    """How many values surely exceed a limit, and how many may or may not."""
    surely = perhaps = 0
    above, below = limit + margin, limit - margin  # rounded once, so that no value falls between the two
    for p in range(pixels):
        surely += values[p] > above
        perhaps += (values[p] <= above) & (values[p] >= below)
    return surely, perhaps


@compiled
def count_half(map_, logits, row, column, tables, weights, cells, values):
    """In how many pixels of a tile the probability of a map (h,w), as float32, is 0.5 or more."""
    pixels = (row[1] - row[0]) * (column[1] - column[0])
    largest = gather(map_, row, column, cells)
    limit = _HALF_LOGIT if logits else _HALF
    margin = VALUE_ERROR * (largest + np.float32(1))
    perhaps, surely = pixels, 0
    if largest < LARGEST:
        estimate(cells, weights, (row[3] - row[2]) * (column[3] - column[2]), pixels, values)
        surely, perhaps = _surely_and_perhaps(values, pixels, np.float32(limit), margin)
    if perhaps == 0:
        return surely
    return _count_exactly(map_, limit, row, column, tables)


@compiled
def _count_exactly(map_, limit, row, column, tables):
    count = 0
    for y in range(row[0], row[1]):
        for x in range(column[0], column[1]):
            count += exact(map_, tables, y, x) >= limit
    return count


@compiled_any_order
def _highest(estimates, count, pixels, best):
    """The largest of several estimates. (count,pixels) -> (pixels,) in place"""
    for p in range(pixels):
        best[p] = estimates[0, p]
    for c in range(1, count):
        for p in range(pixels):
            best[p] = estimates[c, p] if estimates[c, p] > best[p] else best[p]


@compiled_any_order
def _close(estimates, count, pixels, floor, close, winner):
    """How many estimates reach a floor, and the last that does. (count,pixels), (pixels,) -> (pixels,) each in place"""
    for p in range(pixels):
        close[p] = winner[p] = 0
    for c in range(count):
        for p in range(pixels):
            near = estimates[c, p] >= floor[p]
            close[p] += near
            winner[p] = c if near else winner[p]


@compiled
def contest(values, scores, left, logits, row, column, tables, room, owner):
    """Gives each pixel of a tile to one of the masks `left` by the rule of `plain.share_pixels`. Writes into `owner`.

    values (N,h,w), scores (N,); room: the weights of `mixing_weights`, and work space: cells, estimates (N,pixels),
    floor, close and winner (pixels,).
    """
    weights, cells, estimates, floor, close, winner = room
    wide, pixels = column[1] - column[0], (row[1] - row[0]) * (column[1] - column[0])
    count = (row[3] - row[2]) * (column[3] - column[2])
    largest = top = margin = np.float32(0)
    for c in range(len(left)):
        n = left[c]
        size = gather(values[n], row, column, cells)
        largest, top = max(largest, size), max(top, scores[n])
        margin = max(margin, scores[n] * size * VALUE_ERROR)
        if not size < LARGEST:
            estimates[c, :pixels] = 0
            continue
        estimate(cells, weights, count, pixels, estimates[c])
        if logits:
            estimate_sigmoid(estimates[c], pixels)
        estimates[c, :pixels] *= scores[n]
    _highest(estimates, len(left), pixels, floor)
    # Each estimate is wrong by at most this much, so one that is further below the best than twice that cannot win.
    relative = SIGMOID_ERROR + VALUE_ERROR * largest if logits else np.float32(0)
    margin = (FLOOR * top if logits else margin) + SMALLEST
    for p in range(pixels):
        floor[p] = floor[p] - 2 * (relative * abs(floor[p]) + margin) if largest < LARGEST else -np.inf
    _close(estimates, len(left), pixels, floor, close, winner)
    for p in range(pixels):
        y, x = row[0] + p // wide, column[0] + p % wide
        if close[p] == 1:
            owner[y, x] = left[winner[p]]
            continue
        best, owner[y, x] = np.float32(-np.inf), left[0]
        for c in range(len(left)):
            if estimates[c, p] < floor[p]:
                continue
            value = exact(values[left[c]], tables, y, x)
            if logits:
                value = 1 / (1 + np.exp(-value))
            weighted = np.float32(np.float64(scores[left[c]]) * value)
            if weighted > best:
                best, owner[y, x] = weighted, left[c]
