"""What all readers of data sets have in common."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from knet.data.files.io import name_some
from knet.errors import DataError, shown
from knet.structures import Category, Sample, SegmentInfo


class Reader(Protocol):
    """What every reader of a data set offers."""

    categories: tuple[Category, ...]

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What the image is called; unique in the data set."""
        ...

    def read(self, index: int) -> Sample:
        """Image, id map and segments."""
        ...


@dataclass(frozen=True, slots=True)
class Kernels:
    """How many segments of an image a model can learn.

    Attributes:
        count: its learned kernels; most models have 100.
        stuff: whether they are for stuff as well, or only for things.
    """

    count: int = 100
    stuff: bool = True

    def needed(self, segments: Iterable[SegmentInfo], categories: Sequence[Category]) -> int:
        """How many kernels an image's segments need: crowds and unknown classes (-1) need none."""
        learned = [segment.label for segment in segments if segment.label >= 0 and not segment.crowd]
        return sum(self.stuff or categories[label].thing for label in learned)


def without_image(name: str, id_map: np.ndarray, segments: list[SegmentInfo]) -> Sample:
    """The ground truth alone, with an empty image (0,0,3): evaluation needs no pixels."""
    return Sample(name, np.zeros((0, 0, 3), np.uint8), id_map, segments)


def with_image(truth: Sample, image: np.ndarray, path: Path | None, truth_path: Path | None) -> Sample:
    """The ground truth with its image (H,W,3)."""
    if truth.id_map.shape[-2:] != image.shape[:2]:
        raise DataError(
            f"{path} is {size_text(image.shape)} pixels but its ground truth ({truth_path}) is "
            f"{size_text(truth.id_map.shape[-2:])}; they must be equal."
        )
    return replace(truth, image=image)


def unknown_category(where: str, category: object, known: Iterable[int]) -> str:
    """The sentence about a category id of a JSON that no class has; `where` begins it."""
    has = f"it has {name_some(sorted(known))}"
    return (
        f"{where} has the category {shown(category)}, which the class table lacks ({has}); choose the table that "
        "belongs to this data set."
    )


def size_text(shape: tuple[int, ...]) -> str:
    """Width and height as people write them, of (height, width, ...)."""
    return f"{shape[1]}x{shape[0]}"
