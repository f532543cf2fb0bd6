"""Reads the text form of KITTI MOTS and MOTSChallenge, and writes its lines: one for each object in each frame.

A line is `frame object class height width rle`. An object keeps its number throughout the sequence; class 10 marks
regions that do not count, which are void here. Source: www.vision.rwth-aachen.de/page/mots.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from knet.data.categories import load_table
from knet.data.files.io import name_some, read_image_size
from knet.data.files.masks import Rle, read_mask, unpack_mask
from knet.data.readers.clips import NUMBERS, ClipReader, FrameFiles, frames_below
from knet.errors import DataError
from knet.parse import ParseError, read_lines
from knet.structures import Category, SegmentInfo

IGNORED_CLASS = 10


class MotsLine(NamedTuple):
    """An object in a frame: the frame's number, the object's, its class, the packed mask."""

    frame: int
    object: int
    category: int
    mask: Rle

    def __str__(self) -> str:
        """The line as the text has it, without its end."""
        (height, width), counts = self.mask["size"], self.mask["counts"]
        text = counts.decode() if isinstance(counts, bytes) else counts
        return f"{self.frame} {self.object} {self.category} {height} {width} {text}"


class Mots(ClipReader):
    """Sequences with MOTS text.

    Objects have the text's numbers. A frame without a line holds no object; sequences without a text are left out.

    Args:
        images: folder with a folder of frames for each sequence (KITTI's training/image_02); None reads the ground
            truth of the frames that have a line.
        annotations: folder of <sequence>.txt.
        categories: the classes in label order; None takes the table kitti_mots.
    """

    def __init__(
        self, images: str | Path | None, annotations: str | Path, categories: Sequence[Category] | None = None
    ):
        folder = Path(annotations)
        texts = sorted(folder.glob("*.txt")) if folder.is_dir() else []
        if not texts:
            raise DataError(f"{folder} holds no MOTS text; give the folder of <sequence>.txt files.")
        categories = load_table("kitti_mots").categories if categories is None else categories
        self._labels = {category.id: label for label, category in enumerate(categories)} | {IGNORED_CLASS: -1}
        of_images = None if images is None else frames_below(Path(images))
        self._lines: dict[tuple[str, int], list[MotsLine]] = {}
        frames = []
        for text in texts:
            for line in read_mots(text):
                if line.category not in self._labels:
                    raise DataError(
                        f"{text} has the class {line.category}, which the class table lacks; choose another table."
                    )
                self._lines.setdefault((text.stem, line.frame), []).append(line)
            numbers = [frame for clip, frame in self._lines if clip == text.stem]
            if images is None or of_images is None:
                frames += [FrameFiles(text.stem, number, None, text) for number in numbers]
                continue
            paths = of_images.get(text.stem, {})
            lacking = [number for number in numbers if number not in paths]
            if lacking:
                raise DataError(f"{Path(images) / text.stem} has no image of frame {name_some(lacking)} of {text}.")
            frames += [FrameFiles(text.stem, number, Path(images) / name, text) for number, name in paths.items()]
        super().__init__(frames, categories, str(folder))

    def _decode(self, frame: FrameFiles, truth: Path) -> tuple[np.ndarray, list[SegmentInfo]]:
        lines = self._lines.get((frame.clip, frame.number), [])
        if not lines:
            assert frame.image is not None  # frames without a line come from the images
            return np.zeros(read_image_size(frame.image), np.int32), []
        id_map = np.zeros(lines[0].mask["size"], np.int32)
        segments = []
        for line in lines:
            mask, label = unpack_mask(line.mask), self._labels[line.category]
            if mask.shape != id_map.shape or id_map[mask].any():
                raise DataError(f"{truth} has objects of frame {frame.number} that overlap or differ in size.")
            if label >= 0 and mask.any():
                id_ = (label + 1) * NUMBERS + line.object
                id_map[mask] = id_
                segments.append(SegmentInfo(id_, label))
        return id_map, segments


def read_mots(path: Path) -> list[MotsLine]:
    """Reads the lines of a MOTS text."""
    try:
        rows = read_lines(path)
    except (OSError, ParseError) as fault:
        raise DataError(f"The MOTS text {path} cannot be read ({fault}); copy or create the file again.") from fault
    lines = []
    for number, row in enumerate(rows, 1):
        parts = row.split()
        if not parts:
            continue
        where = f"{path}, line {number}"
        if len(parts) != 6 or not all(part.isdecimal() and len(part) < 10 for part in parts[:5]):
            raise DataError(f"{where} is {row!r:.60}; it must be: frame object class height width rle.")
        frame, object_, category, height, width = map(int, parts[:5])
        if not 0 <= object_ < NUMBERS:
            raise DataError(f"{where} has the object {object_}; objects go up to {NUMBERS - 1}.")
        mask = read_mask({"size": [height, width], "counts": parts[5]}, (height, width), where)
        lines.append(MotsLine(frame, object_, category, mask))
    return lines
