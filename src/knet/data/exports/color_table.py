"""Tables of colours, in which each class has one: CVAT's labelmap.txt, CSV, lines, JSON and YAML."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from knet.data.files.io import load_json
from knet.errors import DataError
from knet.parse import LARGEST_YAML, parse_yaml, read_bounded

Colors = dict[int, str]
"""The class of each colour, R * 65536 + G * 256 + B."""

_LABELMAP = re.compile(r"(.+?):(\d{1,3}),(\d{1,3}),(\d{1,3})(?::.*)?")  # as CVAT writes it; names may have commas
_TRIPLE = re.compile(r"(?<!\d)(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})(?!\d)")

_Row = tuple[str, tuple[int, int, int]]


def read_colors(path: Path) -> Colors:
    """The class of each colour from lines (`name:r,g,b::`, `r g b name`, CSV), or from JSON or YAML.

    Raises:
        DataError: the file cannot be read, names no colours, or gives two classes the same.
    """
    try:
        if path.suffix.lower() in (".csv", ".txt"):
            lines = _text(read_bounded(path, LARGEST_YAML)).splitlines()
            rows = [row for line in lines if not line.startswith("#") and (row := _of_line(line.strip()))]
        else:
            is_json = path.suffix.lower() == ".json"
            content = load_json(path) if is_json else parse_yaml(read_bounded(path, LARGEST_YAML))
            rows = list(_of_content(content))
    except (OSError, ValueError, csv.Error) as fault:
        raise DataError(f"The table of colours {path} cannot be read ({fault}).") from fault
    colors: Colors = {}
    for name, (red, green, blue) in rows:
        other = colors.setdefault(red << 16 | green << 8 | blue, name)
        if other != name:
            raise DataError(f"{path} has the colour {red}, {green}, {blue} for '{other}' and for '{name}'.")
    if not colors:
        raise DataError(f"{path} names no colours; give lines such as 'car:255,0,0' or 'car,255,0,0'.")
    return colors


def _text(data: bytes) -> str:
    """A text in UTF-8 or UTF-16, or as spreadsheets of western Windows write it."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _of_line(line: str) -> _Row | None:
    if found := _LABELMAP.fullmatch(line):
        return _row([found[1]], list(found.groups()[1:]))
    if not re.search(r"[,;\t]", line):
        found = _TRIPLE.search(line)
        return found and _row([line[: found.start()], line[found.end() :]], list(found.groups()))
    comma = max(",;\t", key=line.count)
    cells = [cell.strip() for cell in next(csv.reader([line], delimiter=comma, skipinitialspace=True))]
    for place, cell in enumerate(cells):
        if (color := _color(cell)) is not None:
            return _row([*cells[:place], *cells[place + 1 :]], list(map(str, color)))
        if len(three := cells[place : place + 3]) == 3 and all(map(str.isdecimal, three)) and _color(" ".join(three)):
            return _row([*cells[:place], *cells[place + 3 :]], three)
    return None


def _row(cells: list[str], color: list[str]) -> _Row | None:
    """The first cell that is a name, and the colour; None if there is no name, or the numbers are no colour."""
    names = [cell.strip(" :,;\t") for cell in cells]
    names = [name for name in names if name and not name.isdecimal()]
    made = _color(" ".join(color))
    return (names[0], made) if names and made is not None else None


def _of_content(content: Any) -> Iterator[_Row]:
    """Names and colours of {name: colour}, {colour: name}, or a list of rows with name and color."""
    if isinstance(content, dict):
        content = next((content[key] for key in ("categories", "classes", "labels") if key in content), content)
    if isinstance(content, dict):
        pairs = list(content.items())
    elif isinstance(content, list):
        rows = [row for row in content if isinstance(row, dict)]
        pairs = [(_first(row, "name", "title", "label"), _first(row, "color", "colour", "rgb")) for row in rows]
    else:
        pairs = []
    for one, other in pairs:
        for name, color in ((one, _color(other)), (other, _color(one))):
            if isinstance(name, str) and color is not None:
                yield name, color
                break


def _first(row: dict[str, Any], *keys: str) -> Any:
    return next((row[key] for key in keys if key in row), None)


def _color(given: Any) -> tuple[int, int, int] | None:
    if isinstance(given, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", given):
        return int(given[1:3], 16), int(given[3:5], 16), int(given[5:7], 16)
    if isinstance(given, str) and (found := re.fullmatch(r"\D*(\d{1,3})\D+(\d{1,3})\D+(\d{1,3})\D*", given)):
        given = [int(part) for part in found.groups()]
    if (
        isinstance(given, list)
        and len(given) == 3
        and all(isinstance(part, int) and 0 <= part <= 255 for part in given)
    ):
        return given[0], given[1], given[2]
    return None
