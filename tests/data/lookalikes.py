"""How many people of drawn frames look alike."""

from __future__ import annotations

import numpy as np

from knet.data.synthetic.moving import MovingFrame


def count_alike(frames: list[MovingFrame]) -> tuple[int, int]:
    """Mean colours of the persons of a frame: how many pairs are close to equal, how many are not."""
    alike = different = 0
    for frame in frames:
        colors = []
        for number, thing in enumerate(frame.objects, 1):
            mask = frame.numbers == number
            if thing.kind == "person" and frame.tracks[number] and mask.sum() >= 25:
                colors.append(frame.image[mask].mean(0))
        for i, one in enumerate(colors):
            for other in colors[:i]:
                close = np.abs(one - other).max() < 12
                alike, different = alike + close, different + (not close)
    return alike, different
