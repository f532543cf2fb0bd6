"""Colours as numbers, and PNGs whose channels were written blue first, as OpenCV's imwrite does with an RGB array."""

from collections.abc import Collection

import numpy as np

BLUE_FIRST = "its channels are in the order blue, green, red: write it anew as RGB (OpenCV's imwrite takes BGR)"


def is_blue_first(found: Collection[int], known: Collection[int | None]) -> bool:
    """Whether ids in a PNG, R + 256 G + 65536 B, are known only with red and blue exchanged; 0 is always known."""
    allowed = {0, *known}
    exchanged = {(id_ >> 16) | (id_ & 0xFF00) | (id_ & 0xFF) << 16 for id_ in found}
    return not allowed.issuperset(found) and allowed.issuperset(exchanged)


def pack_colors(colors: np.ndarray) -> np.ndarray:
    """Each colour as one number. (H,W,3) uint8 RGB -> (H,W) int32 R * 65536 + G * 256 + B"""
    packed = colors[..., 0].astype(np.int32)
    packed = (packed << 8) | colors[..., 1]
    return (packed << 8) | colors[..., 2]
