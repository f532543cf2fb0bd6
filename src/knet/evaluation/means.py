"""Means of figures, some of which may not exist."""

from collections.abc import Iterable


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the figures that exist, leaving out None and NaN; None where there are none."""
    present = [value for value in values if value is not None and value == value]
    return sum(present) / len(present) if present else None
