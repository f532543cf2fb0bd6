"""A part of an image alone, and some classes alone."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from knet.data.files.masks import pack_mask, unpack_mask
from knet.errors import ConfigError, DataError, did_you_mean
from knet.inference.results.segmentation import Segmentation
from knet.structures import Category

Region = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom are exclusive


def class_ids(names: Sequence[str] | None, categories: Sequence[Category]) -> frozenset[int]:
    """The category ids of classes by name, in small or capital letters; None means all. ConfigError if unknown."""
    if names is None:
        return frozenset(category.id for category in categories)
    known = {category.name.casefold(): category.name for category in categories}
    wanted = {name.strip().casefold() for name in names}
    for name in names:
        if name.strip().casefold() not in known:
            hint = did_you_mean(name, known, f"its classes are: {', '.join(known.values())}.", shown=known.__getitem__)
            raise ConfigError(f"The model has no class '{name.strip()}' (--only); {hint}")
    return frozenset(category.id for category in categories if category.name.casefold() in wanted)


def only(result: Segmentation, ids: frozenset[int]) -> Segmentation:
    """The result with the segments of some categories alone; the pixels of others become void."""
    kept = [segment for segment in result.segments if segment.category in ids]
    numbers = [segment.id for segment in kept]
    masks = None if result.masks is None else {number: result.masks[number] for number in numbers}
    id_map = np.where(np.isin(result.id_map, numbers), result.id_map, 0)
    return replace(result, segments=kept, masks=masks, id_map=id_map)


def cropped(image: np.ndarray, region: Region | None) -> np.ndarray:
    """The part of an image that lies in the region; DataError if none does."""
    if region is None:
        return image
    left, top, right, bottom = region
    if left >= image.shape[1] or top >= image.shape[0]:
        raise DataError(
            f"The region {left},{top},{right},{bottom} (--region) lies outside of the image of {image.shape[1]} x "
            f"{image.shape[0]} pixels; give left, top, right and bottom within it."
        )
    return np.ascontiguousarray(image[top:bottom, left:right])


def placed(result: Segmentation, region: Region, size: tuple[int, ...]) -> Segmentation:
    """The result of a region at its place in the whole image of a size (height, width); around it all is void."""
    left, top = region[:2]
    height, width = result.id_map.shape

    def whole(pixels: np.ndarray) -> np.ndarray:
        image = np.zeros(size, pixels.dtype)
        image[top : top + height, left : left + width] = pixels
        return image

    segments = [
        replace(s, box=(s.box[0] + left, s.box[1] + top, s.box[2] + left, s.box[3] + top)) for s in result.segments
    ]
    masks = result.masks and {id_: pack_mask(whole(unpack_mask(rle))) for id_, rle in result.masks.items()}
    return replace(result, id_map=whole(result.id_map), segments=segments, masks=masks)
