"""What the video metrics get from two sets of files: pairs of frames, by video."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knet.data.files.io import name_some
from knet.errors import DataError
from knet.evaluation.panoptic_files import SegmentLike
from knet.structures import Category

FrameKey = tuple[int | str, int | str]
"""Sequence and frame; numbers are compared as numbers, however many zeros tools write."""


VideoFrame = tuple[str, str, Any, Any]
"""Sequence, name, truth and prediction: labels (H,W) int32, or (id map, segments) where a JSON file lists them."""


@dataclass(frozen=True, slots=True)
class Videos:
    """The videos that were found."""

    form: str  # "step", "panomasks", "vipseg" or "cityscapes-vps"
    listed: bool  # whether frames come with their segments
    categories: Sequence[Category]
    count: int
    frames: Callable[[], Iterator[VideoFrame]]


@dataclass(frozen=True, slots=True)
class FoundFrame:
    """Where a frame lies: one PNG, or the class's and the object's; and its segments, where a JSON file lists them."""

    sequence: str
    frame: object
    paths: tuple[Path, ...]
    segments: Sequence[SegmentLike] | None = None

    @property
    def name(self) -> str:
        """What errors call the frame."""
        return f"{self.sequence}/{self.frame}"


FoundFrames = dict[FrameKey, FoundFrame]


def pair_frames(truth: FoundFrames, predictions: FoundFrames, origin: str) -> list[tuple[FoundFrame, FoundFrame]]:
    """The truth and the prediction of each frame; an error begins with `origin`, where the predictions lie."""
    for one, other, fault in (
        (truth, predictions, "lacks {} of the truth; every frame needs a prediction."),
        (predictions, truth, "has {}, of which there is no truth; remove what is not to be evaluated."),
    ):
        lonely = [frame.name for key, frame in one.items() if key not in other]
        if lonely:
            names = name_some(lonely)
            what = f"the frame {names}" if len(lonely) == 1 else f"{len(lonely)} frames ({names})"
            raise DataError(f"{origin} {fault.format(what)}")
    return [(truth[key], predictions[key]) for key in truth]


def frame_key(name: object) -> int | str:
    """A frame's or a sequence's name as it is compared: "0002" and "2" are the same."""
    return int(str(name)) if str(name).isdecimal() and len(str(name)) < 20 else str(name)
