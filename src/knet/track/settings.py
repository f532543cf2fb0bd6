"""What users can set of the two trackers."""

from dataclasses import dataclass
from numbers import Integral, Real

from knet.errors import ConfigError, shown


@dataclass(frozen=True, slots=True)
class EmbeddingSettings:
    """Settings of the tracker by embeddings, for models that were trained on video. The defaults are Video K-Net's.

    Args:
        start: Score above which an object begins a track, 0..1.
        follow: Score above which an object continues a track, 0..1.
        likeness: Likeness of two embeddings above which they belong to the same object, 0..1.
        memory: Number of frames in a row without the object after which its track is forgotten, at least 1.

    Raises:
        ConfigError: A value is out of range.
    """

    start: float = 0.35
    follow: float = 0.3
    likeness: float = 0.5
    memory: int = 5

    def __post_init__(self) -> None:
        _check(self.memory, start=self.start, follow=self.follow, likeness=self.likeness)


@dataclass(frozen=True, slots=True)
class OverlapSettings:
    """Settings of the tracker by overlap, for any model that tells objects apart.

    Args:
        start: Score from which on an object begins a track, 0..1. None is 0.35 for instance models; a panoptic model
            has left out what is uncertain already, so all of its objects begin one.
        overlap: Least IoU of an object and a track's mask, moved on at constant speed, for the one to continue the
            other, 0..1.
        memory: Number of frames in a row without the object after which its track is forgotten, at least 1.

    Raises:
        ConfigError: A value is out of range.
    """

    start: float | None = None
    overlap: float = 0.1
    memory: int = 10

    def __post_init__(self) -> None:
        _check(self.memory, start=0.0 if self.start is None else self.start, overlap=self.overlap)


TrackerSettings = EmbeddingSettings | OverlapSettings


def _check(memory: int, **thresholds: float) -> None:
    for name, value in thresholds.items():
        if not isinstance(value, Real) or not 0 <= value <= 1:
            option = " (--track-start)" if name == "start" else ""
            raise ConfigError(f"The tracker's {name}{option} must be a number between 0 and 1, not {shown(value)}.")
    if not isinstance(memory, Integral) or memory < 1:
        raise ConfigError(
            f"The tracker's memory (--track-memory) must be a number of frames, at least 1, not {shown(memory)}."
        )
