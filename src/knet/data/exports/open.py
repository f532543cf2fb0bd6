"""Finds out what form the export in a folder has, and reads it."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from knet.data.exports.brush import find_brush, read_brush
from knet.data.exports.coco import find_coco, read_coco
from knet.data.exports.export import Export, Reading, Remarks, files_below
from knet.data.exports.labelme import find_labelme, read_labelme
from knet.data.exports.masks import find_colors, find_labelmap, masks_above, read_color_masks, read_cvat_masks
from knet.data.exports.supervisely import find_supervisely, read_supervisely
from knet.data.exports.yolo import find_yolo, read_yolo
from knet.data.files.io import load_json
from knet.data.files.walk import walk
from knet.errors import ConfigError, DataError, shown
from knet.files import exists, is_dir, is_file
from knet.parse import LARGEST_YAML, parse_yaml, read_bounded

FORMS: dict[str, tuple[Callable[[Path], Any], Callable[[Reading], Export]]] = {
    "yolo": (find_yolo, read_yolo),
    "supervisely": (find_supervisely, read_supervisely),
    "cvat-masks": (find_labelmap, read_cvat_masks),
    "label-studio-brush": (find_brush, read_brush),
    "coco": (find_coco, read_coco),
    "labelme": (find_labelme, read_labelme),
    "color-masks": (find_colors, read_color_masks),
}
"""How the export of each form is found below a folder, and how it is read: those that cannot be mistaken first."""

_KNOWN = (
    "COCO (a JSON with images and annotations), YOLO segmentation (data.yaml), labelme (a JSON for each image), CVAT's "
    "segmentation masks (labelmap.txt), Label Studio's brush PNGs with its JSON, Supervisely (meta.json), or masks in "
    "colours (a folder masks and a table of colours)"
)


def read_export(path: Path, remarks: Remarks, form: str | None = None) -> Export:
    """Reads the export in a folder, or the one that a file (data.yaml, a COCO JSON) belongs to.

    Args:
        remarks: gets what was left out, and what was understood in a way that may surprise.
        form: one of `FORMS`; None finds it out.

    Raises:
        ConfigError: an unknown form.
        DataError: there is no export of this form, or of any, or it cannot be read at all.
    """
    if form is not None and form not in FORMS:
        raise ConfigError(f"There is no form {shown(form)} of exports; choose from {', '.join(FORMS)}.")
    if is_file(path) and path.suffix.lower() in (".zip", ".gz", ".tar", ".tgz", ".7z", ".rar"):
        raise DataError(f"{path} is an archive; unpack it, and give the folder.")
    if not exists(path):
        raise DataError(f"{path} does not exist; give the folder that the tool exported.")
    given = None if is_dir(path) else path
    root = path if given is None else _root_of(given)
    forms = FORMS if form is None else {form: FORMS[form]}
    for find, read in forms.values():
        if find(root):
            return read(Reading(root, remarks, given))
    endings = Counter(Path(name).suffix.lower() or "no ending" for _, names in walk(root) for name in names)
    what = f"{path} is no export of {'a form that is known' if form is None else f'the form {form}'}"
    held = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(5)) or "no files"
    raise DataError(f"{what} (it holds {held}{_fault(root)}); known are {_KNOWN}.")


def _root_of(given: Path) -> Path:
    """The folder of an export that a file is of: its own, or the one above annotations."""
    return given.parent.parent if given.parent.name.lower() in ("annotations", "labels", "json") else given.parent


def _fault(root: Path) -> str:
    """What is wrong with the file that would say what the export is, or with its masks; "" if nothing is."""
    for file in files_below(root, ".json", ".yaml", ".yml"):
        try:
            load_json(file) if file.suffix == ".json" else parse_yaml(read_bounded(file, LARGEST_YAML))
        except (OSError, ValueError) as fault:
            return f"; {file.relative_to(root)} cannot be read: {' '.join(str(fault).split())}"
    masks = {masks_above(file.parent, root): file.suffix.lower() for file in files_below(root, ".jpg", ".jpeg", ".png")}
    for folder, ending in masks.items():
        if folder is not None:
            table = "there is no table of colours, such as class_dict.csv with lines 'car,255,0,0'"
            jpeg = "these are JPEGs, which change colours: export PNGs"
            return f"; for the masks in {folder.relative_to(root)} {table if ending == '.png' else jpeg}"
    return ""
