"""Masks as COCO's JSON files hold them: polygons, or the lengths of runs (RLE), as numbers or packed into a text.

All forms become packed RLE here: `{"size": [height, width], "counts": bytes}`. Runs go down the columns and start with
background. The pixels are those of pycocotools, whose successor faster-coco-eval does the work.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from faster_coco_eval import mask_api_new_cpp as runs
from faster_coco_eval.core import mask as masks

from knet.data.files.numbers import whole
from knet.data.files.pictures import MAX_PIXELS
from knet.errors import DataError

Rle = dict[str, Any]
"""A packed mask: `size` [height, width] and `counts` bytes."""

FARTHEST = 100_000.0  # pixels; drawing a polygon costs memory in proportion to its length


def pack_mask(mask: np.ndarray) -> Rle:
    """Packs a mask. (H,W) bool or integer, not 0 = object -> packed RLE"""
    return masks.encode(np.asfortranarray(mask != 0, np.uint8))


def unpack_mask(rle: Rle) -> np.ndarray:
    """Unpacks a mask. Packed RLE -> (H,W) bool"""
    return masks.decode(rle).astype(bool)


def run_lengths(rle: Rle) -> list[int]:
    """The lengths of the runs of a packed RLE: `counts` in files that do not pack it."""
    return [int(length) for length in runs.toUncompressedRLE([rle])[0]["counts"]]


def mask_area(rle: Rle) -> int:
    """The number of pixels of a packed mask."""
    return int(masks.area(rle))


def joint_area(rles: Sequence[Rle]) -> int:
    """The number of pixels that are in any of packed masks of one size."""
    return mask_area(masks.merge(rles)) if rles else 0


def mask_box(rle: Rle) -> list[float]:
    """The box [left, top, width, height] of a packed mask in pixels; all 0 if it is empty."""
    return masks.toBbox(rle).tolist()


def read_mask(segmentation: object, size: tuple[int, int], where: str) -> Rle:
    """Packs a mask that comes in any of COCO's forms or as an (H,W) array of bool or integers.

    A polygon of fewer than three corners covers no pixel, nor does a list without polygons; what lies outside the image
    is cut off. Polygons may be written as in `flat_polygons`, and RLE may be alone in a list. `size` is (height, width)
    of the image; `where` begins the sentences of errors.

    Raises:
        DataError: no such form, RLE of another size or with a wrong sum of runs, or corners that are no numbers or lie
            absurdly far out.
    """
    if size[0] * size[1] > MAX_PIXELS:  # before memory is taken for it
        most = f"at most {MAX_PIXELS // 10**6} million are read"
        raise DataError(f"{where}: its image has {size[0]}x{size[1]} (height x width) pixels; {most}.")
    if isinstance(segmentation, np.ndarray):
        if segmentation.shape != size or segmentation.dtype.kind not in "biu":
            told = f"{segmentation.shape} {segmentation.dtype}"
            raise DataError(f"{where}: the mask must be a {size} array of bool or whole numbers, not {told}.")
        return pack_mask(segmentation)
    if isinstance(segmentation, list) and len(segmentation) == 1 and isinstance(segmentation[0], dict):
        segmentation = segmentation[0]
    if isinstance(segmentation, list):
        return _draw(flat_polygons(segmentation), size, where)
    if isinstance(segmentation, dict):
        return _packed(segmentation, size, where)
    raise DataError(f"{where}: the segmentation is {_short(segmentation)}; give polygons or RLE (size and counts).")


def flat_polygons(given: list[Any]) -> list[Any]:
    """Polygons as COCO has them, x, y, x, y, ..., from polygons whose corners are pairs, or from one such alone."""
    given = [given] if len(given) > 2 and all(map(_is_corner, given)) else given
    return [
        [edge for corner in one for edge in corner] if isinstance(one, list) and all(map(_is_corner, one)) else one
        for one in given
    ]


def _is_corner(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def _draw(polygons: Sequence[Any], size: tuple[int, int], where: str) -> Rle:
    """All polygons of an object as one mask."""
    drawn: list[list[float]] = []
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) % 2 or not all(map(_is_number, polygon)):
            raise DataError(
                f"{where}: {_short(polygon)} is no polygon; give a list of polygons, each a flat list x, y, x, y, ... "
                "of numbers."
            )
        far = next((value for value in polygon if not abs(value) <= FARTHEST), None)  # NaN is far, too
        if far is not None:
            raise DataError(f"{where}: a polygon has a corner at {_short(far)}, far outside the image; give pixels.")
        if len(polygon) >= 6:  # fewer would be read as a box
            drawn.append([float(value) for value in polygon])
    if not drawn:
        return pack_mask(np.zeros(size, bool))
    return masks.merge(masks.frPyObjects(drawn, *size))


def _packed(segmentation: dict[str, Any], size: tuple[int, int], where: str) -> Rle:
    """RLE of both kinds, checked."""
    given, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(given, list | tuple) or list(given) != list(size):
        told = f"{_short(given)}, but its image [{size[0]}, {size[1]}] (height, width)"
        raise DataError(f"{where}: the RLE has the size {told}; write masks at the size of the image.")
    height, width = size
    if isinstance(counts, list):
        counts = [n if isinstance(n, int) or whole(n) is None else whole(n) for n in counts]  # 4.0 and "4" are 4
    if isinstance(counts, list) and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in counts):
        total = sum(counts)
        if total == height * width:
            return masks.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    elif isinstance(counts, str) and counts[:2] in ("b'", 'b"'):
        raise DataError(
            f"{where}: the counts of the RLE are {_short(counts)}, bytes as Python shows them; write counts.decode()."
        )
    elif isinstance(counts, str | bytes):
        rle: Rle = {
            "size": [height, width],
            "counts": counts.encode("utf-8", "replace") if isinstance(counts, str) else counts,
        }
        try:
            total = sum(runs.toUncompressedRLE([rle])[0]["counts"])
        except (RuntimeError, ValueError) as error:
            raise DataError(f"{where}: the counts of the RLE are damaged ({error}); write the file again.") from error
        if total == height * width:
            return rle
    else:
        raise DataError(f"{where}: the counts of the RLE are {_short(counts)}; give whole numbers, or packed text.")
    raise DataError(f"{where}: the runs of the RLE add up to {total} pixels, its image has {height * width}.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: object) -> str:
    return f"{value!r:.60}"
