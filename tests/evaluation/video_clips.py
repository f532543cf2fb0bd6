"""Clips for the tests of the video metrics: seeded frames of a few classes in which numbered blocks move."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from knet.evaluation.video_labels import VOID, Maps
from knet.structures import Category

TABLE = [Category(i, name, i in (5, 9), (0, 0, i)) for i, name in ((2, "road"), (5, "car"), (7, "sky"), (9, "person"))]
STUFF, THINGS = (2, 7), (5, 9)

seeds = st.integers(0, 2**32 - 1)


def clip(seed: int, frames: int = 5, crowd: bool = True) -> list[Maps]:
    """A sequence's frames (12,16): stuff with moving blocks of things, number 0 among them if `crowd`, and void."""
    rng = np.random.default_rng(seed)
    blocks = [
        (rng.choice(THINGS), rng.integers(not crowd, 6), rng.integers(0, 12, 2), rng.integers(-2, 3, 2))
        for _ in range(5)
    ]
    made = []
    for frame in range(frames):
        classes = np.where(np.arange(12)[:, None] < rng.integers(3, 9), *STUFF[::-1]) + np.zeros((12, 16), np.int64)
        numbers = np.zeros_like(classes)
        for class_, number, place, speed in blocks:
            y, x = np.clip(place + frame * speed, 0, 12)
            classes[y : y + 4, x : x + 5], numbers[y : y + 4, x : x + 5] = class_, number
        classes[rng.random(classes.shape) < 0.05] = VOID
        numbers[classes == VOID] = 0
        made.append((classes.astype(np.uint8), numbers.astype(np.uint16)))
    return made


def renumbered(frames: list[Maps], seed: int) -> list[Maps]:
    """The same with other numbers of the objects, one for one, and 0 left where it is."""
    table = np.concatenate([[0], np.random.default_rng(seed).permutation(np.arange(65000, 65100))])
    return [(classes, table[numbers]) for classes, numbers in frames]
