"""Results that bring their own list of classes, under the category ids of the truth: a class is found by its name."""

from collections.abc import Callable, Sequence
from typing import Any

from knet.class_names import only_on_one_side
from knet.data.class_order import labels_of_ids
from knet.data.files.numbers import whole
from knet.errors import DataError, shown
from knet.structures import Category


def ids_of_truth(listed: Any, categories: Sequence[Category], where: str) -> Callable[[Any], Any]:
    """What turns a category id of a file with the list of classes `listed` into that of the truth's class.

    It raises `DataError` for a class that the truth lacks; the list may have such as long as nothing is of them. A file
    without a list uses the truth's ids. `where` names the file.
    """
    labels = labels_of_ids(listed, categories, where, partly=True)
    rows = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
    names = {whole(row.get("id")): str(row["name"]) for row in rows if isinstance(row.get("name"), str)}

    def of_truth(own: Any) -> Any:
        number = whole(own)
        if number in labels:
            return categories[labels[number]].id
        if number not in names:
            if names and number is not None:
                raise DataError(f"{where} uses the category {shown(own)}, which its own list of classes lacks; add it.")
            return own
        known = [category.name for category in categories]
        raise DataError(
            f"{where} has something of the class '{names[number]}' ({number}), which the truth lacks: "
            f"{only_on_one_side(list(names.values()), 'it', known, 'the truth')}; call the same classes alike."
        )

    return of_truth
