"""Objects that `knet predict` wrote, `<image>_segments.json` for each image, as COCO's results."""

from pathlib import Path
from typing import Any

from knet.data.files.io import read_json
from knet.errors import DataError
from knet.files import safe_name


def found_in_folder(truth: Path, folder: Path) -> list[dict[str, Any]]:
    """The objects of all images of a COCO instances file, from the files in a folder: rows as `mask_ap` takes them.

    An image's file is found by the image's name. Stuff is left out.

    Raises:
        DataError: an image has no file or shares its name with another, or a file holds no masks.
    """
    content = read_json(truth)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not all(isinstance(row, dict) and "id" in row for row in images):
        raise DataError(f"{truth} must hold a list `images` with an id each; give a COCO instances file.")
    rows, seen = list[dict[str, Any]](), dict[Path, Any]()
    for image in images:
        name = str(image.get("file_name"))
        path = folder / f"{safe_name(Path(name).stem)}_segments.json"
        if path in seen:
            raise DataError(f"{truth} lists {seen[path]} and {name}, whose results have one name; evaluate them apart.")
        seen[path] = name
        if not path.is_file():
            raise DataError(f"{folder} holds no {path.name} for {name}; write it with: knet predict --formats json")
        rows += _objects(path, image["id"])
    return rows


def _objects(path: Path, image_id: Any) -> list[dict[str, Any]]:
    content = read_json(path)
    segments = content.get("segments") if isinstance(content, dict) else None
    if not isinstance(segments, list) or not all(isinstance(row, dict) for row in segments):
        raise DataError(f"{path} has no list of segments; write it with: knet predict --formats json")
    things = [row for row in segments if row.get("thing", True)]
    if any("segmentation" not in row for row in things):
        raise DataError(
            f"{path} holds no masks, as the segments of its model share the pixels; write them with --formats panoptic "
            "and use --metric pq."
        )
    of_image = {"image_id": image_id}
    return [
        of_image | {"category_id": row.get("category"), "score": row.get("score"), "segmentation": row["segmentation"]}
        for row in things
    ]
