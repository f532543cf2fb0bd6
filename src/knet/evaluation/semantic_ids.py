"""The label maps that `knet predict` wrote, whose pixels are category ids, as label maps of the table of a metric."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from knet.class_names import only_on_one_side
from knet.data.categories import SEMANTIC_CLASSES, load_categories
from knet.data.class_order import labels_of_ids
from knet.data.files.io import name_some
from knet.errors import DataError
from knet.files import is_file
from knet.structures import Category


class CategoryIds:
    """Turns category ids into the pixel values of a class table.

    Classes are found by name where the list of classes lies beside the files, as `knet predict` writes it; else by id.

    Args:
        table: {pixel value: name}.
        ids: the category id of each class of the table; None where these are the pixel values.
    """

    def __init__(self, table: Mapping[int, str], ids: Sequence[int] | None):
        self._values, ids = list(table), list(table) if ids is None else ids
        self._rows = [Category(id_, name, False, (0, 0, 0)) for id_, name in zip(ids, table.values(), strict=True)]
        self._known: dict[Path, tuple[dict[int, int], dict[int, str]]] = {}

    def values(self, ids: np.ndarray, path: Path) -> np.ndarray:
        """(H,W) category ids of the file at `path` -> (H,W) int64 pixel values, -1 for void

        Raises:
            DataError: there is an id that is no class of the table.
        """
        value_of, names = self._classes(path.parent)
        found, inverse = np.unique(ids, return_inverse=True)
        # Void is a number that no class has, see `knet.inference.results.writers`.
        void = {255, 65535} if 0 in (names or value_of) else {0}
        strange = [id_ for id_ in found.tolist() if id_ not in value_of and id_ not in void]
        if strange:
            table = [row.name for row in self._rows]
            if names:
                called, rest = names.get(strange[0]), only_on_one_side(list(names.values()), "it", table, "the table")
                what = f"the class {called!r} ({strange[0]}), which the class table lacks: {rest}"
            else:
                what = f"the ids {name_some(strange)}, which the class table lacks ({name_some(sorted(value_of), 10)})"
            raise DataError(f"{path} has {what}; give the table of the model that wrote it (--classes).")
        return np.array([value_of.get(id_, -1) for id_ in found.tolist()])[inverse].reshape(ids.shape)

    def _classes(self, folder: Path) -> tuple[dict[int, int], dict[int, str]]:
        """The pixel value of each category id of a folder's files, and the names of their classes, if it says them."""
        if folder not in self._known:
            file, own = folder / SEMANTIC_CLASSES, list[Category]()
            if is_file(file):
                own = list(load_categories(file))
            labels = labels_of_ids(
                [{"id": row.id, "name": row.name} for row in own], self._rows, str(file), partly=True
            )
            value_of = {id_: self._values[label] for id_, label in labels.items()}
            self._known[folder] = value_of, {row.id: row.name for row in own}
        return self._known[folder]
