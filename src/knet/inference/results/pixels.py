"""Work on every pixel of an image, compiled by Numba if it is installed, otherwise by NumPy, with the same results."""

import numpy as np
from scipy import ndimage

from knet.compiled import optional

_COMPILED = "knet.inference.results.pixels_compiled"


def tint(picture: np.ndarray, id_map: np.ndarray, table: np.ndarray, objects: np.ndarray, width: int) -> None:
    """Colours every pixel by its id, and the borders of objects.

    A pixel becomes (pixel x weight + addend) / 256, rounded down, in each channel.

    Args:
        picture: (H,W,3) uint8, contiguous; it is changed.
        id_map: (H,W) int32.
        table: (n + 2, 4) uint16, a row for each id from 0: red, green and blue addend, and weight (0..256). The row
            before the last is for ids that are not in the table, the last one for borders.
        objects: (n + 1,) int32. Ids with the same number form one object; the last is for ids not in the table.
        width: of borders, 1 or 2 pixels; see `borders`.
    """
    fast = optional(_COMPILED)
    if fast is not None and picture.size:
        fast.tint(picture, np.require(id_map, np.int32, ("C", "W")), table, objects, width)
        return
    known = np.where((id_map < 0) | (id_map >= len(objects)), len(objects) - 1, id_map)
    rows = table[np.where(borders(objects[known], width), len(table) - 1, known)]
    picture[:] = (picture * rows[..., 3:] + rows[..., :3]) >> 8


def borders(objects: np.ndarray, width: int) -> np.ndarray:
    """Where a pixel differs from that to the left or above or, with a width of 2, from any neighbour. -> (H,W) bool"""
    edge = np.zeros(objects.shape, bool)
    across, down = objects[:, 1:] != objects[:, :-1], objects[1:] != objects[:-1]
    edge[:, 1:] |= across
    edge[1:] |= down
    if width > 1:
        edge[:, :-1] |= across
        edge[:-1] |= down
    return edge


def extents(id_map: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Area and box of each id. (H,W) int32 of 0 .. count -> (count + 1,) int64, (count + 1, 4) int64

    Boxes are left, top, right, bottom, the last two exclusive. The box of an id that does not occur has no meaning.
    """
    areas, boxes = np.zeros(count + 1, np.int64), np.zeros((count + 1, 4), np.int64)
    fast = optional(_COMPILED)
    if fast is not None:
        if not fast.extents(np.require(id_map, np.int32, ("C", "W")), areas, boxes):
            raise IndexError(f"The ids of a map reach from {id_map.min()} to {id_map.max()}, not from 0 to {count}.")
        return areas, boxes
    areas += np.bincount(id_map.ravel(), minlength=count + 1)
    for box, place in zip(boxes, ndimage.find_objects(id_map + 1, max_label=count + 1), strict=True):
        if place is not None:
            y, x = place
            box[:] = x.start, y.start, x.stop, y.stop
    return areas, boxes
