"""What every annotation tool's export is read into: pictures with objects in COCO's forms, and what was left out."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from knet.data.exports.finder import ExportImages
from knet.data.files.io import IMAGE_ENDINGS, list_images, name_some, read_image_size
from knet.data.files.walk import walk
from knet.data.readers.reader import size_text
from knet.errors import DataError

_EXAMPLES = 3
_SPLITS = {"train": "train", "training": "train", "trainset": "train", "val": "val", "valid": "val", "dev": "val"}
_SPLITS |= {"validation": "val", "test": "test", "testing": "test"}


class Shape(NamedTuple):
    """An object: the name of its class and its mask, polygons or RLE as in COCO's JSON.

    `apart` is False for a mask that holds all objects of its class, as label PNGs do.
    """

    label: str
    segmentation: Any
    crowd: bool = False
    apart: bool = True


@dataclass(slots=True)
class Picture:
    """An image of an export: its file, or its bytes where a JSON holds it, and its objects. `size` is (height, width).

    `name` is its path in the export; `split` is "train", "val", "test", or "" where the export does not say.
    """

    file: Path | bytes
    name: str
    size: tuple[int, int]
    split: str = ""
    shapes: list[Shape] = field(default_factory=list)


@dataclass(slots=True)
class Look:
    """What an export says of a class: whether it is a thing, and its colour; None where it does not say."""

    thing: bool | None = None
    color: tuple[int, int, int] | None = None


class Remarks:
    """What there is to say about an import, each kind once, with its number and its first examples."""

    def __init__(self) -> None:
        self._found: dict[str, list[Any]] = {}

    def left_out(self, what: str, example: object) -> None:
        """Counts something that is left out."""
        self._add(f"left out: {what}", example)

    def note(self, what: str, example: object) -> None:
        """Counts something that was understood in a way that may surprise."""
        self._add(f"note: {what}", example)

    def _add(self, what: str, example: object) -> None:
        count, examples = self._found.get(what, (0, []))
        self._found[what] = [count + 1, examples if count >= _EXAMPLES else [*examples, str(example)]]

    def lines(self) -> list[str]:
        """A line for each kind."""
        rows = self._found.items()
        more = (f" and {count - _EXAMPLES} more" if count > _EXAMPLES else "" for _, (count, _) in rows)
        return [f"{what} ({n}): {', '.join(shown)}{end}" for (what, (n, shown)), end in zip(rows, more, strict=True)]


@dataclass(slots=True)
class Export:
    """An export: what form it has, its pictures, and its classes by name, in its own order."""

    form: str
    pictures: list[Picture]
    classes: dict[str, Look]


class Reading:
    """An export while it is read: its folder, a finder of its images, and the remarks.

    `given` is the file that the user named, if it was no folder.
    """

    def __init__(self, root: Path, remarks: Remarks, given: Path | None = None):
        self.root, self.remarks, self.given = root, remarks, given
        self._finders: dict[Path, ExportImages] = {}
        self._opened: set[Path] = set()

    def finder(self, folder: Path | None = None) -> ExportImages:
        """What finds images below a folder, the export's own if none is given."""
        folder = folder or self.root
        if folder not in self._finders:
            self._finders[folder] = ExportImages(folder, self.root)
        return self._finders[folder]

    def picture(
        self, name: str, folder: Path | None = None, told: tuple[int, int] | None = None, split: str = ""
    ) -> Picture | None:
        """The picture that a tool calls so; None, and a remark, if there is none that can be used.

        `told` is (height, width) as the export has it.
        """
        finder, folder = self.finder(folder), folder or self.root
        found = finder.candidates(name)
        if len(found) != 1:
            what = "images whose name fits several files" if found else "images that are not there"
            self.remarks.left_out(what, f"{name} ({name_some(found)})" if found else name)
            return None
        return self.open(folder / found[0], told, split)

    def open(self, file: Path, told: tuple[int, int] | None = None, split: str = "") -> Picture | None:
        """The picture of a file; None, and a remark, if it cannot be read or has another size than it should."""
        name = file.relative_to(self.root).as_posix() if file.is_relative_to(self.root) else file.name
        self._opened.add(file)
        try:
            size = read_image_size(file)
        except DataError as fault:
            self.remarks.left_out("images that cannot be read", str(fault).removeprefix("The image ").rstrip("."))
            return None
        if told is not None and told != size:
            turned = " (EXIF turns it: save it upright, and label that)" if told == size[::-1] else ""
            what = f"{name} {size_text(size)}, not {size_text(told)}{turned}"
            self.remarks.left_out("images of another size than the export says", what)
            return None
        return Picture(file, name, size, split)

    def say_unnamed(self) -> None:
        """Remarks on images below the folder that nothing in the export is about."""
        images = [self.root / name for name in list_images(self.root)]
        if self.given is not None or len(images) <= len(self._opened):
            return
        opened = {file.resolve() for file in self._opened}
        for file in images:
            if file.resolve() not in opened:
                self.remarks.left_out("images that the export does not name", file.relative_to(self.root).as_posix())


def files_below(root: Path, *endings: str) -> list[Path]:
    """All files below a folder with one of these endings, the nearest first, then by name."""
    found = [place / name for place, names in walk(root) for name in names if name.lower().endswith(endings)]
    return sorted(found, key=lambda path: (len(path.parts), str(path)))


def has_images(folder: Path) -> bool:
    """Whether a folder itself holds images."""
    return any(path.suffix.lower() in IMAGE_ENDINGS for path in _entries(folder))


def split_of(folder: Path | str) -> str:
    """The split that folders name: the last of them that is one, such as "valid" for "val"; "" if there is none."""
    named = (split_named(part) for part in reversed(Path(folder).parts))
    return next((split for split in named if split), "")


def split_named(word: str) -> str:
    """The split that is called so, "" if none is."""
    return _SPLITS.get(word.lower().rstrip("0123456789"), "")


def _entries(folder: Path) -> Iterator[Path]:
    return folder.iterdir() if folder.is_dir() else iter(())
