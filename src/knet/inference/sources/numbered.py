"""Folders of images with numbers in their names, as the videos that they are."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from knet.data.readers.cityscapes_vps import frame_stem
from knet.inference.sources.paths import natural_order

Parts = Sequence[str]
"""A name, cut into what stands between numbers (even places) and the numbers (odd places)."""

_HASH = re.compile(r"([0-9a-f]{8})-(?=.)")  # as Label Studio writes it in front of each file's own name
_CAMERA = re.compile(r"(?:^|[^a-z])(?:cam|camera|c|ch|channel|view|sensor|lens)[ _-]?$", re.IGNORECASE)


def numbered_sequences(paths: Sequence[Path], folder: str) -> Iterator[tuple[str, list[tuple[Path, int]]]]:
    """The sequences among a folder's images: a name, and each image with the number in its name.

    What stands between the numbers divides them, as `_left` and `_right`; so do numbers before the frame's, and those
    that name a camera. Names without numbers, or one of a form of its own, make all one sequence, in their order.
    """
    # In each video of Cityscapes-VPS one frame has another ending than the others.
    names = {path: frame_stem(path.name) for path in paths}
    hashes = [found[1] for name in names.values() if (found := _HASH.match(name))]
    if len(set(hashes)) == len(names) and any(not text.isdecimal() for text in hashes):
        names = {path: _HASH.sub("", name, count=1) for path, name in names.items()}
        names = dict(sorted(names.items(), key=lambda row: natural_order(Path(row[1]))))
    split = {path: re.split(r"(\d+)", name) for path, name in names.items()}
    forms = Counter(tuple(parts[::2]) for parts in split.values())
    lone = len(paths) > 1 and min(forms.values()) == 1
    if lone or any(len(parts) < 3 for parts in split.values()):
        yield folder, [(path, index) for index, path in enumerate(names)]
        return
    sequences = list[tuple[str, str, list[tuple[Path, int]]]]()
    for form in forms:
        sequences += _of_one_form({path: parts for path, parts in split.items() if tuple(parts[::2]) == form})
    starts = Counter(start for start, _, _ in sequences)
    for start, behind, frames in sequences:
        name = start if start and starts[start] == 1 else f"{start} {behind}".strip()
        yield (name if len(sequences) > 1 else "") or folder, frames


def _of_one_form(members: dict[Path, list[str]]) -> Iterator[tuple[str, str, list[tuple[Path, int]]]]:
    """The sequences of names with the same texts between their numbers: texts around the frame's number, and images."""
    columns = list(zip(*members.values(), strict=True))
    varying = [i for i, column in enumerate(columns) if i % 2 and len(set(column)) > 1]
    cameras = [i for i in varying if _CAMERA.search(columns[i - 1][0])]
    cameras = cameras if len(cameras) < len(varying) else []

    def others(parts: Parts, end: int) -> tuple[str, ...]:
        """The name up to a number, and the numbers of cameras behind it."""
        return *parts[:end], *(text for i in cameras if i >= end for text in parts[i - 1 : i + 1])

    # Frames are counted by the first digits which, together with those before, differ in any two files.
    unique = (
        i for i in varying if i not in cameras and len({others(p, i + 1) for p in members.values()}) == len(members)
    )
    place = next(unique, len(columns) - 2)
    groups: dict[tuple[str, ...], list[tuple[Path, int]]] = {}
    for path, parts in members.items():
        groups.setdefault(others(parts, place), []).append((path, int(parts[place])))
    behind = "".join(column[0] for column in columns[place + 1 :: 2]).strip(" _-.")
    for start, frames in groups.items():
        yield re.sub(r"([ _.-])[ _.-]+", r"\1", "".join(start).strip(" _-.")), behind, frames
