"""The classes of a file in the order of another class table: by their names, since every tool numbers them anew."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from knet.class_names import only_on_one_side, same_names
from knet.data.categories import CategoryTable
from knet.data.files.numbers import flag, whole
from knet.errors import DataError, shown
from knet.structures import Category

_logger = logging.getLogger("knet")


class OtherClassesError(DataError):
    """A file has other classes than the class table that it is to be read with. `labels` are those of the same name."""

    def __init__(self, sentence: str, labels: dict[int, int]):
        super().__init__(sentence)
        self.labels = labels


def labels_of_ids(
    rows: object, categories: Sequence[Category], where: str, *, partly: bool = False, kinds: bool = True
) -> dict[int, int]:
    """The label in `categories` of each category id that a JSON file uses, by its list of classes.

    A file without such a list, whose `rows` are None or have no names, uses the ids of `categories`. `where` names the
    file in the error, and in the lines that say that it numbers the classes otherwise or, if `kinds` count there, takes
    stuff for things.

    Raises:
        OtherClassesError: the names are not the same, unless `partly` is enough; or two classes of the file are one.
        DataError: there is something else than a list of classes, or two of them have one id.
    """
    if rows and not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        raise DataError(f"{where} has 'categories' of {shown(rows)}; they must be a list of rows with id and name.")
    own: list[dict[str, Any]] = rows if isinstance(rows, list) else []
    own = [row | {"id": id_} for row in own if (id_ := whole(row.get("id"))) is not None]
    if not any(isinstance(row.get("name"), str) for row in own):
        return {category.id: label for label, category in enumerate(categories)}
    classes = [(row["id"], str(row.get("name", row["id"]))) for row in own]
    labels = _labels_by_name(classes, categories, where, partly)
    known = [(categories[labels[row["id"]]], flag(row.get("isthing"))) for row in own if row["id"] in labels]
    other = [category for category, thing in known if thing not in (None, category.thing)]
    if other and kinds:
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        _logger.warning(
            f"{where} takes '{other[0].name}'{more} for {'stuff' if other[0].thing else 'things'}, which the class "
            "table does not; the table counts."
        )
    return labels


def _labels_by_name(
    own: Sequence[tuple[int, str]], categories: Sequence[Category], where: str, partly: bool = False
) -> dict[int, int]:
    """The label in `categories` of the id of each of a file's classes (id, name); see `labels_of_ids`."""
    names, wanted = [name for _, name in own], [category.name for category in categories]
    repeated = next((id_ for id_, count in Counter(id_ for id_, _ in own).items() if count > 1), None)
    if repeated is not None:
        raise DataError(f"{where} has two classes with the id {repeated}; give each class a name and an id of its own.")
    found = zip(own, same_names(names, wanted), strict=True)
    labels = {id_: label for (id_, _), label in found if label is not None}
    if len(set(labels.values())) < len(labels):
        twice = next(name for name in names if names.count(name) > 1)
        raise OtherClassesError(
            f"{where} has two classes '{twice}'; give each class a name and an id of its own.", labels
        )
    difference = only_on_one_side(names, "the file", wanted, "the table")
    if difference and not partly:
        raise OtherClassesError(
            f"{where} has other classes than the class table that it is to be read with: {difference}. Call the same "
            "classes alike, take the file's own (data.categories=null), or say in the set's `classes` which is which.",
            labels,
        )
    moved = [(id_, categories[label]) for id_, label in labels.items() if id_ != categories[label].id]
    if moved:
        id_, category = moved[0]
        _logger.info(
            f"{where} numbers {len(moved)} of its {len(own)} classes otherwise ('{category.name}' is {id_}, here "
            f"{category.id}); they are matched by name."
        )
    return labels


def in_order(table: CategoryTable, categories: Sequence[Category], where: str) -> CategoryTable:
    """The table with its classes as `categories` has those of the same names: in their order, with their ids and kinds.

    The values and colours that stand for a class in label PNGs stay those of the table.

    Raises:
        OtherClassesError: the names are others; `where` says whose the table is.
    """
    labels = list(_labels_by_name([(row.id, row.name) for row in table.categories], categories, where).values())
    order = [labels.index(label) for label in range(len(categories))]
    return replace(
        table,
        categories=tuple(replace(c, color=table.categories[n].color) for c, n in zip(categories, order, strict=True)),
        label_values=tuple(table.label_values[n] for n in order),
        flip_labels=tuple(labels[table.flip_labels[n]] for n in order),
    )
