"""Videos as trackers need them, from files and cameras: every frame with its number and the sequence it belongs to."""

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from knet.calls import named_options
from knet.data.files.stamps import Stamped, frames_passed, read_stamps, usual_step
from knet.errors import DataError, shown
from knet.inference.sources.cameras import Camera, camera, read_camera
from knet.inference.sources.clock import Clock
from knet.inference.sources.fetched import local_file
from knet.inference.sources.images import load_image
from knet.inference.sources.numbered import numbered_sequences
from knet.inference.sources.paths import SourceFile, expand_sources, image_name
from knet.inference.sources.span import Span
from knet.inference.sources.videos import Item, read_video

_logger = logging.getLogger("knet")

Report = Callable[[DataError], None] | None
Note = Callable[[str], None]

_GAP = 1.75  # of the usual distance, from which on frames named by time are taken to lack one in between
_NOTED = 3  # gaps that are told one by one
_TIME_LIKE = 100  # steps of numbers that are as large as this, and mostly different, are times in an unknown unit


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a video.

    Attributes:
        item: the image and where it comes from; its `seconds` are the time stamp, where there is one.
        sequence: the name of its video.
        number: that of its file, else counted from 0.
        time: frames since the first, counting those that are missing, as far as numbers or time stamps tell.
        first: whether the sequence begins here.
    """

    item: Item
    sequence: str
    number: int
    time: int
    first: bool


@dataclass(frozen=True, slots=True)
class _Image:
    """An image of a folder: its file, number, frames since the first, and where its name tells it the time."""

    path: Path
    number: int
    time: int
    seconds: float | None = None


@named_options
def open_stream(
    source: Any,
    on_error: Report = None,
    on_note: Note | None = None,
    span: Span = Span(),  # noqa: B008  # it cannot be changed
    stop: threading.Event | None = None,
) -> Generator[Frame, None, None]:
    """The frames of a source, one at a time and in order; memory does not grow with their number.

    A video file is a sequence. So is a folder of images, in the order of the numbers or times in their names, or if
    they have names such as 000002_000017_leftImg8bit, all images with the same first number. Images that are no files,
    of a list or of any other iterable, form one sequence.

    Args:
        source: a video file, a folder, a pattern, a webcam's number, an address such as rtsp://..., arrays or Pillow
            images, or a list of these; or an iterable of images. Instead of an image there may be a pair of it and its
            time in seconds.
        on_error: called when a file cannot be read or breaks off and when a camera ends, after the frames before; the
            next source follows. Without it the error is raised.
        on_note: called with a sentence about frames that a numbered folder lacks. Default: a warning of the
            logger `knet`.
        span: which frames of each sequence are taken.
        stop: when it is set, waiting for a pipe or for standard input ends.

    Raises:
        DataError: a source does not exist (at once), cannot be read, breaks off or ends (when its turn comes).
    """
    if comes_from_caller(source):
        return _given(enumerate(source), on_error, span)
    members = list(source) if isinstance(source, list | tuple) else [source]
    plan: list[Camera | SourceFile | tuple[int, Any]] = []
    named = set[Path]()  # a file named twice counts once
    for index, member in enumerate(map(local_file, members)):
        device = camera(member)
        if device is not None:
            plan.append(device)
        elif isinstance(member, str | os.PathLike):
            files = expand_sources([os.fspath(member)])
            plan += [file for file in files if file.path.absolute() not in named]
            named |= {file.path.absolute() for file in files}
        else:
            plan.append((index, member))
    return _frames(plan, on_error, on_note or _logger.warning, span, stop)


def comes_from_caller(source: Any) -> bool:
    """Whether a source is an iterable of frames whose making is the caller's: a generator, or an array of (N,H,W,3)."""
    if isinstance(source, str | os.PathLike | bytes | bytearray | memoryview | list | tuple):
        return False
    return source.ndim == 4 if hasattr(source, "ndim") else isinstance(source, Iterable)


def _frames(
    plan: Sequence[Any], on_error: Report, note: Note, span: Span, stop: threading.Event | None
) -> Generator[Frame, None, None]:
    def kind(entry: Camera | SourceFile | tuple[int, Any]) -> object:
        """Neighbours of the same kind form a sequence, or several if they are images of a folder."""
        if isinstance(entry, SourceFile) and not entry.video:
            return entry.path.parent
        return entry if isinstance(entry, Camera | SourceFile) else None

    for _, group in groupby(plan, kind):
        entries = list(group)
        first = entries[0]
        if isinstance(first, Camera):
            yield from _guarded(_as_sequence(read_camera(first, stop), first.name, span), on_error)
        elif isinstance(first, SourceFile) and first.video:
            yield from _guarded(_as_sequence(read_video(first.path, span.start), first.path.stem, span), on_error)
        elif isinstance(first, SourceFile):
            yield from _images([entry.path for entry in entries], on_error, note, span)
        else:
            yield from _given(entries, on_error, span)


def _as_sequence(items: Iterator[Item], name: str, span: Span) -> Generator[Frame, None, None]:
    clock: Clock | None = None
    for item in span.chosen(items, lambda item: item.index if item.seconds is None else item.seconds):
        first = clock is None
        if clock is None:
            clock = Clock([span.every * step for step in item.video.steps] if item.video else ())
        yield Frame(item, name, item.index, clock(item.seconds), first)


def _guarded(frames: Iterator[Frame], on_error: Report) -> Generator[Frame, None, None]:
    try:
        yield from frames
    except DataError as error:
        if on_error is None:
            raise
        on_error(error)


def _given(entries: Iterable[tuple[int, Any]], on_error: Report, span: Span) -> Generator[Frame, None, None]:
    """Images that are no files, or come from an iterable, as one sequence."""
    images = ((index, *_with_time(entry)) for index, entry in entries)
    clock, first, start = Clock(), True, list[float]()

    def position(image: tuple[int, Any, float | None]) -> float:
        if image[2] is None:
            return image[0]
        start.append(image[2]) if not start else None
        return image[2] - start[0]

    for index, image, seconds in span.chosen(images, position):
        time = clock(seconds)
        try:
            name = Path(image).stem if isinstance(image, str | os.PathLike) else f"image_{index:06d}"
            item = Item(load_image(image), name, seconds=seconds, index=index)
        except DataError as error:
            if on_error is None:
                raise
            on_error(error)
            continue
        yield Frame(item, "images", index, time, first)
        first = False


def _with_time(entry: Any) -> tuple[Any, float | None]:
    """An image and its time in seconds, from a pair of the two in any order; without a pair None."""
    if not isinstance(entry, list | tuple) or len(entry) != 2:
        return entry, None
    for image, time in (entry, entry[::-1]):
        if isinstance(time, Real | np.number) and not isinstance(time, bool):
            return image, float(time)
    raise DataError(f"A frame came with the time {shown(entry[1])}; pass pairs of an image and its time in seconds.")


def _images(paths: list[Path], on_error: Report, note: Note, span: Span) -> Generator[Frame, None, None]:
    """The frames of a folder of images. One that cannot be read is treated like one that is missing."""
    for name, images in _sequences(paths):
        _note_gaps(name, images, note)
        began = images[0].seconds or 0.0
        first = True
        for image in span.chosen(images, lambda i: i.number if i.seconds is None else i.seconds - began):  # noqa: B023
            try:
                item = Item(load_image(image.path), image_name(image.path), image.path, seconds=image.seconds)
            except DataError as error:
                if on_error is None:
                    raise
                on_error(error)
                continue
            yield Frame(item, name, image.number, image.time // span.every, first)
            first = False


def _note_gaps(name: str, images: list[_Image], note: Note) -> None:
    """Says where frames are missing: one by one, or where there are many gaps all in one line."""
    gaps = [(after.time - before.time - 1, before, after) for before, after in pairwise(images)]
    step = usual_step(i.seconds for i in images if i.seconds is not None)
    gaps = [
        (n, before, after)
        for n, before, after in gaps
        if n > 0 and (after.seconds is None or after.seconds - (before.seconds or 0) > _GAP * step)
    ]
    for count, before, after in gaps if len(gaps) <= _NOTED else ():
        missing = f"{count} frames are missing" if count > 1 else "a frame is missing"
        note(f"'{name}': {missing} between '{before.path.name}' and '{after.path.name}'; tracking goes on.")
    if len(gaps) > _NOTED:
        total, (_, before, after) = sum(count for count, _, _ in gaps), gaps[0]
        note(
            f"'{name}': {total} frames are missing in {len(gaps)} places, first between '{before.path.name}' and "
            f"'{after.path.name}'; tracking goes on."
        )


def _sequences(paths: list[Path]) -> Iterator[tuple[str, list[_Image]]]:
    """The sequences among a folder's images: a name, and the images in order."""
    folder = paths[0].resolve().parent.name
    stamped = read_stamps([image_name(path) for path in paths])
    if stamped is not None:
        for group in stamped:
            name = " ".join(part.strip(" _-.") for part in group[0].around).strip() if len(stamped) > 1 else ""
            yield name or folder, _timed([paths[s.place] for s in group], group)
        return
    for name, members in numbered_sequences(paths, folder):
        times, step = frame_times([number for _, number in members])
        # Where numbers do not grow, images are counted.
        yield (
            name,
            [
                _Image(path, time if step is None else number, time)
                for (path, number), time in zip(members, times, strict=True)
            ],
        )


def _timed(paths: list[Path], stamps: list[Stamped]) -> list[_Image]:
    """Images that are named by time, in order; where several have the same time, they are counted."""
    seconds = [stamp.seconds for stamp in stamps]
    times = frames_passed(seconds)
    if times is None:
        return [_Image(path, index, index) for index, path in enumerate(paths)]
    return [_Image(path, i, time, at) for i, (path, time, at) in enumerate(zip(paths, times, seconds, strict=True))]


def frame_times(numbers: Sequence[int]) -> tuple[list[int], int | None]:
    """Each number's time, from 0, in steps of the most frequent size; and that size, None if they do not grow."""
    steps = [after - before for before, after in pairwise(numbers)]
    if any(step <= 0 for step in steps):
        return list(range(len(numbers))), None
    counts = Counter(steps)
    step = min(counts, key=lambda step: (-counts[step], step)) if steps else 1  # the most frequent, else the smallest
    if steps and min(steps) >= _TIME_LIKE and 2 * counts[step] <= len(steps):
        step = round(usual_step(numbers))
    times = [0]
    for grown in steps:
        times.append(times[-1] + max(round(grown / step), 1))
    return times, step
