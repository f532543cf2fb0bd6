"""COCO panoptic files as the metrics read them: a JSON file, and for each image a PNG whose colours are segment ids.

The metrics ask for less than `knet.data.readers.coco_panoptic`, which reads data to learn from: there need be no list
of images, predictions need no class table, and masks of images that are not evaluated may be missing.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from knet.data.files.ahead import map_ahead
from knet.data.files.channels import BLUE_FIRST, is_blue_first
from knet.data.files.io import name_some, read_ids, read_json, values_in
from knet.data.files.numbers import whole
from knet.data.readers.find_images import plain_name
from knet.errors import DataError
from knet.evaluation.same_classes import ids_of_truth
from knet.evaluation.same_files import file_of, same_files
from knet.structures import Category, Segment, SegmentInfo

SegmentLike = Mapping[str, Any] | SegmentInfo | Segment
"""A row of `segments_info` (`id`, `category_id`, optional `iscrowd` and `area`), or one of this package's segments."""

Labelled = tuple[np.ndarray, Sequence[SegmentLike]]
"""An image's id map (H,W) and its segments."""

Annotation = tuple[Path, list[Any]]
"""Where an image's mask lies, and its segments."""

ID_LIMIT = 1 << 24  # an RGB mask holds three bytes


def read_document(path: Path) -> dict[str, Any]:
    """The content of a COCO panoptic JSON file, which has a list `annotations`."""
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise DataError(f"{path} has no list of `annotations`; give a JSON file in the COCO panoptic format.")
    return content


def read_annotations(
    content: Mapping[str, Any], path: Path, folder: str | PathLike[str] | None, categories: Sequence[Category]
) -> dict[Any, Annotation]:
    """The annotation of each `image_id` of the document at `path`, with the category ids of the class table.

    A document with a list of classes has numbers of its own for them: they are found by name.
    The masks lie in `folder`; None takes the first of the usual folders beside the document that holds a mask.
    """
    of_truth = ids_of_truth(content.get("categories"), categories, str(path))

    def renumbered(segment: Any) -> Any:
        known = isinstance(segment, Mapping) and "category_id" in segment
        return {**segment, "category_id": of_truth(segment["category_id"])} if known else segment

    rows: dict[Any, tuple[str, list[Any]]] = {}
    for row in content["annotations"]:
        try:
            image, name, segments = row["image_id"], row["file_name"], row["segments_info"]
            sound = isinstance(name, str) and isinstance(segments, list)
            rows[image_key(image)] = (name, [renumbered(segment) for segment in segments])
        except (KeyError, TypeError):
            sound = False
        if not sound:
            raise DataError(f"{path}: an annotation needs image_id, file_name and segments_info, not {row!r:.200}.")
    beside = [path.with_suffix(""), path.with_name(re.sub(r"[_-]?\d+$", "", path.stem) or path.stem), path.parent]
    holding = (place for place in beside if any((place / plain_name(name)).is_file() for name, _ in rows.values()))
    masks = Path(folder) if folder is not None else next(holding, beside[0])
    return {image: (masks / plain_name(name), segments) for image, (name, segments) in rows.items()}


def under_ids_of_truth(
    truth: Mapping[str, Any], predictions: Mapping[str, Any], found: dict[Any, Annotation]
) -> dict[Any, Annotation]:
    """The predictions under the truth's ids of images, where both documents list images of the same file names.

    Ids are numbers of a data set's own, which whoever segments the images does not know. Else they stay as they are.
    """
    annotated = {image_key(row["image_id"]) for row in truth["annotations"]}
    names = {key: name for key, name in _file_names(truth).items() if key in annotated}
    pairs = same_files(names, _file_names(predictions)) if len(names) == len(annotated) else {}
    return {key: found[own] for key, own in pairs.items() if own in found} if pairs else found


def _file_names(content: Mapping[str, Any]) -> dict[Any, str]:
    """The name of each image's file, as far as rows tell them, by its id."""
    rows = content.get("images")
    rows = rows if isinstance(rows, list) else []
    rows = [row for row in rows if isinstance(row, Mapping) and isinstance(row.get("id"), int | float | str)]
    return {image_key(row["id"]): name for row in rows if (name := file_of(row)) is not None}


def image_key(image: Any) -> Any:
    """Image ids as they are compared: tools disagree on whether a numeric id is a number or text ("000285")."""
    number = whole(image)
    return image if number is None else number


def read_pairs(
    truth: Mapping[Any, Annotation], predictions: Mapping[Any, Annotation]
) -> Iterator[tuple[str, Labelled, Labelled]]:
    """The name, the truth and the prediction of each image of the truth, read ahead in threads."""
    missing = [image for image in truth if image not in predictions]
    if missing:
        raise DataError(
            f"There is no prediction for image_id {name_some(missing)}; every image of the truth needs one."
        )
    ids = map_ahead(read_ids, [path for image in truth for path in (truth[image][0], predictions[image][0])])
    for image in truth:
        sides = []
        for path, segments in (truth[image], predictions[image]):
            sides.append((refuse_blue_first(next(ids), segments, path), segments))
        yield f"image {image}", sides[0], sides[1]


def refuse_blue_first(id_map: np.ndarray, segments: Sequence[Any], path: Path) -> np.ndarray:
    """The id map (H,W), if its ids are not those of its segments with red and blue exchanged.

    Ids of the truth that no segment lists are allowed, so such a file would give figures, and wrong ones.
    """
    listed = {whole(row.get("id")) for row in segments if isinstance(row, Mapping)} - {None}
    if is_blue_first(values_in(id_map).tolist(), listed):
        raise DataError(f"{path} has ids that its segments do not list: {BLUE_FIRST}.")
    return id_map
