"""What a visitor of the page gave, and what models made of it: in a folder of its own until the visitor is gone."""

import re
import secrets
import shutil
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from knet.apps.limits import Limits, check_file, check_frame
from knet.apps.shelf import Shelf
from knet.errors import DataError
from knet.inference.results.chosen import only
from knet.inference.results.predictions import PredictionWriter
from knet.inference.results.segmentation import Segmentation
from knet.inference.results.style import Drawing
from knet.inference.segmenter import Segmenter
from knet.inference.settings import Options
from knet.inference.sources.streams import Frame, open_stream
from knet.structures import Category, Segment

_GONE = "The file is not here any more, as it is deleted after a while; drop it again."


@dataclass(frozen=True, slots=True)
class Kept:
    """A result in little memory."""

    result: Segmentation  # without its map
    ids: bytes
    shape: tuple[int, int]

    @classmethod
    def of(cls, result: Segmentation) -> "Kept":
        """Packs a result."""
        ids = zlib.compress(result.id_map.astype(np.int32).tobytes(), 1)
        shape = (result.id_map.shape[0], result.id_map.shape[1])
        return cls(replace(result, id_map=np.zeros((0, 0), np.int32), image=None), ids, shape)

    def whole(self) -> Segmentation:
        """The result as it was."""
        return replace(self.result, id_map=np.frombuffer(zlib.decompress(self.ids), np.int32).reshape(self.shape))


@dataclass(slots=True)
class Found:
    """What one model found: a result for each frame, and the files that were made of them."""

    model: str
    categories: tuple[Category, ...]
    frames: list[Kept] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)

    def classes(self) -> list[str]:
        """The names of the classes that occur, in the order of the class table."""
        names = {segment.name for kept in self.frames for segment in kept.result.segments}
        return [category.name for category in self.categories if category.name in names]

    def segments(self, classes: Sequence[str]) -> list[Segment]:
        """The segments of these classes in the first frame."""
        return [s for kept in self.frames[:1] for s in kept.result.segments if s.name in classes]


@dataclass(slots=True)
class Visit:
    """One file of a visitor and what was found in it.

    Attributes:
        token: by which its files are asked for.
        folder: where they lie.
        source, path: the file as it came, which another visitor may have given as well, and as it is kept.
        closing: set when the page is closed.
        version: how often the files were made.
    """

    token: str
    folder: Path
    source: Path
    path: Path
    video: bool
    closing: threading.Event
    found: list[Found] = field(default_factory=list)
    version: int = 0

    def frames(self, limits: Limits) -> Iterator[Frame]:
        """The frames of the file. Raises `DataError` for one that cannot be read, or where a video becomes too long."""
        for number, frame in enumerate(open_stream(str(self.path), on_note=lambda text: None), start=1):
            if self.closing.is_set():
                raise DataError("The page is closed.")
            check_frame(self.path, number, frame.item.seconds or 0.0, limits)
            yield frame


class Visits:
    """The visits of a page, one for each visitor; see `Limits.visits`. `busy` is held by whoever computes."""

    def __init__(self, folder: Path, limits: Limits):
        self.folder, self.limits, self.busy = folder, limits, threading.Lock()
        self._visits = OrderedDict[str, Visit]()  # by visitor
        self._closing = threading.Event()

    def begin(self, visitor: str, given: str | None) -> Visit:
        """The visitor's visit with a file, in place of the one before. Raises `DataError` if the file is refused."""
        if not given:
            raise DataError("There is no file yet; drop an image or a short video first.")
        before, source = self._visits.get(visitor), Path(given)
        if before is None or before.source != source:
            self.forget(visitor)
            while len(self._visits) >= self.limits.visits:
                self.forget(next(iter(self._visits)))
            self._visits[visitor] = self._new(source)
        self._visits.move_to_end(visitor)
        return self._visits[visitor]

    def _new(self, source: Path) -> Visit:
        if not source.is_file():
            raise DataError(_GONE)
        video, token = check_file(source, self.limits), secrets.token_urlsafe(16)
        folder = self.folder / f"visit-{token}"
        folder.mkdir()
        path = folder / source.name
        try:
            path.hardlink_to(source)
        except OSError:  # another file system
            shutil.copyfile(source, path)
        return Visit(token, folder, source, path, video, self._closing)

    def of(self, visitor: str) -> Visit:
        """The visitor's visit. Raises `DataError` if it is over."""
        visit = self._visits.get(visitor)
        if visit is None:
            raise DataError(_GONE)
        return visit

    def file(self, token: str, number: int, name: str) -> Path | None:
        """A file of a visit, by the token that nobody can guess; None if there is no such file."""
        visit = next((visit for visit in list(self._visits.values()) if visit.token == token), None)
        return visit.found[number].files.get(name) if visit and number < len(visit.found) else None

    def forget(self, visitor: str) -> None:
        """Deletes what belongs to a visitor, the file that the visit began with among it."""
        visit = self._visits.pop(visitor, None)
        if visit is not None:
            shutil.rmtree(visit.folder, ignore_errors=True)
            if self.folder in visit.source.parents:  # not a picture of the package
                visit.source.unlink(missing_ok=True)

    def close(self) -> None:
        """Ends what is being computed, after the frame in hand."""
        self._closing.set()
        self.busy.acquire(timeout=30)


def segment(visit: Visit, shelf: Shelf, models: Sequence[str], options: Options, limits: Limits) -> Iterator[str]:
    """Looks at the file with one model or two, and gives a sentence on how far it is from time to time."""
    visit.found = []
    for model in dict.fromkeys(models):
        yield f"Loading {model}"
        segmenter = shelf[model]
        found = Found(model, segmenter.categories)
        for number, result in enumerate(_results(visit, segmenter, options, limits), start=1):
            found.frames.append(Kept.of(result))
            if visit.video:
                yield f"{model}: frame {number}"
        visit.found.append(found)


def _results(visit: Visit, segmenter: Segmenter, options: Options, limits: Limits) -> Iterator[Segmentation]:
    if segmenter.task != "panoptic":
        options = {name: value for name, value in options.items() if name != "overlap"}  # type: ignore[assignment]
    follow = segmenter.tracker(**options) if visit.video and segmenter.task != "semantic" else None
    for frame in visit.frames(limits):
        item = frame.item
        if follow is not None:
            yield follow.next(item.image, frame.time, item.name)
        else:
            yield segmenter.segment(item.image, item.name, **options)


def write(visit: Visit, classes: Sequence[str], drawing: Drawing, limits: Limits) -> Iterator[str]:
    """Makes the files of what was found, with these classes alone; gives a sentence on how far it is for videos."""
    visit.version += 1
    formats = ["video", "tracks"] if visit.video else ["overlay", "panoptic", "json"]
    for number, found in enumerate(visit.found):
        folder = visit.folder / str(number)
        shutil.rmtree(folder, ignore_errors=True)
        ids = frozenset(category.id for category in found.categories if category.name in classes)
        frames = visit.frames(limits)
        with PredictionWriter(folder, formats, found.categories, track=visit.video, drawing=drawing) as writer:
            for done, (kept, frame) in enumerate(zip(found.frames, frames, strict=False), start=1):
                writer.write(only(kept.whole(), ids), frame)
                if visit.video:
                    yield f"{found.model}: drawing frame {done} of {len(found.frames)}"
        found.files = {path.name: path for path in sorted(folder.iterdir())}


def told(error: Exception, folder: Path) -> str:
    """What an error says, without the folders in which the page keeps files."""
    return re.sub(re.escape(str(folder)) + r"/(?:[^/'\s]+/)*", "", str(error))
