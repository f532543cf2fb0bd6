"""Which image or video of the results is which of the truth: the one of the same file, whatever ids they have."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, TypeVar

from knet.data.readers.find_images import plain_name

Own = TypeVar("Own")
Other = TypeVar("Other")
_CITYSCAPES = re.compile("(_gtFine)?_leftImg8bit$")  # its own truth calls images by another name than they have


def file_of(row: Mapping[str, Any]) -> str | None:
    """The name of an image's file, or of the folder of a video's frames; None where a row tells none."""
    frames = row.get("file_names")
    if isinstance(frames, list) and frames and isinstance(frames[0], str):
        folder = PurePosixPath(plain_name(frames[0])).parent
        return folder.as_posix() if folder.name else None
    name = row.get("file_name")
    return name if isinstance(name, str) else None


def same_files(truth: Mapping[Own, str], results: Mapping[Other, str]) -> dict[Own, Other]:
    """The key of the results for each key of the truth, by the names of their files; nothing where none is the same.

    Endings do not count, nor do folders above those that both name. The name without folders is enough where each file
    has one of its own.
    """
    own = {key: _parts(name) for key, name in truth.items()}
    others = {key: _parts(name) for key, name in results.items()}
    best: dict[Own, Other] = {}
    for depth in range(max(map(len, [*own.values(), *others.values()]), default=0), 0, -1):
        places = {parts[-depth:]: key for key, parts in others.items()}
        wanted = {parts[-depth:] for parts in own.values()}
        if len(places) == len(others) and len(wanted) == len(own):
            found = {key: places[parts[-depth:]] for key, parts in own.items() if parts[-depth:] in places}
            best = found if len(found) > len(best) else best
    return best


def _parts(name: str) -> tuple[str, ...]:
    """The folders and the name of a file, without its ending, which is not what a point in a time begins."""
    path = PurePosixPath(plain_name(name))
    stem = path.name if path.suffix[1:].isdecimal() else path.stem
    return *path.parts[:-1], _CITYSCAPES.sub("", stem)
