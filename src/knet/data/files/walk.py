"""Goes through folders below folders and past links, of which some may lead back."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from knet.errors import DataError

_OFTEN = 100  # times that one folder may be met by different ways; links to and fro would give endlessly many


def walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Each folder from this one down, without hidden ones, and the names of the files in it; links are followed.

    A folder may be met by several links, but not inside itself, where links in a circle lead. Pipes and devices,
    and what may not be looked at, are left out.

    Raises:
        DataError: links lead to one folder by more ways than anybody can mean.
    """
    met = Counter[tuple[int, int]]()  # device and inode
    waiting = [(folder, frozenset[tuple[int, int]]())]
    while waiting:
        place, above = waiting.pop()
        with suppress(OSError):
            status = os.stat(place)  # noqa: PTH116  # a link's target
            this = status.st_dev, status.st_ino
            if this in above:
                continue
            with os.scandir(place) as entries:
                seen = [entry for entry in entries if not entry.name.startswith(".") and not _is_device(entry)]
                inside = [(entry.name, _is_folder(entry)) for entry in seen]
            met[this] += 1
            refuse_often(met[this], folder, place)
            waiting += [(place / name, above | {this}) for name, is_folder in inside if is_folder]
            yield place, [name for name, is_folder in inside if not is_folder]


def refuse_often(times: int, folder: Path, place: Path) -> None:
    """Refuses links below a folder, or in a pattern, that have led to a place so many times that they go to and fro."""
    if times > _OFTEN:
        raise DataError(
            f"Links below '{folder}' lead to '{place.resolve()}' in more than {_OFTEN} ways; remove those that lead "
            "back."
        )


def _is_device(entry: os.DirEntry[str]) -> bool:
    """Whether it is neither file, folder nor link: a pipe, a socket, a device."""
    with suppress(OSError):
        return not (entry.is_symlink() or entry.is_file() or entry.is_dir())
    return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):  # as of a link to itself
        return entry.is_dir()
    return False
