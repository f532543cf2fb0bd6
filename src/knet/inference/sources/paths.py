"""Finds the images and videos that paths, folders and patterns stand for, and reads their images one at a time."""

import fnmatch
import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from knet.data.files.pictures import IMAGE_SUFFIXES
from knet.data.files.walk import refuse_often, walk
from knet.errors import DataError
from knet.files import exists, from_home, is_dir, is_file
from knet.inference.sources.content import opens_as_video, shows_video
from knet.inference.sources.fetched import local_file
from knet.inference.sources.images import load_image, no_such_path, why_not
from knet.inference.sources.videos import VIDEO_SUFFIXES, Item, probe_video, read_video

KNOWN = f"images: {' '.join(IMAGE_SUFFIXES)}; videos: {' '.join(VIDEO_SUFFIXES)}"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to be read later: an image, or if `video` is true a video."""

    path: Path
    video: bool


def natural_order(path: Path) -> tuple[Any, ...]:
    """A sorting key that puts frame_2 before frame_10."""
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if part.isdecimal() else part.casefold() for part in parts], str(path)


def expand_sources(sources: Iterable[str | Path]) -> list[SourceFile]:
    """The image and video files that paths, folders and patterns stand for.

    A folder stands for the images directly in it, a pattern (`drive/*.png`, `**` for any depth) for the images, videos
    and folders that it matches, both in natural order and without hidden files. A file named twice counts once. In
    folders and patterns endings tell what a file is; one that is named may have any, as its content is looked at.

    Raises:
        DataError: a path does not exist, a file is neither image nor video, a folder has no images, or a pattern no
            matches.
    """
    found: dict[Path, SourceFile] = {}
    for source in sources:
        if isinstance(source, str) and not source.strip():
            raise DataError("A source is an empty text; give a path (an unset variable of a shell is empty).")
        for path in _expand(from_home(source)):
            found.setdefault(path.absolute(), SourceFile(path, _is_video(path, named=path == from_home(source))))
    return list(found.values())


def _is_video(path: Path, named: bool) -> bool:
    """By its content, as far as that tells, where a file was `named`; in folders and patterns by its ending."""
    content = shows_video(path) if named else None
    return path.suffix.lower() not in IMAGE_SUFFIXES if content is None else content


def image_name(path: Path) -> str:
    """The name of an image's results: its file's without the ending, which is not what a point in a time begins."""
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


def count_images(files: Iterable[SourceFile]) -> int:
    """How many images the files hold, as far as they tell; a video that does not counts as one."""
    total = 0
    for file in files:
        frames = None
        if file.video:
            with suppress(DataError):  # reported when its turn comes
                frames = probe_video(file.path).frames
        total += frames or 1
    return total


def _expand(path: Path) -> list[Path]:
    if is_dir(path):
        return _images_in(path)
    known = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
    if exists(path):
        if path.suffix.lower() not in known and shows_video(path) is None and not opens_as_video(path):
            raise DataError(f"'{path}' has an unknown ending, and is no image or video by its content; known: {KNOWN}.")
        return [path]
    if not glob.has_magic(str(path)):
        raise DataError(no_such_path(path))
    files: list[Path] = []
    for match in sorted(_matches(path), key=natural_order):
        if is_dir(match):
            with suppress(DataError):  # a folder without images is no match
                files += _images_in(match)
        elif match.suffix.lower() in known or (is_file(match) and shows_video(match) is not None):
            files.append(match)
    if not files:
        raise DataError(f"The pattern '{path}' matches no image or video; known endings: {KNOWN}.")
    return files


def _matches(pattern: Path) -> set[Path]:
    """What a pattern matches, as `glob` has it, but past links that lead round in circles, where glob does not end."""
    met, found, been = Counter[tuple[int, int, int]](), set[Path](), set[tuple[Path, int]]()

    def go(place: Path, parts: tuple[str, ...], above: frozenset[tuple[int, int]]) -> None:
        if (place, len(parts)) in been:  # several ** lead to one place by several ways
            return
        been.add((place, len(parts)))
        if not parts:
            found.add(place)
        elif parts[0] == "**":
            for inner, names in walk(place) if is_dir(place) else ():
                if parts[1:]:
                    go(inner, parts[1:], above)
                else:
                    found.update({inner, *(inner / name for name in names)})
        elif glob.has_magic(parts[0]):
            with suppress(OSError):
                status = os.stat(place)  # noqa: PTH116  # a link's target
                this = status.st_dev, status.st_ino
                if this in above:
                    return
                met[len(parts), *this] += 1
                refuse_often(met[len(parts), *this], pattern, place)
                names = fnmatch.filter(os.listdir(place), parts[0])  # noqa: PTH208
                for name in names if parts[0].startswith(".") else (n for n in names if not n.startswith(".")):
                    if len(parts) == 1 or is_dir(place / name):
                        go(place / name, parts[1:], above | {this})
        elif os.path.lexists(place / parts[0]):
            go(place / parts[0], parts[1:], above)

    parts = pattern.relative_to(pattern.anchor).parts
    repeated = (part == "**" == before for before, part in pairwise(("", *parts)))
    go(Path(pattern.anchor), tuple(part for part, again in zip(parts, repeated, strict=True) if not again), frozenset())
    return found


def _images_in(folder: Path) -> list[Path]:
    try:
        inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise DataError(f"Cannot read the folder '{folder}': {why_not(error)}.") from error
    images = [path for path in inside if path.suffix.lower() in IMAGE_SUFFIXES]
    images = images or [path for path in inside if is_file(path) and shows_video(path) is False]
    if images:
        return sorted(images, key=natural_order)
    hint = f"for folders below it use a pattern: '{folder}/**/*.jpg'"
    if any(path.suffix.lower() in VIDEO_SUFFIXES for path in inside):
        hint = f"name its videos: '{folder}/*'"
    raise DataError(f"The folder '{folder}' holds no image ({len(inside)} other entries); {hint}.")


def open_source(source: Any, on_error: Callable[[DataError], None] | None = None) -> Iterator[Item]:
    """The images of a source, one at a time and in order; memory does not grow with their number.

    Args:
        source: a path, folder, pattern or video file (see `expand_sources`), anything that `load_image` takes, or a
            list of these. Images without a file are named `image_000000` by their place in the list.
        on_error: called for a file that cannot be read, which is then left out. Without it the error is raised.

    Raises:
        DataError: a path does not exist (at once), or a source cannot be read (when its turn comes).
    """
    members = list(source) if isinstance(source, list | tuple) else [source]
    plan: list[SourceFile | tuple[int, Any]] = []
    for index, member in enumerate(map(local_file, members)):
        plan += expand_sources([os.fspath(member)]) if isinstance(member, str | os.PathLike) else [(index, member)]
    return _items(plan, on_error)


def _items(plan: list[SourceFile | tuple[int, Any]], on_error: Callable[[DataError], None] | None) -> Iterator[Item]:
    for entry in plan:
        try:
            if not isinstance(entry, SourceFile):
                yield Item(load_image(entry[1]), f"image_{entry[0]:06d}")
            elif entry.video:
                yield from read_video(entry.path)
            else:
                yield Item(load_image(entry.path), image_name(entry.path), entry.path)
        except DataError as error:
            if on_error is None:
                raise
            on_error(error)
