"""File names for results of images that have none, such as arrays and bytes: none replaces another's."""

from pathlib import Path
from threading import Lock

_last: dict[Path, int] = {}  # of each folder
_lock = Lock()


def numbered(name: str, folder: Path, given: dict[Path, int]) -> str:
    """The name in this folder: image, image_2, ... in the order in which the results of this process are saved.

    Args:
        given: the numbers that a result has in folders, to which a new one is added; saved again, it keeps its name.
    """
    folder = folder.resolve()
    with _lock:
        if folder not in given:
            given[folder] = _last[folder] = _last.get(folder, 0) + 1
    return name if given[folder] == 1 else f"{name}_{given[folder]}"
