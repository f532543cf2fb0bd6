"""Reads clips of one's own: for each frame an image, a PNG of classes and a PNG of object numbers.

    images/walk/0001.jpg      labels/walk/0001.png      instances/walk/0001.png

A folder for each clip and a number or a time in each frame's name; the PNGs are those of `LabelFolder`.
"""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath

import numpy as np

from knet.data.categories import CategoryTable
from knet.data.files.stamps import frames_passed, read_stamps
from knet.data.readers.clips import NUMBERS, ClipReader, FrameFiles, check_numbers, clip_and_number, make_id_map
from knet.data.readers.label_folder import LabelFolder
from knet.structures import Category, SegmentInfo


class ClipFolder(ClipReader):
    """Clips of one's own.

    A label PNG says the class of each pixel (the table's values, or its colours). An instance PNG numbers the objects:
    the same number in all frames of the clip; 0 = not told apart, which makes a region of a thing's class a crowd.

    Args:
        images, labels, instances: folders with a folder for each clip, whose files pair up by name.
        categories: a class table, its name or its file.
    """

    def __init__(
        self,
        images: str | Path,
        labels: str | Path,
        instances: str | Path,
        categories: str | Path | CategoryTable | Sequence[Category],
    ):
        self._pictures = LabelFolder(images, labels, categories, instances)
        self._instances = Path(instances)
        frames = []
        self._places: dict[tuple[str, int], int] = {}
        names = [self._pictures.image_name(index) for index in range(len(self._pictures))]
        timed = _numbers_by_time(names)
        for index, name in enumerate(names):
            clip, number = clip_and_number(Path(images), name)
            number = timed.get(name, number)
            frames.append(FrameFiles(clip, number, Path(images) / name, Path(labels)))
            self._places[clip, number] = index
        super().__init__(frames, self._pictures.categories, str(images))

    def _decode(self, frame: FrameFiles, truth: Path) -> tuple[np.ndarray, list[SegmentInfo]]:
        place = self._places[frame.clip, frame.number]
        labels, numbers = self._pictures.read_label_map(place), self._pictures.read_instance_map(place)
        assert numbers is not None  # there are instances
        check_numbers(numbers, NUMBERS - 1, self._instances / self._pictures.name(place), "clip")
        return make_id_map(labels, numbers, self.categories)


def _numbers_by_time(names: Sequence[str]) -> dict[str, int]:
    """The numbers of frames whose names tell the time: how many frames have passed in their clip."""
    numbers: dict[str, int] = {}
    for _, group in groupby(sorted(names), lambda name: PurePosixPath(name).parent):
        clip = list(group)
        for stamps in read_stamps([PurePosixPath(name).stem for name in clip]) or ():
            passed = frames_passed([stamp.seconds for stamp in stamps])
            if passed is not None and len(stamps) == len(clip):
                numbers |= {clip[stamp.place]: number for stamp, number in zip(stamps, passed, strict=True)}
    return numbers
