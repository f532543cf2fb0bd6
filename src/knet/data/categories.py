"""Class tables: which classes a data set has, in which order a model counts them, and which numbers its files use.

A class has three numbers, which must not be confused: its *label* (position in the table, 0 .. K-1), its *category id*
(used in the data set's JSON files) and its *label value* (used in the pixels of its label PNGs; mostly the id).
"""

import colorsys
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeGuard

from knet.data.files.io import load_json
from knet.data.files.numbers import flag, whole
from knet.errors import ConfigError, DataError, KNetError, did_you_mean, shown
from knet.files import is_file
from knet.parse import LARGEST_YAML, parse_yaml, read_bounded
from knet.structures import Category

SEMANTIC_CLASSES = "semantic_classes.json"
"""The class table that lies beside label PNGs of category ids, which do not say their classes themselves."""

_FILE_ENDINGS = (".json", ".yaml", ".yml")
# The first seven are those of Okabe and Ito, the others as far from all before them as can be found, also as people
# see them who lack one kind of cone.
_PALETTE = (
    *((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0), (240, 228, 66)),
    *((135, 45, 15), (90, 255, 255), (60, 15, 210), (165, 105, 255), (165, 210, 165), (120, 75, 105), (165, 75, 45)),
    *((195, 240, 180), (150, 0, 255)),
)


@dataclass(frozen=True, slots=True)
class CategoryTable:
    """A class table in label order, with the numbers that label PNGs use; `source` is where it comes from.

    Attributes:
        label_values: the pixel value of each label.
        void_values: pixel values that mean void.
        flip_labels: the label that each label becomes in a mirror image: itself, but for classes that tell left from
            right (Mapillary Vistas v2.0 has arrows to the left and to the right).
        image_size: (height, width) of a usual image of the data set, None where the table does not say.
    """

    name: str
    source: str
    categories: tuple[Category, ...]
    label_values: tuple[int, ...]
    void_values: frozenset[int]
    flip_labels: tuple[int, ...]
    image_size: tuple[int, int] | None = None


LARGEST_VALUE = 2**24 - 1
"""The largest pixel value that a class can have: what the three channels of a PNG hold."""


def category_tables() -> list[str]:
    """Names of the class tables that come with the package."""
    return sorted(entry.name.removesuffix(".json") for entry in _folder().iterdir() if entry.name.endswith(".json"))


def package_table(name: str) -> dict[str, Any]:
    """The JSON of a class table that comes with the package, with all that `CategoryTable` does not hold."""
    return json.loads((_folder() / f"{name}.json").read_text("utf-8"))


def load_categories(name_or_path: str | Path) -> tuple[Category, ...]:
    """The classes of a table in label (training) order; see `load_table`."""
    return load_table(name_or_path).categories


def load_table(name_or_path: str | Path) -> CategoryTable:
    """A class table: one that comes with the package, by its name, or a JSON or YAML file of the user's, by its path.

    The file has a list `categories` of rows {id, name, thing, color, label_value, flip_to}. `color` is RGB and may be
    left out; so may `label_value` where it is the id, and `flip_to`, the id of the class that this one becomes in a
    mirror image, where that is the class itself. `void_id` is the pixel value (or list of values) that means void in
    label PNGs; `image_size`, which may be left out, is [height, width] of a usual image. The `categories` of a COCO
    panoptic JSON (with isthing instead of thing) are read as well.

    Raises:
        ConfigError: there is no such table or file, or the table contradicts itself.
    """
    text = str(name_or_path)
    if text in category_tables():
        return _to_table(package_table(text), text)
    path = Path(name_or_path)
    if not is_file(path):
        if path.suffix.lower() in _FILE_ENDINGS or len(path.parts) > 1:
            raise ConfigError(f"The class table {path} does not exist; give the path of a JSON or YAML file.")
        hint = did_you_mean(text.lower(), category_tables(), cutoff=0.4).capitalize()
        raise ConfigError(
            f"There is no class table {shown(text)}.{' ' + hint if hint else ''} Known tables: "
            f"{', '.join(category_tables())}; or give the path of a JSON or YAML file."
        )
    return _to_table(_parse_file(path), str(path))


def as_table(categories: str | Path | CategoryTable | Sequence[Category]) -> CategoryTable:
    """A table from whatever names or holds one. Plain rows have no label values: their pixels hold the ids."""
    if isinstance(categories, CategoryTable):
        return categories
    if isinstance(categories, str | Path):
        return load_table(categories)
    rows = tuple(categories)
    values, labels = tuple(row.id for row in rows), tuple(range(len(rows)))
    return CategoryTable("custom", "given as rows", rows, values, frozenset(), labels)


def rows_for_json(categories: Sequence[Category]) -> list[dict[str, Any]]:
    """The classes as rows of a COCO panoptic JSON."""
    return [{"id": c.id, "name": c.name, "isthing": int(c.thing), "color": list(c.color)} for c in categories]


def categories_from_rows(
    rows: object, where: str, error: type[KNetError] = ConfigError
) -> tuple[tuple[Category, ...], tuple[int, ...]]:
    """Classes and label values from the rows of a table or of a COCO JSON; `where` names the file in the `error`."""
    if not isinstance(rows, list) or not rows:
        raise error(f"{where}: 'categories' must be a list with at least one row of id, name and thing (or isthing).")
    categories: list[Category] = []
    values: list[int] = []
    for number, row in enumerate(rows):
        place = f"{where}: row {number + 1} of 'categories'"
        if not isinstance(row, dict):
            raise error(f"{place} is {shown(row)}; it must be a mapping with id, name and thing (or isthing).")
        id_, name = whole(row.get("id")), row.get("name")
        if id_ is None or id_ < 0:
            raise error(f"{place} has the id {shown(row.get('id'))}; give a whole number of 0 or more.")
        if not isinstance(name, str) or not name.strip():
            raise error(f"{place} has the name {shown(name)}; give a text.")
        given = row.get("thing", row.get("isthing"))
        thing = flag(given)
        if thing is None:
            raise error(
                f"{place} ({name}) has thing = {shown(given)}; give true for countable objects, false for stuff."
            )
        value = whole(row.get("label_value", id_))
        if value is None or value < 0:
            given = row.get("label_value")
            raise error(f"{place} ({name}) has the label_value {shown(given)}; give a whole number of 0 or more.")
        color = _to_color(row["color"], f"{place} ({name})", error) if "color" in row else _spread_color(number)
        categories.append(Category(id_, name, thing, color))
        values.append(value)
    ids, names = [row.id for row in categories], [row.name for row in categories]
    for what, given in (("id", ids), ("name", names), ("label_value", values)):
        repeated = next((value for value, count in Counter(given).items() if count > 1), None)
        if repeated is not None:
            raise error(
                f"{where} has two rows with the {what} {shown(repeated)}; every class of a table needs its own."
            )
    return tuple(categories), tuple(values)


def things_from_rows(rows: object, where: str) -> tuple[Category, ...]:
    """Classes from the rows of a COCO instances or YouTube-VIS file, which are all things without saying so.

    A row without a name is called by its id. `where` names the file in the `DataError`.
    """
    if isinstance(rows, list):
        rows = [{"thing": 1, "name": str(row.get("id")), **row} if isinstance(row, dict) else row for row in rows]
    return categories_from_rows(rows, where, DataError)[0]


def _folder() -> Any:
    return resources.files("knet.data") / "tables"


def _parse_file(path: Path) -> object:
    try:
        is_json = path.suffix.lower() == ".json"
        return load_json(path) if is_json else parse_yaml(read_bounded(path, LARGEST_YAML))
    except (OSError, ValueError) as fault:
        problem = " ".join(str(fault).split())
        raise ConfigError(f"The class table {path} cannot be read ({problem}); it must be JSON or YAML.") from fault


def _to_table(content: object, where: str) -> CategoryTable:
    if not isinstance(content, dict):
        raise ConfigError(f"The class table {where} must be a mapping with a list 'categories'.")
    rows = content.get("categories")
    categories, values = categories_from_rows(rows, f"The class table {where}")
    flips = _flip_labels(rows, categories, where)
    void = content.get("void_id")
    void_values = void if isinstance(void, list) else [] if void is None else [void]
    if not all(_is_whole(value) for value in void_values):
        raise ConfigError(f"The class table {where} has void_id = {shown(void)}; give a pixel value, a list, or null.")
    if (most := max(*values, *void_values, 0)) > LARGEST_VALUE:  # tables are made that go up to it
        raise ConfigError(f"The class table {where} has the pixel value {shown(most)}; they go up to {LARGEST_VALUE}.")
    both = sorted(set(void_values) & set(values))
    if both:
        name = categories[values.index(both[0])].name
        raise ConfigError(f"The class table {where} uses the pixel value {both[0]} for void and for {shown(name)}.")
    name = content.get("name", Path(where).stem)
    source, size = str(content.get("source", "")), _image_size(content.get("image_size"), where)
    return CategoryTable(str(name), source, categories, values, frozenset(void_values), flips, size)


def _image_size(size: Any, where: str) -> tuple[int, int] | None:
    if size is None:
        return None
    if not isinstance(size, list) or len(size) != 2 or not all(_is_whole(edge) and edge for edge in size):
        raise ConfigError(f"The class table {where} has image_size = {shown(size)}; give [height, width] in pixels.")
    return size[0], size[1]


def _flip_labels(rows: Any, categories: Sequence[Category], where: str) -> tuple[int, ...]:
    """The label that each label becomes in a mirror image, from the rows' `flip_to`; flips must go both ways."""
    label_of = {category.id: label for label, category in enumerate(categories)}
    flips = [whole(row.get("flip_to", row["id"])) for row in rows]
    for category, flip, row in zip(categories, flips, rows, strict=True):
        if flip is None or flip not in label_of:
            raise ConfigError(
                f"The class table {where} has flip_to = {shown(row['flip_to'])} for {shown(category.name)}; give "
                "the id of a class of it."
            )
        other = categories[label_of[flip]]
        if flips[label_of[flip]] != category.id or other.thing != category.thing:
            raise ConfigError(
                f"The class table {where} flips {shown(category.name)} to {shown(other.name)} but not back; "
                "two classes that a mirror swaps must name each other, and both be things or both stuff."
            )
    return tuple(label_of[flip] for flip in flips if flip is not None)


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _to_color(color: object, place: str, error: type[KNetError]) -> tuple[int, int, int]:
    if isinstance(color, list) and len(color) == 3 and all(_is_whole(part) and part <= 255 for part in color):
        return color[0], color[1], color[2]
    raise error(f"{place} has the color {shown(color)}; give three whole numbers from 0 to 255 (red, green, blue).")


def _spread_color(number: int) -> tuple[int, int, int]:
    """A colour for a row without one. Those of the first 16 stay apart also for people who are colour-blind."""
    if number < len(_PALETTE):
        return _PALETTE[number]
    hue, value = (number * 0.618034) % 1.0, (0.95, 0.75, 0.55)[number % 3]  # hues a golden ratio apart stay distinct
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, value)
    return round(red * 255), round(green * 255), round(blue * 255)
