"""COCO instances as CVAT, Label Studio, Roboflow, labelme2coco and others export them: one JSON, or one a split.

What tools do differently: a placeholder class that nothing is of (Roboflow), the same class in two rows, brush masks
marked as crowds (CVAT), no sizes, image names of another machine.
"""

from collections import Counter
from json import loads
from pathlib import Path
from typing import Any

from knet.data.check.findings import KINDS
from knet.data.exports.export import Export, Look, Picture, Reading, Shape, files_below, split_named
from knet.data.files.io import read_image_size, read_json
from knet.data.files.numbers import flag, id_key, whole
from knet.data.readers.instances_json import DROPPED, Entry, InstancesJson, Object
from knet.data.readers.panoptic_json import Fault
from knet.errors import DataError

_FORM = "COCO instances"


def find_coco(root: Path) -> Path | None:
    """The first JSON file of an export that holds images and annotations."""
    return next((path for path in files_below(root, ".json") if _is_coco(path)), None)


def read_coco(reading: Reading) -> Export:
    """Reads all COCO JSONs of an export; classes of the same name are one."""
    pictures: list[Picture] = []
    classes: dict[str, Look] = {}
    found_there = [path for path in files_below(reading.root, ".json") if _is_coco(path)]
    files = [reading.given] if reading.given in found_there else found_there
    for path in files:
        found, table = _read(reading, path, _split(path, reading.root) if len(files) > 1 else "")
        pictures += found
        for name, look in table.items():
            classes.setdefault(name, look)
    reading.say_unnamed()
    return Export(_FORM, pictures, classes)


def _is_coco(path: Path) -> bool:
    try:
        content = read_json(path)
    except DataError:
        return False
    return (
        isinstance(content, dict)
        and isinstance(content.get("images"), list)
        and {"annotations", "categories"} <= content.keys()
    )


def _split(path: Path, root: Path) -> str:
    """The split of a JSON by its name, such as instances_val2017, or by its folder, such as valid."""
    words = [*path.relative_to(root).parent.parts, *path.name.split(".")[0].replace("-", "_").split("_")]
    return next((split for split in map(split_named, reversed(words)) if split), "")


def _read(reading: Reading, path: Path, split: str) -> tuple[list[Picture], dict[str, Look]]:
    content, remarks = read_json(path), reading.remarks
    folder = _folder(content["images"], path, reading)
    find = reading.finder(folder)
    if isinstance(content.get("annotations"), list):
        _one_row_a_class(content, path, reading)
        _fill_in_sizes(content, reading, folder)
    document = InstancesJson(path, None, content)
    as_objects = _crowds_are_objects(content["annotations"])
    pictures = []
    for found in document.walk(find):
        if isinstance(found, Fault):
            for example in found.examples:
                remarks.left_out(KINDS[found.kind][1], example)
        elif not isinstance(found, Entry):
            if found.kind in DROPPED:
                remarks.left_out(f"objects {DROPPED[found.kind]}", found.example)
        elif found.image is not None:
            picture = reading.open(folder / found.image, found.size, split)
            if picture is not None:
                picture.shapes = [
                    _shape(thing, document, as_objects, found.file_name, reading) for thing in found.objects
                ]
                pictures.append(picture)
    return pictures, _looks(document)


def _folder(rows: list[Any], path: Path, reading: Reading) -> Path:
    """The nearest folder, from that of the JSON up, in which one of its images is; else the export's."""
    names = [row["file_name"] for row in rows if isinstance(row, dict) and isinstance(row.get("file_name"), str)]
    above = [folder for folder in path.parents if folder.is_relative_to(reading.root)]
    return next((folder for folder in above if any(map(reading.finder(folder).candidates, names))), reading.root)


def _shape(thing: Object, document: InstancesJson, as_objects: bool, image: str, reading: Reading) -> Shape:
    row = document.content["annotations"][thing.number - 1]
    crowd = thing.crowd and not as_objects and "attributes" not in row
    if thing.crowd and not crowd:
        what = "masks with iscrowd 1 count as objects, since CVAT marks its brush masks so"
        reading.remarks.note(what, f"annotation {thing.number} of {image}")
    return Shape(document.categories[thing.label].name, loads(thing.segmentation), crowd)


def _crowds_are_objects(rows: list[Any]) -> bool:
    """Whether no annotation is anything but a crowd: then the mark says nothing."""
    return all(flag(row.get("iscrowd") or 0) for row in rows if isinstance(row, dict))


def _one_row_a_class(content: dict[str, Any], path: Path, reading: Reading) -> None:
    """Leaves placeholders out, and gives a class that has several rows one of them."""
    rows = content.get("categories")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return
    same = id_key(row.get("id") for row in rows)
    annotations = [row for row in content["annotations"] if isinstance(row, dict)]
    used = Counter(same(row.get("category_id")) for row in annotations)
    kept: dict[Any, dict[str, Any]] = {}
    other_id: dict[Any, Any] = {}
    for row in rows:
        id_, name = same(row.get("id")), str(row.get("name") or row.get("id"))
        if not used[id_] and row.get("supercategory") == "none" and len(rows) > 1:
            reading.remarks.left_out(
                "placeholder classes that no object is of", f"{name} of {path.relative_to(reading.root)}"
            )
        elif name in kept:
            other_id[id_] = kept[name].get("id")
            reading.remarks.note("classes with several rows are one", f"{name} of {path.name}")
        else:
            kept[name] = row
    for row in annotations:
        row["category_id"] = other_id.get(same(row.get("category_id")), row.get("category_id"))
    content["categories"] = list(kept.values())


def _fill_in_sizes(content: dict[str, Any], reading: Reading, folder: Path) -> None:
    """Takes the sizes of images that the JSON does not tell from the images."""
    for row in content["images"]:
        if isinstance(row, dict) and isinstance(row.get("file_name"), str) and not whole(row.get("height")):
            found = reading.finder(folder).candidates(row["file_name"])
            try:
                row["height"], row["width"] = read_image_size(folder / found[0]) if found else (1, 1)
            except DataError:
                row["height"] = row["width"] = 1  # that the image cannot be read is said when it is opened


def _looks(document: InstancesJson) -> dict[str, Look]:
    rows = {whole(row.get("id")): row for row in document.content["categories"]}
    looks = {}
    for category in document.categories:
        row = rows[category.id]
        thing = flag(row["isthing"]) if "isthing" in row else None
        looks[category.name] = Look(thing is not False, category.color if "color" in row else None)
    return looks
