"""Masks as polygons, for annotation tools: the outline to within a pixel, with few corners."""

from itertools import pairwise

import numpy as np
from contourpy import FillType, contour_generator

_SLACK = 0.75  # pixels; the stairs of a slanted outline are 0.71 deep
_NEAR = 0.01


def polygons(mask: np.ndarray, offset: tuple[int, int] = (0, 0)) -> list[list[int]]:
    """The outlines of a mask as COCO's polygons: flat lists x, y, x, y, ... (H,W) bool -> one for each piece

    COCO has no holes: the outline runs into each hole and back along the same line, which programs that fill polygons,
    COCO's own among them, draw as a hole. Coordinates count from the first pixel's corner, plus `offset` (x, y).
    """
    # Each pixel is seen at both of its sides, so that the line between two runs where they touch, with sharp corners.
    values = np.pad(mask, 1).repeat(2, axis=0).repeat(2, axis=1).astype(np.float32)
    columns, rows = (np.add.outer(np.arange(-1, side + 1), (_NEAR, 1 - _NEAR)).ravel() for side in mask.shape[::-1])
    lines = contour_generator(columns, rows, values, fill_type=FillType.OuterOffset).filled(0.5, 2.0)
    found = []
    for points, starts in zip(*lines, strict=True):
        outline, *holes = (_simpler(np.rint(points[start:end])) for start, end in pairwise(starts))
        for hole in holes:
            outline = _joined(outline, hole)
        found.append((outline[:-1] + offset).astype(int).ravel().tolist())
    return found


def _joined(outline: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """A closed ring with a way to another one, around it and back, from the corners that are nearest to each other."""
    distances = np.square(outline[:, None] - hole[None]).sum(-1)
    here, there = np.unravel_index(distances.argmin(), distances.shape)
    around = np.roll(hole[:-1], -there, axis=0)
    return np.concatenate([outline[: here + 1], around, around[:1], outline[here:]])


def _simpler(ring: np.ndarray) -> np.ndarray:
    """A closed ring without corners that lie within the slack of what is left (Douglas and Peucker)."""
    ring = ring[np.append(True, (ring[1:] != ring[:-1]).any(1))]
    far = int(np.square(ring - ring[0]).sum(1).argmax())
    kept, spans = {0, far, len(ring) - 1}, [(0, far), (far, len(ring) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        (x, y), between = ring[last] - ring[first], ring[first + 1 : last] - ring[first]
        length = np.hypot(x, y)
        distances = abs(between[:, 0] * y - between[:, 1] * x) / length if length else np.hypot(*between.T)
        if distances.max() > _SLACK:
            middle = first + 1 + int(distances.argmax())
            kept.add(middle)
            spans += [(first, middle), (middle, last)]
    return ring[sorted(kept)] if len(kept) > 3 else ring  # a single pixel is not to become a line
