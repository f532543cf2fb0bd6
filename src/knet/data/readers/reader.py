"""What all readers of data sets have in common."""

from __future__ import annotations

from typing import Protocol

from knet.structures import Category, Sample


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
