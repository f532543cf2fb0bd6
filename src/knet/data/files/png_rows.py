"""Undoes the row filters of a PNG with three bytes a pixel, compiled by Numba. For its owner's note see `png`.

The first byte of each row names its filter: none (0), or the difference to the pixel on the left (1), to that above
(2), to the mean of both (3), or to whichever of left, above and corner is nearest to left + above - corner (4, Paeth).
W3C, "Portable Network Graphics (PNG) Specification", section 9.
"""

import numpy as np

from knet.compiled import compiled

_PART = 192  # bytes, a multiple of 3


@compiled
def restore_rgb(lines: np.ndarray, pixels: np.ndarray) -> bool:
    """(H,1+3W) uint8 filtered rows -> `pixels` (H,3W) uint8; False if a row has a filter that PNG does not know."""
    above = np.zeros(pixels.shape[1], np.uint8)
    for y in range(pixels.shape[0]):
        if not restore_row(lines[y, 0], lines[y, 1:], above, pixels[y]):
            return False
        above = pixels[y]
    return True


@compiled
def restore_ids(lines: np.ndarray, ids: np.ndarray) -> bool:
    """(H,1+3W) uint8 filtered rows -> `ids` (H,W) int32, R + 256 G + 65536 B; False as `restore_rgb`."""
    rows = np.zeros((2, lines.shape[1] - 1), np.uint8)
    for y in range(ids.shape[0]):
        row = rows[y % 2]
        if not restore_row(lines[y, 0], lines[y, 1:], rows[1 - y % 2], row):
            return False
        for x in range(ids.shape[1]):
            ids[y, x] = np.int32(row[3 * x]) | np.int32(row[3 * x + 1]) << 8 | np.int32(row[3 * x + 2]) << 16
    return True


@compiled
def restore_row(kind: int, line: np.ndarray, above: np.ndarray, row: np.ndarray) -> bool:
    """One row: (3W,) filtered bytes and the row above -> `row` (3W,); False if there is no such filter."""
    if kind == 0:
        for i in range(row.size):
            row[i] = line[i]
    elif kind == 1:
        restore_left(line, row)
    elif kind == 2:
        for i in range(row.size):
            row[i] = line[i] + above[i]
    elif kind == 3:
        for i in range(3):
            row[i] = line[i] + (above[i] >> 1)
        for i in range(3, row.size):
            row[i] = line[i] + ((np.int32(row[i - 3]) + above[i]) >> 1)
    elif kind == 4:
        restore_nearest(line, above, row)
    else:
        return False
    return True


@compiled
def restore_left(line: np.ndarray, row: np.ndarray) -> None:
    """Filter 1. The channels are computed side by side, so that no sum has to wait for the one before."""
    r, g, b = np.uint8(0), np.uint8(0), np.uint8(0)
    for i in range(0, row.size, 3):
        r, g, b = np.uint8(r + line[i]), np.uint8(g + line[i + 1]), np.uint8(b + line[i + 2])
        row[i], row[i + 1], row[i + 2] = r, g, b


@compiled
def restore_nearest(line: np.ndarray, above: np.ndarray, row: np.ndarray) -> None:
    """Filter 4, part by part. Where differences are 0 and the row above does not change, the last pixel is repeated.

    This holds for most of an id map; in a photograph the check takes a tenth of the time.
    """
    left = corner = np.zeros(3, np.uint8)
    for start in range(0, row.size, _PART):
        end = start + _PART
        part, part_above, part_row = line[start:end], above[start:end], row[start:end]
        if start and goes_on(part, part_above, above[start - 3 : end - 3]):
            for i in range(0, part_row.size, 3):
                part_row[i], part_row[i + 1], part_row[i + 2] = left[0], left[1], left[2]
        else:
            restore_nearest_part(part, part_above, part_row, left, corner)
        left, corner = part_row[-3:], part_above[-3:]


@compiled
def goes_on(line: np.ndarray, above: np.ndarray, before: np.ndarray) -> bool:
    """Whether all filtered bytes are 0, and each byte above equals that of the pixel before."""
    found = np.uint8(0)
    for i in range(line.size):  # without an early end, so that it is compiled to vector instructions
        found |= line[i] | (above[i] ^ before[i])
    return found == 0


@compiled
def restore_nearest_part(
    line: np.ndarray, above: np.ndarray, row: np.ndarray, left: np.ndarray, corner: np.ndarray
) -> None:
    """Filter 4 after the pixel `left` (3,), above which is `corner` (3,); channels side by side as in filter 1."""
    r, g, b = np.int32(left[0]), np.int32(left[1]), np.int32(left[2])
    corner_r, corner_g, corner_b = np.int32(corner[0]), np.int32(corner[1]), np.int32(corner[2])
    for i in range(0, row.size, 3):
        above_r, above_g, above_b = np.int32(above[i]), np.int32(above[i + 1]), np.int32(above[i + 2])
        r = np.int32((nearest(r, above_r, corner_r) + line[i]) & 255)
        g = np.int32((nearest(g, above_g, corner_g) + line[i + 1]) & 255)
        b = np.int32((nearest(b, above_b, corner_b) + line[i + 2]) & 255)
        row[i], row[i + 1], row[i + 2] = r, g, b
        corner_r, corner_g, corner_b = above_r, above_g, above_b


@compiled
def nearest(left: int, above: int, corner: int) -> int:
    """Paeth's predictor: whichever of the three is nearest to left + above - corner; on a tie left, then above.

    Comparing 3 corner - left - above with the smaller and the larger of the two gives the same as three distances, but
    without a branch, which the processor would often predict wrongly in a photograph.
    """
    low, high = min(left, above), max(left, above)
    threshold = 3 * corner - left - above
    if threshold <= low:
        return high
    return low if high <= threshold else corner
