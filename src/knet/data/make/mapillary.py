"""Mapillary Vistas: the class table that its config file holds, and its instance PNGs as COCO panoptic."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from knet.data.files.io import list_images, name_some, read_json, read_labels, values_in
from knet.data.make.panoptic_writer import PanopticWriter, SegmentRow
from knet.errors import DataError

_INSTANCES = 256  # an instance PNG's pixel is label * 256 + number of the instance
_TURNED = {"left": "right", "right": "left"}


@dataclass(frozen=True, slots=True)
class VistasLabel:
    """A class of the config file; its `index` there is the value of label PNGs. Not evaluated means void."""

    index: int
    long_name: str
    name: str
    evaluate: bool
    thing: bool
    color: tuple[int, int, int]


def read_config(path: str | Path) -> list[VistasLabel]:
    """Reads the classes of a config file of Mapillary Vistas (any version), in the order of their pixel values."""
    path = Path(path)
    content = read_json(path)
    rows = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not 0 < len(rows) <= _INSTANCES:
        raise DataError(
            f"{path} has no list 'labels' of at most {_INSTANCES} rows; take the config file of the download."
        )
    labels = []
    for index, row in enumerate(rows):
        try:
            red, green, blue = (int(part) for part in row["color"])
            long_name, name = str(row["name"]), str(row["readable"])
            thing, evaluate = bool(row["instances"]), bool(row["evaluate"])
        except (KeyError, TypeError, ValueError, OverflowError):  # the last of what is infinite
            raise DataError(
                f"{path}: row {index + 1} of 'labels' must have name, readable, evaluate, instances and color, "
                f"but is {str(row)[:80]}; copy the file again."
            ) from None
        labels.append(VistasLabel(index, long_name, name, evaluate, thing, (red, green, blue)))
    return labels


def table_from_config(labels: Sequence[VistasLabel], version: str) -> dict[str, Any]:
    """Makes a class table (the content of a file for `load_table`) of the classes that are evaluated.

    Stuff comes first, else the order is the config's, as in RT-K-Net's training. Ids are index + 1, as in the official
    panoptic JSON. Classes whose names differ only by left and right are each other's `flip_to`.
    """
    kept = [label for label in labels if label.evaluate]
    names = [label.name for label in kept]
    by_long_name = {label.long_name: label for label in kept}
    rows = []
    for label in sorted(kept, key=lambda label: label.thing):
        name = label.name if names.count(label.name) == 1 else label.long_name
        row = {"id": label.index + 1, "name": name, "thing": label.thing, "color": list(label.color)}
        row |= {"label_value": label.index, "long_name": label.long_name}
        mirrored = by_long_name.get(_mirror_name(label.long_name))
        if mirrored is not None and mirrored is not label and mirrored.thing == label.thing:
            row["flip_to"] = mirrored.index + 1
        rows.append(row)
    source = f"the config file of the Mapillary Vistas v{version} download; stuff first"
    void = [label.index for label in labels if not label.evaluate]
    return {"name": f"mapillary_vistas_v{version}", "source": source, "void_id": void, "categories": rows}


def instances_to_panoptic(
    images: str | Path,
    instances: str | Path,
    config: str | Path,
    json: str | Path,
    masks: str | Path,
    *,
    overwrite: bool = False,
) -> int:
    """Writes a COCO panoptic JSON and a folder of PNGs from Mapillary's 16-bit instance PNGs. -> the number of images

    Category ids are those of the official panoptic JSON (label index + 1); segment ids, which are arbitrary there, are
    category * 256 + number of the instance here (stuff: + 0). Nothing is a crowd: the instance PNGs know none. Classes
    that the download's config file does not evaluate become void.
    """
    instances = Path(instances)
    labels = read_config(config)
    to_id = _segment_ids(labels)
    image_of = {Path(name).stem: name for name in list_images(Path(images))}
    names = [name for name in list_images(instances) if name.endswith(".png")]
    if not names:
        raise DataError(f"{instances} holds no PNG; give the folder 'instances' of a split of Mapillary Vistas.")
    with PanopticWriter(json, masks, overwrite) as writer:
        for name in tqdm(names, desc="Mapillary to panoptic", unit="image", disable=None):
            stem = Path(name).stem
            if stem not in image_of:
                raise DataError(f"{instances / name} has no image in {images}; copy the image or remove the label.")
            id_map = to_id[read_labels(instances / name)]
            ids = values_in(id_map).tolist()
            if ids[0] < 0:
                unknown = values_in(read_labels(instances / name)[id_map < 0] // _INSTANCES).tolist()
                raise DataError(
                    f"{instances / name} has the label {name_some(unknown)}, but {config} lists {len(labels)} labels; "
                    "use the config file of the same version."
                )
            segments = [SegmentRow(id_, id_ // _INSTANCES) for id_ in ids if id_]
            writer.add({"id": stem, "file_name": image_of[stem]}, f"{stem}.png", id_map, segments)
        table = sorted(table_from_config(labels, "")["categories"], key=lambda row: row["id"])
        rows = [
            {key: row[key] for key in ("id", "name", "color")}
            | {"isthing": int(row["thing"]), "supercategory": row["long_name"]}
            for row in table
        ]
        writer.finish(rows)
    return len(names)


def _segment_ids(labels: Sequence[VistasLabel]) -> np.ndarray:
    """(65536,) int32: the segment id of each value of an instance PNG; 0 = void, -1 = no such label."""
    values = np.arange(_INSTANCES * _INSTANCES, dtype=np.int32)
    label, number = values // _INSTANCES, values % _INSTANCES
    kinds = np.full(_INSTANCES, -1)  # -1 unknown, 0 void, 1 stuff, 2 thing
    kinds[: len(labels)] = [(1 + row.thing) * row.evaluate for row in labels]
    kind = kinds[label]
    ids = (label + 1) * _INSTANCES + np.where(kind == 2, number, 0)
    return np.where(kind > 0, ids, kind).astype(np.int32)


def _mirror_name(name: str) -> str:
    return re.sub(r"(?<![a-z])(left|right)(?![a-z])", lambda match: _TURNED[match[0]], name)
