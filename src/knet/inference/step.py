"""Objects followed one frame a call, for loops that are not ours: a robot's, or OpenCV's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from numbers import Real

import numpy as np

from knet.errors import DataError, shown
from knet.inference.identities import VideoState
from knet.inference.results.segmentation import Segmentation
from knet.inference.sources.clock import Clock
from knet.inference.sources.images import Source, load_image

Step = Callable[[np.ndarray, VideoState, int, str], tuple[Segmentation, VideoState]]


class FrameTracker:
    """Follows objects through a video, one frame a call; made by `Segmenter.tracker`.

    It holds what one video needs from frame to frame, and nothing else does: several can use one segmenter in turn.
    """

    def __init__(self, step: Step):
        self._step = step
        self._state, self._clock, self._count = VideoState(), Clock(), 0
        self._last: float | None = None

    def __call__(self, frame: Source, time: float | None = None, name: str | None = None) -> Segmentation:
        """Segments the next frame and gives its objects their tracks.

        Args:
            frame: an image, see `Segmenter.__call__`; OpenCV's are BGR and need `frame[..., ::-1]`.
            time: when it was taken, in seconds on any clock that goes forward. Where frames were dropped, objects are
                expected to have moved on. Without it, frames are taken to come at equal distances.
            name: what the result is called; by default frame_000000 and so on.

        Returns:
            Its `Segmentation`. It keeps the image, to be drawn upon.

        Raises:
            DataError: the frame cannot be read, or the time is no number or goes back.
            PredictionError: as `Segmenter.__call__`. The next frame goes on from the one before.
        """
        image, seconds = load_image(frame), _seconds(time)
        if seconds is not None:
            if self._last is not None and seconds < self._last:
                raise DataError(
                    f"The frame of the time {seconds:.6f} comes after that of {self._last:.6f}; pass frames in order, "
                    "or call reset() where a new video begins."
                )
            self._last = seconds
        name, self._count = f"frame_{self._count:06d}" if name is None else name, self._count + 1
        result = self.next(image, self._clock(seconds), name)
        return replace(result, image=image)

    def next(self, image: np.ndarray, time: int, name: str) -> Segmentation:
        """The next frame, (H,W,3) uint8 RGB; `time` counts frames since the first, those that are missing, too."""
        result, self._state = self._step(image, self._state, time, name)
        return result

    def reset(self) -> None:
        """Forgets everything, as a new video begins."""
        self._state, self._clock, self._count, self._last = VideoState(), Clock(), 0, None


def _seconds(time: float | None) -> float | None:
    if time is None:
        return None
    if isinstance(time, bool) or not isinstance(time, Real) or not math.isfinite(time):
        raise DataError(f"The time of a frame is a number of seconds, not {shown(time)}.")
    return float(time)
