"""Label Studio's "Brush labels to PNG": a grey PNG for each stroke of each task, whose name says task and label.

The PNGs name tasks, not images: which image a task is of stands in the project's export as JSON, which has to lie
beside them, with the images.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from knet.data.exports.export import Export, Look, Picture, Reading, Shape, files_below
from knet.data.exports.finder import path_in_address
from knet.data.files.io import read_gray, read_json
from knet.data.files.masks import pack_mask
from knet.data.files.numbers import whole
from knet.data.readers.reader import size_text
from knet.errors import DataError

_NAME = re.compile(r"task-(\d+)-annotation-(\d+)-by-([^-]*)-([^-]*)-(.+)-(\d+)\.png")


def find_brush(root: Path) -> list[Path]:
    """The PNGs of strokes below a folder."""
    return [path for path in files_below(root, ".png") if _NAME.fullmatch(path.name)]


def read_brush(reading: Reading) -> Export:
    """Reads the strokes of each task's latest annotation; each is an object."""
    tasks, known = _tasks(reading.root)
    strokes: dict[int, dict[int, list[tuple[str, Path]]]] = {}
    for path in find_brush(reading.root):
        task, annotation, _, _, label, _ = _NAME.fullmatch(path.name).groups()  # type: ignore[union-attr]
        end = path.stem.rpartition("-")[0]
        label = max((name for name in known if end.endswith(f"-{name}")), key=len, default=label)
        strokes.setdefault(int(task), {}).setdefault(int(annotation), []).append((label, path))
    if not tasks:
        raise DataError(
            f"The PNGs in {reading.root} name Label Studio's tasks, not images; export the project as JSON as well, "
            "and put the file and the images beside them."
        )
    pictures, classes = [], dict[str, Look]()
    for task, versions in sorted(strokes.items()):
        if task not in tasks:
            reading.remarks.left_out("tasks that the JSON does not list", f"task {task}")
            continue
        if len(versions) > 1:
            reading.remarks.note("of several annotations of a task the latest counts", f"task {task}")
        picture = reading.picture(tasks[task])
        if picture is not None:
            for label, path in versions[max(versions)]:
                classes.setdefault(label, Look())
                _add_stroke(picture, label, path, reading)
            pictures.append(picture)
    return Export("Label Studio brush PNGs", pictures, classes)


def _add_stroke(picture: Picture, label: str, path: Path, reading: Reading) -> None:
    try:
        mask = read_gray(path) > 0
    except DataError as fault:
        reading.remarks.left_out("masks that cannot be read", str(fault).rstrip("."))
        return
    if mask.shape != picture.size:
        reading.remarks.left_out("masks of another size than their image", f"{path.name} {size_text(mask.shape)}")
    else:
        picture.shapes.append(Shape(label, pack_mask(mask)))


def _tasks(root: Path) -> tuple[dict[int, str], set[str]]:
    """The image of each task, from the project's JSON, in full or "min", and the labels that it names.

    Who labelled, and with what, may have a dash in the PNG's name, so that it alone does not tell the label.
    """
    found, labels = dict[int, str](), set[str]()
    for path in files_below(root, ".json"):
        try:
            content = read_json(path)
        except DataError:
            continue
        for row in content if isinstance(content, list) else []:
            id_ = whole(row.get("id")) if isinstance(row, dict) else None
            data = row.get("data", row) if id_ is not None else {}
            texts = [value for value in data.values() if isinstance(value, str)] if isinstance(data, dict) else []
            image = next((name for name in map(path_in_address, texts) if name), None)
            if id_ is not None and image is not None:
                found.setdefault(id_, image)
            labels.update(_labels_in(row))
    return found, labels


def _labels_in(content: Any) -> Iterator[str]:
    """The labels of brushes anywhere in a task."""
    inside = list(content.values()) if isinstance(content, dict) else content if isinstance(content, list) else []
    if isinstance(content, dict) and isinstance(content.get("brushlabels"), list):
        yield from (name for name in content["brushlabels"] if isinstance(name, str))
    for one in inside:
        yield from _labels_in(one)
