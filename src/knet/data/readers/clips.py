"""Data sets whose images are the frames of clips, where an object keeps its number from frame to frame.

A segment's id says its class and its object: (label + 1) * 65536 + number, the same in all frames of a clip. The number
0 stands for stuff and for crowd regions of things, the id 0 for void. Each format's reader is a `ClipReader` in a file
of its own.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from knet.data.files.io import list_images, name_some, read_image, values_in
from knet.data.readers.reader import with_image, without_image
from knet.errors import DataError
from knet.structures import Category, Sample, SegmentInfo

NUMBERS = 65536
"""Object numbers of a clip are below this."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip: its name, the indices of its frames in the data set, in order, and the frames' numbers."""

    name: str
    frames: tuple[int, ...]
    numbers: tuple[int, ...]

    @property
    def step(self) -> int:
        """The usual difference between the numbers of neighbouring frames; 1 for a single frame."""
        steps = Counter(np.diff(self.numbers).tolist())
        return min(steps, key=lambda step: (-steps[step], step)) if steps else 1

    @property
    def missing(self) -> list[int]:
        """Numbers between the first and the last that no frame has, where frames come every `step`."""
        have, step = set(self.numbers), self.step
        return [
            number
            for before, after in zip(self.numbers, self.numbers[1:], strict=False)
            for number in range(before + step, after, step)
            if number not in have
        ]

    def neighbor(self, position: int, offset: int) -> int | None:
        """The index in the data set of the frame `offset` steps away from the one at `position`, None if there is none.

        Steps are counted in frame numbers, so frames on both sides of a gap are no neighbours.
        """
        wanted = self.numbers[position] + offset * self.step
        place = bisect_left(self.numbers, wanted)
        return self.frames[place] if self.numbers[place : place + 1] == (wanted,) else None


class FrameFiles(NamedTuple):
    """A frame: the name of its clip, its number there, its image and its ground truth, each None if there is none."""

    clip: str
    number: int
    image: Path | None
    truth: Path | None


class ClipReader:
    """What all readers of video data sets share: a `Reader` of frames that belong to `clips`; errors call it `where`.

    Frames come in any order and are sorted by clip and number. A format says in `_decode` what its ground truth means.
    """

    def __init__(self, frames: Sequence[FrameFiles], categories: Sequence[Category], where: str):
        if not frames:
            raise DataError(f"{where} holds no frames; give another folder or split.")
        self.categories = tuple(categories)
        self._frames = sorted(frames, key=lambda frame: (frame.clip, frame.number))
        places: dict[str, list[int]] = {}
        for index, frame in enumerate(self._frames):
            places.setdefault(frame.clip, []).append(index)
        self.clips = tuple(
            Clip(name, tuple(indices), tuple(self._frames[i].number for i in indices))
            for name, indices in places.items()
        )
        for one, other in zip(self._frames, self._frames[1:], strict=False):
            if one[:2] == other[:2]:
                raise DataError(
                    f"{where} has the frame {one.number} of {one.clip} twice; frames need their own numbers."
                )

    def __len__(self) -> int:
        return len(self._frames)

    def name(self, index: int) -> str:
        """Clip and frame number, such as "0003/000012"; unique in the data set."""
        frame = self._frames[index]
        return f"{frame.clip}/{frame.number:06d}"

    def gaps(self) -> list[str]:
        """A sentence for each clip in which frames are missing; the clip is read without them."""
        return [
            f"The clip {clip.name} has no frame {name_some(missing)}; frames on both sides of a gap are no neighbours."
            for clip in self.clips
            if (missing := clip.missing)
        ]

    def read(self, index: int) -> Sample:
        """Reads frame number `index` with its id map and segments."""
        image, frame = self.read_image(index), self._frames[index]
        return with_image(self.read_truth(index), image, frame.image, frame.truth)

    def read_image(self, index: int) -> np.ndarray:
        """Reads frame number `index` alone. -> (H,W,3) uint8 RGB"""
        path = self._frames[index].image
        if path is None:
            raise DataError(f"Frame {self.name(index)} has no image; give the folder of images as well.")
        return read_image(path)

    def read_truth(self, index: int) -> Sample:
        """Like `read`, with an empty image (0,0,3)."""
        frame = self._frames[index]
        if frame.truth is None:
            raise DataError(
                f"Frame {self.name(index)} has no ground truth; take a labelled split such as train or val."
            )
        return without_image(self.name(index), *self._decode(frame, frame.truth))

    def _decode(self, frame: FrameFiles, truth: Path) -> tuple[np.ndarray, list[SegmentInfo]]:
        """The id map and segments of a frame."""
        raise NotImplementedError


def make_id_map(
    labels: np.ndarray, numbers: np.ndarray, categories: Sequence[Category], crowds: bool = True
) -> tuple[np.ndarray, list[SegmentInfo]]:
    """Makes a map of the ids described above, and its segments. (H,W) labels, -1 = void, (H,W) numbers -> (H,W) int32

    Args:
        numbers: of objects; they do not count where the class is stuff.
        crowds: whether a thing's region with the number 0 is a crowd.
    """
    is_thing = np.array([False] + [category.thing for category in categories])
    kinds = labels.astype(np.int32) + 1
    id_map = kinds * NUMBERS + np.where(is_thing[kinds], numbers, 0).astype(np.int32)
    segments = []
    for id_ in values_in(id_map).tolist():
        if id_:
            label, number = split_id(id_)
            segments.append(SegmentInfo(id_, label, crowds and categories[label].thing and number == 0))
    return id_map, segments


def split_id(id_: int) -> tuple[int, int]:
    """The label and the object's number of a segment's id."""
    return id_ // NUMBERS - 1, id_ % NUMBERS


def look_up(values: np.ndarray, labels: dict[int, int], path: Path) -> np.ndarray:
    """Looks up the label of each pixel value, -1 for void. (H,W) integers -> (H,W) int32"""
    present = values_in(values)
    unknown = [value for value in present.tolist() if value not in labels]
    if unknown:
        raise DataError(
            f"{path} has the class value {name_some(unknown)}, which is neither a class of the table nor void; "
            "choose the table that belongs to this data set."
        )
    table = np.zeros(int(present.max()) + 1, np.int32)  # numpy's zeros cost nothing until touched
    table[present] = [labels[value] for value in present.tolist()]
    return table[values]


def check_numbers(numbers: np.ndarray, largest: int, path: Path, kind: str) -> None:
    """Refuses object numbers that a format cannot hold."""
    low, high = (int(numbers.min()), int(numbers.max())) if numbers.size else (0, 0)
    if low < 0 or high > largest:
        raise DataError(
            f"{path} would need the object number {high if high > largest else low}, but a {kind} holds "
            f"0 to {largest}; number the objects of each clip from 1."
        )


def refuse_lonely(images: Path, of_images: Iterable[Any], truths: Path, of_truths: Iterable[Any]) -> None:
    """Refuses frames that have an image and no ground truth, or the other way round."""
    first, second = set(of_images), set(of_truths)
    for has, lacks, frames in ((images, truths, first - second), (truths, images, second - first)):
        if frames:
            some = name_some(sorted(frames))
            raise DataError(f"{has} has the frame {some}, which {lacks} lacks; copy the data set again.")


def frames_below(folder: Path) -> dict[str, dict[int, str]]:
    """Finds the images in a folder of clip folders: clip -> frame number -> path relative to the folder.

    The number is the last one in the file's name: 12 of "000012.png" and of "frame_12.jpg".
    """
    found: dict[str, dict[int, str]] = {}
    for name in list_images(folder):
        clip, number = clip_and_number(folder, name)
        other = found.setdefault(clip, {}).setdefault(number, name)
        if other != name:
            raise DataError(f"{folder} has two frames {number} of {clip}, {other} and {name}; remove one.")
    return found


def clip_and_number(folder: Path, name: str) -> tuple[str, int]:
    """The clip, and the number in it, of a frame whose image lies at `name` in `folder`."""
    clip, number = PurePosixPath(name).parent.as_posix(), last_number(PurePosixPath(name).stem)
    if number is None or clip == ".":
        raise DataError(
            f"{folder / name} is no frame of a clip; put each clip into a folder of its own and number its frames."
        )
    return clip, number


def last_number(stem: str) -> int | None:
    """The last whole number in a text, None if there is none."""
    digits = "".join(char if char.isdecimal() and char.isascii() else " " for char in stem).split()
    return int(digits[-1]) if digits else None
