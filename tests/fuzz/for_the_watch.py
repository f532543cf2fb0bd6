"""Cases that work, take the process with them, fail, and are refused: whether the watch sees each."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random


def prepare(_: Path) -> Callable[[Random], bool]:
    """See `fuzz`."""
    numbers = {Random(f"0/for_the_watch/{number}").random(): number for number in range(4)}

    def case(rng: Random) -> bool:
        number = numbers[rng.random()]
        if number == 1:
            os.abort()
        if number == 2:
            raise ValueError("a fault")
        return number == 3

    return case
