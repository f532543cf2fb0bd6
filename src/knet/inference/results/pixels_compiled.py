"""`inference.results.pixels` compiled by Numba, in one pass over the pixels, without holding back other threads."""

import numpy as np

from knet.compiled import compiled


@compiled
def tint(picture: np.ndarray, id_map: np.ndarray, table: np.ndarray, objects: np.ndarray, width: int) -> None:
    """See `pixels.tint`."""
    height, across = id_map.shape
    void, border = np.uint32(len(table) - 2), np.uint32(len(table) - 1)
    above, row, below = np.empty(across, np.int32), np.empty(across, np.int32), np.empty(across, np.int32)
    edge = np.zeros(across, np.bool_)
    addends, weights = np.empty((across, 3), np.uint16), np.empty((across, 3), np.uint16)
    look_up(id_map[0], objects, row)
    above[:] = row
    for y in range(height):
        if y + 1 < height:
            look_up(id_map[y + 1], objects, below)
        else:
            below[:] = row
        find_edge(above, row, below, width, edge)
        for x in range(across):
            place = np.uint32(id_map[y, x])  # of a negative one it is large
            place = border if edge[x] else min(place, void)
            for channel in range(3):
                addends[x, channel] = table[place, channel]
                weights[x, channel] = table[place, 3]
        blend(picture[y].reshape(-1), weights.reshape(-1), addends.reshape(-1))
        above, row, below = row, below, above


@compiled
def look_up(ids: np.ndarray, values: np.ndarray, found: np.ndarray) -> None:
    """The value of each id; the last one for ids beyond the table. (W,), (n,) -> `found` (W,)"""
    last = np.uint32(len(values) - 1)
    for x in range(len(ids)):
        found[x] = values[min(np.uint32(ids[x]), last)]


@compiled
def find_edge(above: np.ndarray, row: np.ndarray, below: np.ndarray, width: int, edge: np.ndarray) -> None:
    """Where a row differs from the pixels above and to the left or, if `width` is 2, from all four neighbours."""
    for x in range(len(row)):
        edge[x] = row[x] != above[x]
    for x in range(1, len(row)):
        edge[x] |= row[x] != row[x - 1]
    if width > 1:
        for x in range(len(row)):
            edge[x] |= row[x] != below[x]
        for x in range(len(row) - 1):
            edge[x] |= row[x] != row[x + 1]


@compiled
def blend(values: np.ndarray, weights: np.ndarray, addends: np.ndarray) -> None:
    """Mixes a row of numbers, many at a time. (n,) uint8, uint16, uint16 -> `values`"""
    for i in range(len(values)):
        values[i] = np.uint8(np.uint16(np.uint16(values[i]) * weights[i] + addends[i]) >> np.uint16(8))


@compiled
def extents(id_map: np.ndarray, areas: np.ndarray, boxes: np.ndarray) -> bool:
    """Goes from run to run, as most pixels are inside a segment. (H,W) -> `areas` (n,), `boxes` (n,4)

    False if an id is not one of 0 .. n - 1.
    """
    height, across = id_map.shape
    boxes[:, 0], boxes[:, 1], boxes[:, 2:] = across, height, 0
    for y in range(height):
        start = 0
        for x in range(1, across + 1):
            if x < across and id_map[y, x] == id_map[y, start]:
                continue
            n = id_map[y, start]
            if not 0 <= n < len(areas):
                return False
            areas[n] += x - start
            box = boxes[n]
            box[0], box[1] = min(box[0], start), min(box[1], y)
            box[2], box[3] = max(box[2], x), y + 1
            start = x
    return True
