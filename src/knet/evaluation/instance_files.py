"""Objects that `knet predict` wrote, as COCO's results: `<image>_segments.json`, or things of COCO panoptic files."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from knet.data.categories import things_from_rows
from knet.data.files.ahead import map_ahead
from knet.data.files.io import name_some, read_ids, read_json
from knet.data.files.masks import pack_mask
from knet.data.files.numbers import flag, whole
from knet.errors import DataError
from knet.evaluation.panoptic_files import (
    image_key,
    read_annotations,
    read_document,
    refuse_blue_first,
    under_ids_of_truth,
)
from knet.evaluation.same_classes import ids_of_truth
from knet.files import is_dir, is_file, open_plain, safe_name
from knet.structures import Category

_PANOPTIC = "panoptic.json"


def found_objects(truth: Path, predictions: Path) -> Path | list[dict[str, Any]]:
    """What `mask_ap` is to judge: a file of COCO's results as it is; rows of everything else that holds objects.

    That is a folder with the files of the format `json` or, without these, `panoptic`; or a COCO panoptic JSON.

    Raises:
        DataError: an image has no prediction or shares its name with another, there are no masks, or there are objects
            of a class that the truth lacks.
    """
    if not is_dir(predictions):
        return found_in_panoptic(truth, predictions) if _is_panoptic(predictions) else predictions
    if is_file(predictions / _PANOPTIC) and not _hold_masks(predictions):
        return found_in_panoptic(truth, predictions / _PANOPTIC)
    return found_in_folder(truth, predictions)


def found_in_folder(truth: Path, folder: Path) -> list[dict[str, Any]]:
    """The objects of all images of a COCO instances file, from the files in a folder: rows as `mask_ap` takes them.

    An image's file is found by the image's name, and classes are by theirs. Stuff is left out.
    """
    content, table = _read_truth(truth)
    rows, seen = list[dict[str, Any]](), dict[Path, Any]()
    for image in content["images"]:
        name = str(image.get("file_name"))
        path = folder / f"{safe_name(Path(name).stem)}_segments.json"
        if path in seen:
            raise DataError(f"{truth} lists {seen[path]} and {name}, whose results have one name; evaluate them apart.")
        seen[path] = name
        if not path.is_file():
            raise DataError(f"{folder} holds no {path.name} for {name}; write it with: knet predict --formats json")
        rows += _objects(path, image["id"])
    # No file lists the classes, but each segment names its own.
    names = {whole(row["category_id"]): row["name"] for row in rows}
    listed = [{"id": id_, "name": name} for id_, name in names.items() if isinstance(name, str)]
    of_truth = ids_of_truth(listed, table, str(folder))
    return [{**row, "category_id": of_truth(row["category_id"])} for row in rows]


def found_in_panoptic(truth: Path, predictions: Path) -> list[dict[str, Any]]:
    """The things of a COCO panoptic file with their scores; images and classes are paired as for PQ."""
    content, table = _read_truth(truth)
    document = read_document(predictions)
    listed = document.get("categories") or []
    stuff = {whole(row.get("id")) for row in listed if isinstance(row, Mapping) and not flag(row.get("isthing", 1))}
    things = [{**row, "segments_info": _without(row.get("segments_info"), stuff)} for row in document["annotations"]]
    found = read_annotations({**document, "annotations": things}, predictions, None, table)
    images = {"images": content["images"], "annotations": [{"image_id": row["id"]} for row in content["images"]]}
    found = under_ids_of_truth(images, document, found)
    missing = [row["id"] for row in content["images"] if image_key(row["id"]) not in found]
    if missing:
        raise DataError(
            f"{predictions} has no prediction for image_id {name_some(missing)}; every image of the truth needs one."
        )
    rows = list[dict[str, Any]]()
    wanted = [(row["id"], *found[image_key(row["id"])]) for row in content["images"]]
    for (image, path, segments), ids in zip(wanted, map_ahead(read_ids, [row[1] for row in wanted]), strict=True):
        refuse_blue_first(ids, segments, path)
        for segment in segments:
            mask = pack_mask(np.equal(ids, segment.get("id")))
            of_image = {"image_id": image, "category_id": segment.get("category_id")}
            if segment.get("score") is None:
                raise DataError(f"{predictions} has segments without a score, by which AP ranks them; add it.")
            rows.append({**of_image, "score": segment["score"], "segmentation": mask})
    return rows


def _read_truth(truth: Path) -> tuple[dict[str, Any], tuple[Category, ...]]:
    content = read_json(truth)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not all(isinstance(row, dict) and "id" in row for row in images):
        raise DataError(f"{truth} must hold a list `images` with an id each; give a COCO instances file.")
    return content, things_from_rows(content.get("categories"), str(truth))


def _without(segments: Any, stuff: set[Any]) -> Any:
    """The segments that are things."""
    if not isinstance(segments, list):
        return segments
    return [
        row
        for row in segments
        if not (
            isinstance(row, Mapping) and (whole(row.get("category_id")) in stuff or not flag(row.get("isthing", 1)))
        )
    ]


def _is_panoptic(path: Path) -> bool:
    with suppress(OSError), open_plain(path) as file:
        if file.read(9).strip(b"\xef\xbb\xbf \r\n\t").startswith(b"["):  # results, which may be large
            return False
    content = read_json(path)
    rows = content.get("annotations") if isinstance(content, dict) else None
    return isinstance(rows, list) and any(isinstance(row, dict) and "segments_info" in row for row in rows)


def _hold_masks(folder: Path) -> bool:
    """Whether files of the format `json` are those of a model whose objects may overlap: the first thing says it."""
    for path in folder.glob("*_segments.json"):
        content = read_json(path)
        for row in (content.get("segments") or []) if isinstance(content, dict) else []:
            if isinstance(row, dict) and row.get("thing", True):
                return "segmentation" in row
    return False


def _objects(path: Path, image_id: Any) -> list[dict[str, Any]]:
    content = read_json(path)
    segments = content.get("segments") if isinstance(content, dict) else None
    if not isinstance(segments, list) or not all(isinstance(row, dict) for row in segments):
        raise DataError(f"{path} has no list of segments; write it with: knet predict --formats json")
    things = [row for row in segments if row.get("thing", True)]
    if any("segmentation" not in row for row in things):
        raise DataError(
            f"{path} holds no masks, as the segments of its model share the pixels; write them with --formats "
            "panoptic, which --metric pq and --metric ap read."
        )
    of_image = {"image_id": image_id}
    return [
        of_image
        | {"category_id": row.get("category"), "name": row.get("name"), "score": row.get("score")}
        | {"segmentation": row["segmentation"]}
        for row in things
    ]
