"""Time stamps as trackers need them: how many frames have passed."""

from collections import deque
from collections.abc import Iterable
from statistics import median

_REMEMBERED = 31  # distances of frames whose median is the usual one


class Clock:
    """Counts frames by their time stamps, with those that are missing: called with a stamp, it gives the frame's time.

    The usual distance is the median of the last ones, so it follows a camera that changes its rate. Where stamps lack,
    or do not grow, each frame counts one.

    Args:
        steps: distances that are known beforehand, in seconds.
    """

    def __init__(self, steps: Iterable[float] = ()):
        self._steps = deque((step for step in steps if step > 0), maxlen=_REMEMBERED)
        self._last: float | None = None
        self._time = -1

    def __call__(self, seconds: float | None) -> int:
        """The frames since the first, for which it is 0."""
        passed, grown = 1, 0.0
        if seconds is not None and self._last is not None:
            grown = seconds - self._last
        if grown > 0:
            self._steps.append(grown)
            passed = max(round(grown / median(self._steps)), 1)
        self._last = seconds
        self._time += passed
        return self._time
