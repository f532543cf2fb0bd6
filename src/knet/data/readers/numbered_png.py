"""16-bit PNGs that say class and object at once, as VIPSeg's and Cityscapes-VPS's do.

A pixel of a class is the class's value, one of an object is value * objects + number, where numbers start from 0. In
ids (see `clips`) an object's number is larger by 1, since 0 means there that nobody told objects apart.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from knet.data.files.io import read_labels, save_png
from knet.data.readers.clips import check_numbers, look_up, make_id_map
from knet.structures import Category, SegmentInfo


@dataclass(frozen=True, slots=True)
class NumberedPng:
    """A format of such PNGs.

    Attributes:
        kind: what errors call it.
        objects: how many objects of a class there can be.
        shift: what is added to a class's id to get its value.
        void: values that mean void; the first is written.
    """

    kind: str
    objects: int
    shift: int
    void: tuple[int, ...]

    def read(
        self, path: Path, ids: tuple[int, ...], categories: tuple[Category, ...]
    ) -> tuple[np.ndarray, list[SegmentInfo]]:
        """An id map (H,W) int32 and its segments; a thing's class without an object is a crowd.

        `ids` are those that the PNGs have for the classes.
        """
        values, labels = read_labels(path), _labels(self, ids, tuple(category.thing for category in categories))
        largest = max(*self.void, *(id_ + self.shift for id_ in ids))
        numbers = np.where(values > largest, values % self.objects + 1, 0)
        return make_id_map(look_up(values, labels, path), numbers, categories)

    def write(self, path: str | Path, labels: np.ndarray, numbers: np.ndarray, categories: Sequence[Category]) -> None:
        """Writes a PNG. (H,W) labels, -1 = void, (H,W) object numbers of things from 1 on, 0 = not told apart"""
        is_thing = np.array([category.thing for category in categories] + [False])  # the last is void's, label -1
        value = np.array([category.id + self.shift for category in categories] + [self.void[0]])
        told_apart = is_thing[labels] & (numbers > 0)
        check_numbers(np.where(told_apart, numbers, 0), self.objects, Path(path), self.kind)
        values = np.where(told_apart, value[labels] * self.objects + numbers - 1, value[labels])
        save_png(path, values.astype(np.uint16))


@functools.cache
def _labels(form: NumberedPng, ids: tuple[int, ...], things: tuple[bool, ...]) -> dict[int, int]:
    """The label of each pixel value, -1 for void."""
    labels = dict.fromkeys(form.void, -1) | {id_ + form.shift: label for label, id_ in enumerate(ids)}
    for label, (id_, thing) in enumerate(zip(ids, things, strict=True)):
        first = (id_ + form.shift) * form.objects
        if first and thing:
            labels |= dict.fromkeys(range(first, first + form.objects), label)
    return labels
