"""Videos as trackers need them, from files and cameras: every frame with its number and the sequence it belongs to."""

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from knet.data.readers.cityscapes_vps import frame_stem
from knet.errors import DataError
from knet.inference.sources.cameras import Camera, camera, read_camera
from knet.inference.sources.images import load_image
from knet.inference.sources.paths import SourceFile, expand_sources
from knet.inference.sources.videos import Item, read_video

_logger = logging.getLogger("knet")

Report = Callable[[DataError], None] | None
Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a video.

    Attributes:
        item: the image and where it comes from.
        sequence: the name of its video.
        number: that of its file, else counted from 0.
        time: frames since the first, counting those that are missing.
        first: whether the sequence begins here.
    """

    item: Item
    sequence: str
    number: int
    time: int
    first: bool


def open_stream(source: Any, on_error: Report = None, on_note: Note | None = None) -> Iterator[Frame]:
    """The frames of a source, one at a time and in order; memory does not grow with their number.

    A video file is a sequence. So is a folder of images, in the order of their numbers, or if they have names such as
    000002_000017_leftImg8bit, all images with the same first number. The images of a list, unless they are files, form
    one sequence.

    Args:
        source: a video file, a folder, a pattern, a webcam's number, an rtsp:// address, arrays or Pillow images, or a
            list of these.
        on_error: called when a file cannot be read or breaks off and when a camera ends, after the frames before; the
            next source follows. Without it the error is raised.
        on_note: called with a sentence about frames that a numbered folder lacks. Default: a warning of the
            logger `knet`.

    Raises:
        DataError: a source does not exist (at once), cannot be read, breaks off or ends (when its turn comes).
    """
    members = list(source) if isinstance(source, list | tuple) else [source]
    plan: list[Camera | SourceFile | tuple[int, Any]] = []
    named = set[Path]()  # a file named twice counts once
    for index, member in enumerate(members):
        device = camera(member)
        if device is not None:
            plan.append(device)
        elif isinstance(member, str | os.PathLike):
            files = expand_sources([Path(member)])
            plan += [file for file in files if file.path.absolute() not in named]
            named |= {file.path.absolute() for file in files}
        else:
            plan.append((index, member))
    return _frames(plan, on_error, on_note or _logger.warning)


def _frames(plan: Sequence[Any], on_error: Report, note: Note) -> Iterator[Frame]:
    def kind(entry: Camera | SourceFile | tuple[int, Any]) -> object:
        """Neighbours of the same kind form a sequence, or several if they are images of a folder."""
        if isinstance(entry, SourceFile) and not entry.video:
            return entry.path.parent
        return entry if isinstance(entry, Camera | SourceFile) else None

    for _, group in groupby(plan, kind):
        entries = list(group)
        first = entries[0]
        if isinstance(first, Camera):
            yield from _guarded(_as_sequence(read_camera(first), first.name), on_error)
        elif isinstance(first, SourceFile) and first.video:
            yield from _guarded(_as_sequence(read_video(first.path), first.path.stem), on_error)
        elif isinstance(first, SourceFile):
            yield from _images([entry.path for entry in entries], on_error, note)
        else:
            items = (Item(load_image(source), f"image_{index:06d}") for index, source in entries)
            yield from _guarded(_as_sequence(items, "images"), on_error)


def _as_sequence(items: Iterator[Item], name: str) -> Iterator[Frame]:
    for index, item in enumerate(items):
        yield Frame(item, name, index, index, first=not index)


def _guarded(frames: Iterator[Frame], on_error: Report) -> Iterator[Frame]:
    try:
        yield from frames
    except DataError as error:
        if on_error is None:
            raise
        on_error(error)


def _images(paths: list[Path], on_error: Report, note: Note) -> Iterator[Frame]:
    """The frames of a folder of images. One that cannot be read is treated like one that is missing."""
    for name, members in _sequences(paths):
        numbers, step = frame_times([number for _, number in members])
        for (before, after), (earlier, later) in zip(pairwise(members), pairwise(numbers), strict=True):
            if later - earlier > 1:
                gap = f"{later - earlier - 1} frames are missing" if later - earlier > 2 else "a frame is missing"
                note(f"'{name}': {gap} between '{before[0].name}' and '{after[0].name}'; tracking goes on.")
        first = True
        for (path, number), time in zip(members, numbers, strict=True):
            try:
                item = Item(load_image(path), path.stem, path)
            except DataError as error:
                if on_error is None:
                    raise
                on_error(error)
                continue
            yield Frame(item, name, time if step is None else number, time, first)
            first = False


def _sequences(paths: list[Path]) -> Iterator[tuple[str, list[tuple[Path, int]]]]:
    """The sequences among a folder's images: a name, and each image with the number in its name."""
    # In each video of Cityscapes-VPS one frame has another ending than the others.
    split = [re.split(r"(\d+)", frame_stem(path.name)) for path in paths]
    patterns = Counter(tuple(parts[::2]) for parts in split)
    plain = [(path, index) for index, path in enumerate(paths)]
    folder = paths[0].resolve().parent.name
    lone = len(paths) > 1 and min(patterns.values()) == 1
    if lone or any(len(parts) < 3 for parts in split):
        yield folder, plain  # an image without a number, or without neighbours of the same form
        return
    for _, group in groupby(zip(paths, split, strict=True), key=lambda pair: pair[1][::2]):
        members = list(group)
        columns = list(zip(*(parts for _, parts in members), strict=True))
        varying = [i for i, column in enumerate(columns) if i % 2 and len(set(column)) > 1]
        # Frames are counted by the first digits which, together with those before, differ in any two files.
        unique = (i for i in varying if len({tuple(parts[: i + 1]) for _, parts in members}) == len(members))
        place = next(unique, len(columns) - 2)
        for start, part in groupby(members, key=lambda pair: pair[1][:place]):
            several = len(patterns) > 1 or any(i < place for i in varying)
            name = "".join(start).strip(" _-.") if several else ""
            yield name or folder, [(path, int(parts[place])) for path, parts in part]


def frame_times(numbers: Sequence[int]) -> tuple[list[int], int | None]:
    """Each number's time, from 0, in steps of the most frequent size; and that size, None if they do not grow."""
    steps = [after - before for before, after in pairwise(numbers)]
    if any(step <= 0 for step in steps):
        return list(range(len(numbers))), None
    counts = Counter(steps)
    step = min(counts, key=lambda step: (-counts[step], step)) if steps else 1  # the most frequent, else the smallest
    times = [0]
    for grown in steps:
        times.append(times[-1] + max(round(grown / step), 1))
    return times, step
