"""The images of a run, known before it begins: what their results are called, and which of them are taken.

A plan of 100,000 images takes some ten megabytes; the images themselves are read one at a time.
"""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from knet.data.files.stamps import frames_passed, read_stamps
from knet.errors import DataError
from knet.files import UniqueNames, safe_name
from knet.inference.sources.images import Source, load_image
from knet.inference.sources.paths import SourceFile, image_name
from knet.inference.sources.streams import Frame
from knet.inference.sources.videos import Item

Stamp = tuple[int, int]


class ImagePlan:
    """Images by their places, 0, 1, ...: `paths`, and the names that their results have in one folder.

    Images of the same name (a/x.jpg, b/x.png) get numbers in the order of the plan, so a name does not depend on which
    images are done before, by which process.
    """

    def __init__(self, paths: Sequence[str], seconds: Sequence[float] = ()):
        self.paths, self._seconds = list(paths), seconds
        folders = {os.path.dirname(path) for path in self.paths}  # noqa: PTH120
        several = [Path(folder).absolute() for folder in folders] if len(folders) > 1 else []
        self._root = Path(os.path.commonpath(several)) if several else None
        self._numbered: dict[int, str] = {}
        unique = UniqueNames()
        for place, path in enumerate(self.paths):
            plain = safe_name(image_name(Path(path)))
            if (name := unique(plain)) != plain:
                self._numbered[place] = name

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, place: int) -> str:
        """What the names of an image's results begin with."""
        return self._numbered.get(place) or safe_name(image_name(Path(self.paths[place])))

    def file_name(self, place: int) -> str:
        """The image's file below the folder that all images lie in: with folders where that is more than one folder."""
        path = Path(self.paths[place])
        return path.name if self._root is None else path.absolute().relative_to(self._root).as_posix()

    def stamp(self, place: int) -> Stamp | None:
        """Size and time of an image's file, by which one can see that it was changed; None of one that is not there."""
        try:
            status = os.stat(self.paths[place])  # noqa: PTH116  # 100,000 of them
        except (OSError, ValueError):  # the name of a row of a table may be no path
            return None
        return status.st_size, status.st_mtime_ns

    def frame(self, place: int, source: Source | None = None) -> Frame:
        """An image, from its file or as given. Its number is its place. Raises `DataError` if it cannot be read."""
        path = Path(self.paths[place])
        seconds = self._seconds[place] if len(self._seconds) else math.nan
        time = None if math.isnan(seconds) else seconds
        try:
            image = load_image(path if source is None else source)
        except DataError as error:
            raise error if source is None else DataError(f"'{path}': {error}") from error
        item = Item(image, image_name(path), path, seconds=time)
        return Frame(item, "images", place, place, first=place == 0)

    def frames(
        self, places: Iterable[int], on_error: Callable[[int, DataError], object]
    ) -> Generator[Frame, None, None]:
        """The images at these places, one at a time; `on_error` is called for one that cannot be read."""
        for place in places:
            try:
                frame = self.frame(place)
            except DataError as error:
                on_error(place, error)
                continue
            yield frame


def plan_images(files: Iterable[SourceFile]) -> ImagePlan:
    """A plan of image files in the order of `streams.open_stream`: where names tell the time, in that of time."""
    paths: list[str] = []
    seconds = array("d")
    for _, group in groupby(files, lambda file: file.path.parent):
        found = [file.path for file in group]
        for place, moment in _in_time(found):
            paths.append(str(found[place]))
            seconds.append(moment)
    return ImagePlan(paths, seconds if any(map(math.isfinite, seconds)) else ())


def _in_time(paths: Sequence[Path]) -> Iterator[tuple[int, float]]:
    """The places of a folder's images in order, with the time that their names tell, or "not a number"."""
    stamped = read_stamps([image_name(path) for path in paths])
    if stamped is None:
        yield from ((place, math.nan) for place in range(len(paths)))
        return
    for images in stamped:
        known = frames_passed([image.seconds for image in images]) is not None
        yield from ((image.place, image.seconds if known else math.nan) for image in images)
