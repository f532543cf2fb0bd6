"""Which frames of a video are taken: every so many, from a time on, up to a time."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TypeVar

from knet.errors import ConfigError, shown

T = TypeVar("T")
_ROUNDING = 1e-6  # seconds by which a time stamp may be off


@dataclass(frozen=True, slots=True)
class Span:
    """Every `every`-th frame from `start` on and before `end`, of each video.

    Start and end are seconds since the beginning where frames have time stamps, as in videos; of numbered images they
    are their numbers, and of others their places, from 0.

    Raises:
        ConfigError: a value is out of range.
    """

    every: int = 1
    start: float | None = None
    end: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.every, Integral) or isinstance(self.every, bool) or self.every < 1:
            raise ConfigError(f"Every which frame (--every) is a whole number from 1 on, not {shown(self.every)}.")
        for name, value in (("start", self.start), ("end", self.end)):
            if value is not None and (not isinstance(value, Real) or isinstance(value, bool) or not value >= 0):
                raise ConfigError(f"The {name} (--{name}) is a number of seconds from 0 on, not {shown(value)}.")
        if self.end is not None and self.end <= (self.start or 0):
            raise ConfigError(f"The end (--end {self.end:g}) is not after the start ({self.start or 0:g}).")

    def chosen(self, items: Iterable[T], position: Callable[[T], float]) -> Iterator[T]:
        """Those of the items whose position, which grows, is in the span; what comes after its end is not asked for."""
        inside = 0
        for item in items:
            at = position(item) + _ROUNDING
            if self.end is not None and at >= self.end:
                return
            if self.start is None or at >= self.start:
                if inside % self.every == 0:
                    yield item
                inside += 1
