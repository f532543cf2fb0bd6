"""What a video metric gets of two sets of files: pairs of frames, by video."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knet.errors import DataError
from knet.evaluation.panoptic_files import some
from knet.structures import Category

FrameKey = tuple[int | str, int | str]
"""Sequence and frame; numbers are compared as numbers, however many zeros tools write."""


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One frame of both sides: labels (H,W) int32, or (id map, segments) where a JSON file lists them."""

    sequence: str
    name: str
    truth: Any
    prediction: Any


@dataclass(frozen=True, slots=True)
class Videos:
    """What was found. form: "step", "panomasks", "vipseg" or "cityscapes-vps" · listed: frames come with segments."""

    form: str
    listed: bool
    categories: list[Category]
    count: int
    frames: Callable[[], Iterator[VideoFrame]]


@dataclass(frozen=True, slots=True)
class FoundFrame:
    """Where a frame lies: one PNG, or the class's and the object's."""

    sequence: str
    frame: str
    paths: tuple[Path, ...]

    @property
    def name(self) -> str:
        """What messages call the frame."""
        return f"{self.sequence}/{self.frame}"


def pair_frames(truth: dict[FrameKey, Any], found: dict[FrameKey, Any], told: str) -> list[tuple[Any, Any]]:
    """Truth and prediction of each frame, by sequence and frame. Raises: DataError if a side lacks some."""
    for one, other, why in (
        (truth, found, "lacks {} of the truth; every frame needs a prediction."),
        (found, truth, "has {}, of which there is no truth; remove what is not judged."),
    ):
        lonely = {key: row for key, row in one.items() if key not in other}
        if lonely:
            names = some(
                row.name if isinstance(row, FoundFrame) else "/".join(map(str, key)) for key, row in lonely.items()
            )
            what = f"the frame {names}" if len(lonely) == 1 else f"{len(lonely)} frames ({names})"
            raise DataError(f"{told} {why.format(what)}")
    return [(truth[key], found[key]) for key in truth]


def frame_key(name: object) -> int | str:
    """How the names of frames and sequences are compared: "0002" and "2" are the same."""
    return int(str(name)) if str(name).isdecimal() else str(name)
