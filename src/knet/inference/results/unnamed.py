"""File names for results of images that have none, such as arrays and bytes: none replaces another's."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from knet.files import alone_in, exists

_ENDINGS = (
    "overlay.jpg",
    "panoptic.png",
    "panoptic.json",
    "instances.png",
    "semantic.png",
    "segments.json",
    "polygons.json",
)
_last: dict[Path, int] = {}  # of each folder


@contextmanager
def own_name(name: str, folder: Path, given: dict[Path, int]) -> Iterator[str]:
    """The name in this folder of which there are no files: image, image_2, ...; no other thread or process gets it.

    The block writes the files, which is what takes the name; until then others wait.

    Args:
        given: the numbers that a result has in folders, to which a new one is added; saved again, it keeps its name.
    """
    folder = folder.resolve()
    with alone_in(folder):
        if folder not in given:
            number = _last.get(folder, 0) + 1
            while any(exists(folder / f"{_called(name, number)}_{ending}") for ending in _ENDINGS):
                number += 1
            given[folder] = _last[folder] = number
        yield _called(name, given[folder])


def _called(name: str, number: int) -> str:
    return name if number == 1 else f"{name}_{number}"
