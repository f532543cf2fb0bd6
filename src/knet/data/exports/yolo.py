"""YOLO segmentation as Ultralytics, Roboflow, CVAT and Label Studio write it: a text of polygons for each image.

A line is the number of a class and then x, y, x, y, ... as fractions of the image's width and height. data.yaml names
the classes and says where the images of each split are; Label Studio writes classes.txt instead, without splits.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from knet.data.exports.export import Export, Look, Picture, Reading, Shape, files_below
from knet.data.files.io import IMAGE_ENDINGS, list_images
from knet.data.files.numbers import whole
from knet.errors import DataError, shown
from knet.files import exists
from knet.parse import LARGEST_YAML, parse_yaml, read_bounded

_SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
_LARGEST_TEXT = 2**26


def find_yolo(root: Path) -> Path | None:
    """The data.yaml, or another YAML file with names and a split, of an export; or its classes.txt beside labels."""
    tables = (path for path in files_below(root, ".yaml", ".yml") if _is_yolo(path))
    listed = (path for path in files_below(root, "classes.txt") if (path.parent / "labels").is_dir())
    return next(tables, None) or next(listed, None)


def _is_yolo(path: Path) -> bool:
    try:
        content = parse_yaml(read_bounded(path, LARGEST_YAML))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "names" in content and bool(content.keys() & {*_SPLITS, "path", "nc"})


def read_yolo(reading: Reading) -> Export:
    """Reads the images that a data.yaml names, or all, with their polygons."""
    path = reading.given if reading.given is not None and _is_yolo(reading.given) else find_yolo(reading.root)
    assert path is not None
    if path.suffix == ".txt":
        lines = _text(path).splitlines()
        names = {number: name.strip() for number, name in enumerate(lines) if name.strip()}
        splits = {"": [path.parent / "images"] if (path.parent / "images").is_dir() else [path.parent]}
    else:
        content: dict[str, Any] = parse_yaml(read_bounded(path, LARGEST_YAML))
        names = _names(content["names"], path)
        splits = _splits(content, path, reading) or {"": [path.parent]}
    pictures, used = [], set[Path]()
    for split, places in splits.items():
        for file in dict.fromkeys(file for place in places for file in _images(place, reading)):
            picture = reading.open(file, split=split)
            if picture is not None:
                text = next((path for path in _label_files(file) if path.is_file()), None)
                if text is None:
                    reading.remarks.note("images without a text of labels have no object", picture.name)
                else:
                    _add_shapes(picture, text, names, reading)
                    used.add(text)
                pictures.append(picture)
    for text in sorted({text for folder in {text.parent for text in used} for text in folder.glob("*.txt")} - used):
        if "labels" in text.relative_to(reading.root).parts:
            reading.remarks.left_out("texts of labels without an image", text.name)
    reading.say_unnamed()
    return Export("YOLO segmentation", pictures, {name: Look() for name in names.values()})


def _splits(content: dict[str, Any], path: Path, reading: Reading) -> dict[str, list[Path]]:
    """The folders and lists of images of each split that a data.yaml names."""
    splits: dict[str, list[Path]] = {}
    for key, split in _SPLITS.items():
        given = content.get(key)
        for place in given if isinstance(given, list) else [given] if given else []:
            found = _place(str(place), content.get("path"), path)
            if found is not None:
                splits.setdefault(split, []).append(found)
            elif split == "train":
                what = f"{path} names '{place}', which is not in its folder"
                raise DataError(f"{what}; correct it, or copy the images there.")
            else:  # Roboflow names splits that it has no images of
                reading.remarks.left_out("splits whose folder is not there", f"{key}: {place}")
    return splits


def _names(given: Any, path: Path) -> dict[int, str]:
    """The names of classes by number, from a list or a mapping."""
    rows = dict(enumerate(given)) if isinstance(given, list) else given
    if not isinstance(rows, dict) or not rows or any(whole(number) is None for number in rows):
        raise DataError(f"{path} has names = {shown(given)}; give a list of names, or a mapping of numbers to names.")
    return {int(number): str(name) for number, name in rows.items()}


def _place(given: str, base: Any, path: Path) -> Path | None:
    """The folder or list that data.yaml means: as it says, or by the end of the path if it was written elsewhere."""
    parts = [part for part in PurePosixPath(given.replace("\\", "/")).parts if part not in ("/", "..", ".")]
    if base and isinstance(base, str):
        told = path.parent / base.replace("\\", "/") / Path(*parts)
        if exists(told):
            return told
    for start in range(len(parts)):
        if exists(path.parent / Path(*parts[start:])):
            return path.parent / Path(*parts[start:])
    return None


def _images(place: Path, reading: Reading) -> Iterator[Path]:
    """The images of a folder, or of a text file that lists them."""
    if place.suffix.lower() in IMAGE_ENDINGS:
        yield place
    elif place.is_dir():
        yield from (place / name for name in list_images(place))
    else:
        for line in filter(None, map(str.strip, _text(place).splitlines())):
            picture = reading.picture(line)
            if picture is not None and isinstance(picture.file, Path):
                yield picture.file


def _add_shapes(picture: Picture, text: Path, names: dict[int, str], reading: Reading) -> None:
    """Adds the objects of the text that belongs to an image."""
    height, width = picture.size
    for number, line in enumerate(_text(text).splitlines(), 1):
        words, where = line.split(), f"{text.name} line {number}"
        if not words:
            continue
        label = whole(words[0].removesuffix(".0"))
        corners = [_number(word) for word in words[1:]]
        if label not in names:
            reading.remarks.left_out("lines of a class that has no name", f"{where} (class {words[0][:20]})")
        elif len(corners) == 4:
            reading.remarks.left_out("boxes, which have no mask", where)
        elif None in corners or len(corners) % 2 or len(corners) < 6:
            reading.remarks.left_out("lines that are no polygon of three corners", where)
        elif max(abs(value) for value in corners if value is not None) > 2:
            reading.remarks.left_out("polygons that are not fractions of the image's size", where)
        else:
            scaled = [
                value * (height if place % 2 else width) for place, value in enumerate(corners) if value is not None
            ]
            picture.shapes.append(Shape(names[label], [scaled]))


def _label_files(image: Path) -> Iterator[Path]:
    """Where the text of an image may be: in a folder labels in place of the last images, or beside it."""
    parts = image.with_suffix(".txt").parts
    for place in reversed([place for place, part in enumerate(parts) if part.lower() == "images"]):
        yield Path(*parts[:place], "labels", *parts[place + 1 :])
    yield image.with_suffix(".txt")


def _number(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if abs(value) < 1e6 else None  # NaN is not


def _text(path: Path) -> str:
    try:
        return read_bounded(path, _LARGEST_TEXT).decode("utf-8-sig", "replace")
    except (OSError, ValueError) as fault:
        raise DataError(f"{path} cannot be read ({fault}); copy it again.") from fault
