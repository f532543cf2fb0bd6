"""Turns the instance PNGs of Cityscapes into the COCO panoptic form, as the data set's own scripts do."""

from pathlib import Path

from tqdm import tqdm

from knet.data.categories import package_table
from knet.data.files.io import read_labels, values_in
from knet.data.make.panoptic_writer import PanopticWriter, SegmentRow
from knet.errors import DataError

_ENDING = "_gtFine_instanceIds.png"
_INSTANCES_FROM = 1000


def instance_ids_to_panoptic(
    labels: str | Path, json: str | Path, masks: str | Path, *, train_ids: bool = False, overwrite: bool = False
) -> int:
    """Writes a COCO panoptic JSON and a folder of PNGs from every "*_gtFine_instanceIds.png". -> the number of images

    Segment ids are the values of the instance PNG: class * 1000 + number for objects, the plain class for stuff and for
    groups of objects, which become crowds. Classes that are not evaluated become void. Like the official script
    (createPanopticImgs of cityscapesScripts) this names images "..._gtFine_leftImg8bit.png", though no file is called
    so; `ImageFinder` finds the real ones.

    Args:
        labels: the folder of a split (gtFine/val) with its city folders.
        json, masks: what to write.
        train_ids: whether category ids are 0..18 instead of the raw 7..33.
        overwrite: whether to replace what exists.
    """
    raw_labels = {row["id"]: row for row in package_table("cityscapes")["raw_labels"]}
    paths = sorted(Path(labels).rglob(f"*{_ENDING}"))
    if not paths:
        raise DataError(f"{labels} holds no *{_ENDING}; give a split of Cityscapes' gtFine, such as gtFine/val.")
    with PanopticWriter(json, masks, overwrite) as writer:
        for path in tqdm(paths, desc="Cityscapes to panoptic", unit="image", disable=None):
            id_map = read_labels(path)
            segments = []
            for value in values_in(id_map).tolist():
                raw = raw_labels.get(value if value < _INSTANCES_FROM else value // _INSTANCES_FROM)
                if raw is None:
                    raise DataError(f"{path} has the value {value}, which is no Cityscapes class; copy it again.")
                if raw["ignore_in_eval"]:
                    id_map[id_map == value] = 0
                else:
                    crowd = value < _INSTANCES_FROM and bool(raw["has_instances"])
                    segments.append(SegmentRow(value, raw["train_id" if train_ids else "id"], crowd))
            name = path.name.removesuffix(_ENDING)
            image = {"id": name, "file_name": f"{name}_gtFine_leftImg8bit.png"}
            writer.add(image, f"{name}_gtFine_panoptic.png", id_map, segments)
        keys = {"id": "train_id" if train_ids else "id", "isthing": "has_instances"}
        keys |= {key: key for key in ("name", "color", "supercategory")}
        kept = [raw for raw in raw_labels.values() if not raw["ignore_in_eval"]]
        writer.finish([{key: raw[source] for key, source in keys.items()} for raw in kept])
    return len(paths)
