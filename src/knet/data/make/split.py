"""Puts some images aside for validation: by chance, but so that both sides have every class where that is possible."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np


def choose_validation(names: Sequence[str], classes: Sequence[set[str]], share: float, seed: int) -> set[int]:
    """The numbers of the images for validation; none if there is only one image. The same input gives the same result.

    Roboflow's copies of one photograph, a_jpg.rf.1f0c.jpg and the like, stay together.

    Args:
        names, classes: of each image its name, and the classes that it shows.
        share: of the images, 0 to 1.
    """
    groups: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        groups.setdefault(re.sub(r"\.rf\.[0-9A-Za-z]+(?=\.|$)", "", name), []).append(number)
    if len(groups) < 2 or share <= 0:
        return set()
    shown = {key: set().union(*(classes[number] for number in numbers)) for key, numbers in groups.items()}
    order = [list(groups)[place] for place in np.random.default_rng(seed).permutation(len(groups))]
    in_all = Counter(name for found in shown.values() for name in found)
    left, chosen = Counter(in_all), list[str]()

    def take(key: str) -> None:
        chosen.append(key)
        left.subtract(shown[key])

    def spare(key: str) -> bool:
        """Whether training keeps each of its classes of which there is more than one group."""
        return key not in chosen and all(left[name] > 1 or in_all[name] == 1 for name in shown[key])

    wanted = min(max(1, round(share * len(names))), len(names) - 1)
    for name in sorted(in_all, key=lambda name: (in_all[name], name)):
        if left[name] == in_all[name] > 1:
            key = next((key for key in order if name in shown[key] and spare(key)), None)
            if key is not None and len(chosen) < len(groups) - 1:
                take(key)
    # What training cannot spare of a class that it alone shows stays there; the second round takes it if it must.
    for allowed in (lambda key: spare(key) and all(in_all[name] > 1 for name in shown[key]), spare):
        for key in order:
            if sum(len(groups[one]) for one in chosen) < wanted and len(chosen) < len(groups) - 1 and allowed(key):
                take(key)
    if not chosen:
        take(order[0])
    return {number for key in chosen for number in groups[key]}
