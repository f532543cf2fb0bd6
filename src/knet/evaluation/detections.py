"""Objects with scores, as COCO's and YouTube-VIS's average precision (AP) take them: checked, then evaluated.

Both formats list wholes (images, videos), annotations of the objects in them, and predictions; what a row must hold is
the same but for its masks.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from tqdm import tqdm

from knet.data.categories import things_from_rows
from knet.data.files.io import read_json
from knet.data.files.numbers import flag, id_key, whole
from knet.errors import DataError, shown
from knet.evaluation.same_classes import ids_of_truth
from knet.evaluation.same_files import file_of, same_files
from knet.structures import Category

Rows = list[dict[str, Any]]
Size = tuple[int, ...]
"""Height, width and, of a video, the number of frames."""


class Whole(NamedTuple):
    """An image or a video: the number that stands for its id, its size, and its id as text."""

    number: int
    size: Size
    name: str


Wholes = Mapping[Any, Whole]
"""Images or videos by id."""

_PIXELS = 1 << 32  # of an image, which the library counts in 32 bits
_LIMITS = [1, 10, 100]  # predictions that count for each image and class
_RANGES = ("all", "small", "medium", "large")  # as the library orders them


ReadMasks = Callable[[Mapping[str, Any], Size, str, bool], dict[str, Any]]
"""Takes a row, the size of its image or video, what errors call the row, and whether it is a prediction; gives what the
library needs of its mask: `segmentation`, `bbox` and `area`."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format's words: its name, what objects lie in, the sizes of that, and what a prediction is called."""

    name: str
    whole: str
    sizes: tuple[str, ...]
    prediction: str

    def read(
        self, truth: Any, predictions: Any, read_masks: ReadMasks, classes: Mapping[int, str] | None, progress: bool
    ) -> tuple[Rows, Rows, list[Whole], Mapping[int, str]]:
        """Annotations, predictions, the images or videos, and the categories.

        Truth and predictions are paths, or what the JSON files hold. Numbers stand for ids, which may be text, and
        decide between equal scores. `classes` {id: name} are the categories that are evaluated, None the truth's.
        """
        origin, content = _opened(truth, "truth")
        lists = f"{self.whole}s", "annotations"
        if not isinstance(content, Mapping) or not all(isinstance(content.get(key), list) for key in lists):
            raise DataError(
                f"{origin} must hold lists `{lists[0]}` and `annotations`; give a file in {self.name}'s format."
            )
        table = things_from_rows(content.get("categories"), origin)
        known = {category.id: category.name for category in table}
        names = known if classes is None else classes
        same = id_key(row.get("id") for row in content[lists[0]] if isinstance(row, Mapping))
        sizes = self._read_sizes(content[lists[0]], origin, same)

        def rows(listed: Sequence[Any], origin: str, scored: bool) -> Rows:
            what = self.prediction if scored else "annotation"
            bar = tqdm(listed, f"{what}s", unit=what, disable=None if progress else True)
            return [
                {
                    "id": n,
                    **self._read_row(row, f"{origin}: {what} {n}", sizes, same, {*known, *names}, read_masks, scored),
                }
                for n, row in enumerate(bar, 1)
            ]

        true = rows(content["annotations"], origin, scored=False)
        origin, results = _opened(predictions, "predictions")
        if isinstance(results, Mapping) and "categories" in results:  # in the form of a truth, with numbers of its own
            results = self._as_in_truth(content, table, results, origin)
        if not isinstance(results, list | tuple):
            raise DataError(f"{origin} must hold a list of {self.prediction}s; give results in {self.name}'s format.")
        return true, rows(results, origin, scored=True), list(sizes.values()), names

    def _as_in_truth(
        self, truth: Mapping[str, Any], table: Sequence[Category], results: Mapping[str, Any], origin: str
    ) -> Any:
        """The rows of results that list their own classes and wholes, with the ids that these have in the truth."""
        rows, key, listed = results.get("annotations"), f"{self.whole}_id", f"{self.whole}s"
        if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
            return rows
        of_truth = ids_of_truth(results.get("categories"), table, origin)
        rows = [{**row, "category_id": of_truth(row.get("category_id"))} for row in rows]
        names = _names_of_files(results.get(listed))
        same = id_key(names)
        id_of = {same(own): id_ for id_, own in same_files(_names_of_files(truth[listed]), names).items()}
        if not id_of:
            return rows
        strange = next((row.get(key) for row in rows if same(row.get(key)) not in id_of), None)
        if strange is not None:
            called = names.get(same(strange), strange)
            raise DataError(
                f"{origin} has a {self.prediction} of the {self.whole} {shown(called)}, which the truth does not list."
            )
        return [{**row, key: id_of[same(row[key])]} for row in rows]

    def faults(self, truth: Any, read_masks: ReadMasks) -> dict[Any, str]:
        """What is wrong with the annotations of a sound file, by the id of their image or video: the first of each."""
        origin, content = _opened(truth, "truth")
        known = [category.id for category in things_from_rows(content.get("categories"), origin)]
        images, found = content[f"{self.whole}s"], dict[Any, str]()
        same = id_key(row.get("id") for row in images if isinstance(row, Mapping))
        sizes = self._read_sizes(images, origin, same)
        for number, row in enumerate(content.get("annotations") or [], 1):
            try:
                self._read_row(row, f"{origin}: annotation {number}", sizes, same, known, read_masks, scored=False)
            except DataError as fault:
                found.setdefault(row.get(f"{self.whole}_id") if isinstance(row, Mapping) else None, str(fault))
        return found

    def _read_sizes(self, rows: Sequence[Any], origin: str, same: Callable[[Any], Any]) -> Wholes:
        sizes: dict[Any, Size] = {}
        for row in rows:
            keys: Mapping[str, Any] = row if isinstance(row, Mapping) else {}
            if isinstance(keys.get("file_names"), list):  # of a video, one for each frame
                keys = {"length": len(keys["file_names"]), **keys}
            id_, size = same(keys.get("id")), [whole(keys.get(key)) or 0 for key in self.sizes]
            if id_ is None or min(size) < 1:
                needs = f"id, {', '.join(self.sizes[:-1])} and {self.sizes[-1]}"
                raise DataError(f"{origin}: every {self.whole} needs {needs}, not {row!r:.80}.")
            if id_ in sizes:
                raise DataError(f"{origin} lists the {self.whole} {shown(id_)} twice; ids must be unique.")
            sizes[id_] = tuple(size)
            if math.prod(sizes[id_]) >= _PIXELS:
                raise DataError(f"{origin}: the {self.whole} {shown(id_)} has 2^32 pixels or more; split it.")
        if not sizes:
            raise DataError(f"{origin} lists no {self.whole}s; there is nothing to evaluate.")
        ordered = sorted(sizes, key=lambda id_: (isinstance(id_, str), id_))
        return {id_: Whole(number, sizes[id_], str(id_)) for number, id_ in enumerate(ordered, 1)}

    def _read_row(
        self,
        row: Any,
        place: str,
        sizes: Wholes,
        same: Callable[[Any], Any],
        categories: Collection[int],
        read_masks: ReadMasks,
        scored: bool,
    ) -> dict[str, Any]:
        if not isinstance(row, Mapping):
            raise DataError(f"{place} is {row!r:.60}; it must hold {self.whole}_id, category_id and more.")
        of, category, score = row.get(f"{self.whole}_id"), whole(row.get("category_id")), row.get("score")
        if same(of) not in sizes:
            raise DataError(f"{place} is of the {self.whole} {shown(of)}, which the truth does not list.")
        if category not in categories:
            raise DataError(f"{place} has the category {shown(row.get('category_id'))}, which the truth does not list.")
        crowd = flag(row.get("iscrowd") or 0)
        if crowd is None:
            raise DataError(f"{place} has iscrowd {shown(row['iscrowd'])}; give 0 or 1.")
        if scored and not is_number(score):
            raise DataError(f"{place} has the score {shown(score)}; every {self.prediction} needs a number.")
        number, size, _ = sizes[same(of)]
        last = {"score": float(row["score"]), "iscrowd": 0} if scored else {"iscrowd": int(crowd)}
        return {"image_id": number, "category_id": category, **read_masks(row, size, place, scored), **last}


def average_precision(
    true: Rows,
    predicted: Rows,
    sizes: Sequence[Whole],
    names: Mapping[int, str],
    kind: str = "segm",
    *,
    ranges: Sequence[tuple[float, float]] | None = None,
    matched: Rows | None = None,
) -> dict[str, Any]:
    """The figures of all categories and of each as `mask_ap` returns them, from what `Format.read` gives.

    `ranges` are the least and largest area of all, small, medium and large objects, None for COCO's. `matched` is the
    truth as predictions are matched with it, where that is not `true` itself.
    """
    content = {"images": [{"id": number, "height": size[0], "width": size[1]} for number, size, _ in sizes]}
    content["categories"] = [{"id": category} for category in sorted(names)]
    sides = [COCO({**content, "annotations": rows}) for rows in (true if matched is None else matched, predicted)]
    evaluator = COCOeval_faster(*sides, iouType=kind, print_function=lambda *_: None)
    evaluator.params.maxDets, evaluator.params.catIds = list(_LIMITS), sorted(names)
    if ranges is not None:
        evaluator.params.areaRng = [list(limits) for limits in ranges]
    evaluator.evaluate()
    evaluator.accumulate()
    precision, recall = evaluator.eval["precision"], evaluator.eval["recall"]  # (T,R,K,A,M), (T,K,A,M); -1: none

    def figures(of: slice) -> dict[str, float | None]:
        row = {"ap": precision[:, :, of, 0, -1], "ap50": precision[0, :, of, 0, -1], "ap75": precision[5, :, of, 0, -1]}
        row |= {f"ap{size[0]}": precision[:, :, of, n, -1] for n, size in enumerate(_RANGES) if n}
        row |= {f"ar{limit}": recall[:, of, 0, n] for n, limit in enumerate(_LIMITS)}
        row |= {f"ar{size[0]}": recall[:, of, n, -1] for n, size in enumerate(_RANGES) if n}
        return {key: float(values[values > -1].mean()) if (values > -1).any() else None for key, values in row.items()}

    objects = Counter(row["category_id"] for row in true if not row["iscrowd"])
    predictions = Counter(row["category_id"] for row in predicted)
    places = {category: slice(place, place + 1) for place, category in enumerate(sorted(names))}
    classes = {
        id_: {"name": name, **figures(places[id_]), "objects": objects[id_], "predictions": predictions[id_]}
        for id_, name in names.items()
    }
    return {"all": figures(slice(None)), "classes": classes}


def _names_of_files(rows: Any) -> dict[Any, str]:
    """The names of the files of images or videos by their ids, as far as rows tell them."""
    rows = [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
    ids = [(row.get("id"), file_of(row)) for row in rows]
    return {id_: name for id_, name in ids if name is not None and isinstance(id_, int | float | str)}


def _opened(source: Any, what: str) -> tuple[str, Any]:
    """What errors call a file or an argument, and its content."""
    if isinstance(source, str | PathLike):
        return str(source), read_json(Path(source))
    return f"The {what}", source


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value of a JSON file is a whole number."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value of a JSON file is a finite number."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return number and bool(abs(value) < math.inf)  # NaN is not
