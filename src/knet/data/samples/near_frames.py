"""Frames of a clip that are drawn and augmented together: a key frame and others near it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from knet.data.readers.clips import Clip
from knet.data.readers.mixture import Share
from knet.data.readers.reader import Reader, size_text
from knet.data.samples.batches import Draw
from knet.data.samples.transforms import Augmented, TrainAugmentation
from knet.errors import ConfigError, DataError
from knet.structures import Sample

TRIES = 100
# Numbers of their own keep these streams of luck apart from those of `batches`.
_FRAMES_STREAM, _REFERENCE_STREAM = 3, 4


class ClipSource(Reader, Protocol):
    """What every reader of a video data set offers (`ClipReader`)."""

    clips: tuple[Clip, ...]


@dataclass(slots=True)
class NearFramesDrawn:
    """Frames of a clip after augmentation, the key frame first, and their `indices` in the data set.

    `clip` is the number of their clip in the data set; `faults` are as those of an `Item`.
    """

    frames: list[Augmented]
    indices: tuple[int, ...]
    clip: int
    faults: dict[str, str]


class NearFrames:
    """Draws a key frame's neighbours and augments them all alike; its length is the number of possible key frames.

    Args:
        reader, augmentation, seed, skip: as in `TrainingSet`; the key frame decides on the window.
        offsets: how many frames away neighbours may be.
        count: how many of the neighbours that exist are drawn, each once.
        compatible: whether a frame's offset is drawn once for the whole run, as in Video K-Net's code.
    """

    def __init__(
        self,
        reader: ClipSource,
        augmentation: TrainAugmentation,
        seed: int,
        skip: int,
        offsets: Sequence[int],
        count: int,
        compatible: bool = False,
    ):
        if not 1 <= count <= len(offsets) or 0 in offsets:
            raise ConfigError(f"{count} neighbours at the offsets {list(offsets)} cannot be drawn; none may be 0.")
        self.things = [category.thing for category in reader.categories]
        self._reader, self._augmentation, self._seed, self._count = reader, augmentation, seed, count
        self._choices = _neighbors(reader.clips, offsets, count, seed if compatible else None)
        if not self._choices:
            raise ConfigError(
                f"No clip has a frame with {count} neighbours that are {', '.join(map(str, offsets))} frames away: "
                "training on videos needs longer clips."
            )
        self._skip = min(skip, len(self._choices) - 1)

    def __len__(self) -> int:
        return len(self._choices)

    @property
    def shares(self) -> Sequence[Share]:
        """All key frames, each as often as any other."""
        return (Share(len(self), len(self)),)

    def name(self, number: int) -> str:
        """What the key frame of sample `number` is called in messages."""
        return self._reader.name(self._choices[number].key)

    def draw(self, draw: Draw, useful: Callable[[list[Augmented]], bool]) -> NearFramesDrawn:
        """The frames of a draw, or those of another key frame where they are not `useful`.

        A `DataError` is raised after 100 draws in vain, or where more than `skip` have broken files or differ in size.
        """
        rng = np.random.default_rng([_FRAMES_STREAM, self._seed, draw.iteration, draw.position])
        faults: dict[str, str] = {}
        place = draw.image % len(self)
        for _ in range(TRIES + self._skip):
            clip, key, near = self._choices[place]
            chosen = rng.permutation(len(near))[: self._count]
            indices = (key, *(near[number] for number in chosen))
            place = int(rng.integers(len(self)))
            try:
                samples = [self._reader.read(index) for index in indices]
                _compare_sizes(samples)
            except DataError as fault:
                if len(faults) >= self._skip:
                    raise
                faults[self._reader.name(key)] = str(fault)
                continue
            if not self._has_common_object(samples):
                continue
            frames = self._augmentation.apply_to_all(samples, self.things, rng)
            if useful(frames):
                return NearFramesDrawn(frames, indices, clip, faults)
        raise DataError(
            f"{TRIES} times in a row near frames had no object in common, the last at {self._reader.name(key)}; "
            "check the objects' numbers, which must be the same in all frames of a clip, and the size of the crop."
        )

    def _has_common_object(self, samples: Sequence[Sample]) -> bool:
        """Whether another frame has an object of the key frame; asking first saves augmenting frames in vain."""
        objects = [
            {segment.id for segment in sample.segments if self.things[segment.label] and not segment.crowd}
            for sample in samples
        ]
        return any(objects[0] & other for other in objects[1:])


class _Choice(NamedTuple):
    clip: int
    key: int
    near: tuple[int, ...]


def _compare_sizes(samples: Sequence[Sample]) -> None:
    for sample in samples[1:]:
        if sample.image.shape != samples[0].image.shape:
            told = [f"{one.name} is {size_text(one.image.shape)}" for one in (samples[0], sample)]
            raise DataError(f"{' and '.join(told)} pixels; the frames of a clip must be of equal size.")


def _neighbors(clips: Sequence[Clip], offsets: Sequence[int], count: int, seed: int | None) -> list[_Choice]:
    """Every frame that has `count` neighbours as a key; with a seed one offset is drawn for each."""
    choices = []
    for number, clip in enumerate(clips):
        for position, frame in enumerate(clip.frames):
            allowed = offsets
            if seed is not None:
                rng = np.random.default_rng([_REFERENCE_STREAM, seed, frame])
                allowed = [offsets[int(rng.integers(len(offsets)))]]
            found = [clip.neighbor(position, offset) for offset in allowed]
            near = tuple(index for index in found if index is not None)
            if len(near) >= count:
                choices.append(_Choice(number, frame, near))
    return choices
