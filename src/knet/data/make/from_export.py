"""Makes a data set that `knet train` takes of the export of an annotation tool.

DIR/images/train/...   DIR/images/val/...
DIR/train/instances.json                            COCO instances, where all classes are things
DIR/train/panoptic.json, DIR/train/panoptic/*.png   COCO panoptic, where some are stuff
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from tqdm import tqdm

from knet.calls import named_options
from knet.data.check.findings import CheckReport
from knet.data.check.images import check_panoptic
from knet.data.check.instances import check_instances
from knet.data.exports.export import Export, Look, Picture, Remarks, Shape
from knet.data.exports.masks import VOID
from knet.data.exports.open import read_export
from knet.data.files.io import name_some
from knet.data.files.masks import Rle, joint_area, mask_area, mask_box, pack_mask, read_mask, unpack_mask
from knet.data.make.from_coco import Overlap, coco_to_panoptic
from knet.data.make.from_labels import SMALLEST_COMPONENT, split_segments
from knet.data.make.split import choose_validation
from knet.data.readers.reader import Kernels
from knet.errors import ConfigError, DataError, OutputError, counted, did_you_mean
from knet.files import alone_in, hidden_folder

SPLITS = ("train", "val", "test")


@dataclass(slots=True)
class Imported:
    """What `import_export` made in `output`.

    Attributes:
        form: what kind of export it was.
        kind: "instances" or "panoptic".
        images: how many each split has.
        remarks: a line for each kind of thing that was left out or needs to be known.
        reports: what a check of each split found.
    """

    form: str
    output: Path
    kind: str
    images: dict[str, int]
    remarks: list[str]
    reports: list[CheckReport] = field(default_factory=list)


@named_options
def import_export(
    path: str | Path,
    output: str | Path,
    *,
    val: float | None = None,
    seed: int = 0,
    stuff: Sequence[str] = (),
    things: Sequence[str] = (),
    overlap: Overlap = "area",
    form: str | None = None,
    overwrite: bool = False,
) -> Imported:
    """Reads an export, splits it and writes it anew, all of it or nothing; images are linked or copied.

    Args:
        path: the export's folder, or a file in it.
        output: folder to make.
        val: share of the images to put aside for validation; None keeps the export's own split, and takes 0.2 where it
            has none.
        seed: of the choice.
        stuff, things: classes that are stuff or things whatever the export says.
        overlap: who is on top in panoptic data, see `coco_to_panoptic`.
        form: see `read_export`.
        overwrite: whether to replace an output that an import made.

    Raises:
        DataError: no export, or none of its images has an object; or the output exists.
        ConfigError: a share out of range, or a name of no class.
        OutputError: the output cannot be written.
    """
    if val is not None and not 0 < val < 1:
        raise ConfigError(f"--val {val} is no share of the images between 0 and 1, such as 0.2.")
    target, remarks = Path(output), Remarks()
    _refuse_existing(target, overwrite)
    export = read_export(Path(path), remarks, form)
    classes = _classes(export, stuff, things)
    pictures = _settled(export.pictures, classes, remarks)
    classes = _used(classes, pictures, remarks)
    splits = _splits(pictures, val, seed, remarks)
    kind = "instances" if all(look.thing for look in classes.values()) else "panoptic"
    try:
        with hidden_folder(target) as partial:
            for split, members in splits.items():
                shared = _write(partial, split, members, classes)
                if kind == "panoptic":
                    _to_panoptic(partial, split, overlap, remarks)
                elif shared:
                    remarks.note("objects overlap, which COCO instances keeps", f"{shared} pixels in {split}")
            with alone_in(target.parent):
                _refuse_existing(target, overwrite)  # also what another process has made meanwhile
                if target.exists():
                    shutil.rmtree(target)
                partial.replace(target)
    except OSError as fault:
        raise OutputError(f"{target} cannot be written ({fault}); choose another output.") from fault
    counts = {split: len(members) for split, members in splits.items()}
    made = Imported(export.form, target, kind, counts, remarks.lines())
    made.reports = [check_split(target, split) for split in splits]
    return made


def check_split(root: Path, split: str, kernels: Kernels | None = None) -> CheckReport:
    """What `knet data check` finds in a split of a data set that an import made; `kernels` are those of a model."""
    images, folder = root / "images" / split, root / split
    if (folder / "panoptic.json").is_file():
        return check_panoptic(images, folder / "panoptic.json", folder / "panoptic", None, kernels)
    return check_instances(images, folder / "instances.json", None, kernels)


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if not target.exists() and not target.is_symlink():
        return
    if not overwrite:
        raise DataError(f"{target} exists already; remove it, give --overwrite, or choose another output.")
    names = {path.name for path in target.iterdir()} if target.is_dir() else {"a file"}
    if not names <= {"images", *SPLITS}:
        others = name_some(sorted(names - {"images", *SPLITS}))
        raise DataError(f"{target} holds other things than an import makes ({others}); choose another output.")


def _classes(export: Export, stuff: Sequence[str], things: Sequence[str]) -> dict[str, Look]:
    """The classes with what the user says of them; those that mean "not labelled" are gone."""
    for option, names in (("--stuff", stuff), ("--things", things)):
        for name in names:
            if name not in export.classes:
                hint = did_you_mean(name, export.classes, f"it has {name_some(export.classes, 10)}.")
                raise ConfigError(f"{option} names '{name}', which is no class of the export; {hint}")
    both = set(stuff) & set(things)
    if both:
        raise ConfigError(f"'{min(both)}' is both in --stuff and in --things; a class is one or the other.")
    told = {**dict.fromkeys(stuff, False), **dict.fromkeys(things, True)}
    in_masks = {shape.label for picture in export.pictures for shape in picture.shapes if not shape.apart}
    named = {name: look for name, look in export.classes.items() if name in told or name.casefold() not in VOID}
    return {
        name: Look(told.get(name, name not in in_masks if look.thing is None else look.thing), look.color)
        for name, look in named.items()
    }


def _settled(pictures: Sequence[Picture], classes: dict[str, Look], remarks: Remarks) -> list[Picture]:
    """The pictures, each file once, with shapes that have pixels and are there once, as polygons or RLE."""
    by_file: dict[Any, Picture] = {}
    for picture in pictures:
        first = by_file.setdefault(picture.file if isinstance(picture.file, Path) else picture.name, picture)
        if first is not picture:
            remarks.note("images that are listed twice are one", picture.name)
            first.shapes += picture.shapes
    for picture in tqdm(by_file.values(), desc="drawing masks", unit="image", disable=None):
        kept: dict[str, Shape] = {}
        for number, shape in enumerate(picture.shapes, 1):
            if shape.label not in classes:
                remarks.left_out("masks of background and the like, which are void", f"{shape.label} in {picture.name}")
                continue
            for part in _parts(shape, number, picture, classes, remarks):
                key = json.dumps([part.label, part.segmentation], default=str)
                if kept.setdefault(key, part) is not part:
                    remarks.left_out("objects that are there twice", f"{part.label} in {picture.name}")
        picture.shapes = list(kept.values())
    return list(by_file.values())


def _parts(shape: Shape, number: int, picture: Picture, classes: dict[str, Look], remarks: Remarks) -> Iterator[Shape]:
    """A shape, or its connected regions where it holds all objects of a class of things; nothing if it has no pixel."""
    where = f"object {number} ({shape.label}) of {picture.name}"
    try:
        rle = read_mask(shape.segmentation, picture.size, where)
    except DataError as fault:
        remarks.left_out("objects whose mask cannot be read", str(fault).rstrip("."))
        return
    if not mask_area(rle):
        remarks.left_out("objects whose mask has no pixel (too thin, or outside the image)", where)
    elif shape.apart or not classes[shape.label].thing:
        yield shape
    else:
        ids, rows, small = split_segments(unpack_mask(rle).astype(np.int32) - 1, [True], SMALLEST_COMPONENT)
        remarks.note("connected regions count as objects, as nothing tells them apart", where)
        for _ in small:
            remarks.left_out(f"regions of less than {SMALLEST_COMPONENT} pixels", where)
        for row in rows:
            yield Shape(shape.label, pack_mask(ids == row.id))


def _used(classes: dict[str, Look], pictures: Sequence[Picture], remarks: Remarks) -> dict[str, Look]:
    """The classes that have an object."""
    used = _labels(pictures)
    if not used:
        found = f": {'; '.join(lines)}" if (lines := remarks.lines()) else ""
        raise DataError(f"The export has no object with a mask in {counted(len(pictures), 'image')}{found}.")
    for name in classes.keys() - used:
        remarks.left_out("classes without an object", name)
    return {name: look for name, look in classes.items() if name in used}


def _splits(pictures: list[Picture], val: float | None, seed: int, remarks: Remarks) -> dict[str, list[Picture]]:
    """The pictures of each split that has some, as the export has them, or chosen."""
    own: dict[str, list[Picture]] = {split: [] for split in SPLITS}
    for picture in pictures:
        own[picture.split or "train"].append(picture)
    if not _labels(own["train"]):
        own = {"train": pictures, "val": [], "test": []}
    if _labels(own["val"]) and val is None:
        remarks.note("the export's own split is kept", ", ".join(f"{len(own[s])} {s}" for s in SPLITS if own[s]))
    else:
        rest = own["train"] + own["val"]
        shown = [_labels([picture]) for picture in rest]
        chosen = choose_validation([picture.name for picture in rest], shown, 0.2 if val is None else val, seed)
        if not any(shown[number] for number in chosen):
            chosen = set()
            remarks.note("there is no validation data, as too few images have an object", counted(len(rest), "image"))
        own["train"], own["val"] = ([p for n, p in enumerate(rest) if (n in chosen) is side] for side in (False, True))
    train, validation = _labels(own["train"]), _labels(own["val"])
    for name in sorted(train ^ validation) if own["val"] else ():
        remarks.note("classes are in one of train and val alone", f"{name} ({'train' if name in train else 'val'})")
    return {split: members for split, members in own.items() if _labels(members)}


def _labels(pictures: Sequence[Picture]) -> set[str]:
    return {shape.label for picture in pictures for shape in picture.shapes}


def _write(root: Path, split: str, pictures: Sequence[Picture], classes: dict[str, Look]) -> int:
    """Writes the images and the COCO instances JSON of a split; returns how many pixels have several objects."""
    names = _short_names([picture.name for picture in pictures])
    ids = {name: number for number, name in enumerate(classes, 1)}
    images, rows, shared = list[dict[str, Any]](), list[dict[str, Any]](), 0
    for number, (picture, name) in enumerate(zip(pictures, names, strict=True), 1):
        _place(picture.file, root / "images" / split / name)
        height, width = picture.size
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        drawn = [read_mask(shape.segmentation, picture.size, name) for shape in picture.shapes]
        shared += sum(map(mask_area, drawn)) - joint_area(drawn)
        for shape, rle in zip(picture.shapes, drawn, strict=True):
            row = {
                "id": len(rows) + 1,
                "image_id": number,
                "category_id": ids[shape.label],
                "iscrowd": int(shape.crowd),
            }
            rows.append({**row, "area": mask_area(rle), "bbox": mask_box(rle), "segmentation": _plain(shape, rle)})
    categories = [
        {"id": ids[name], "name": name, "isthing": int(look.thing is not False)}
        | ({"color": list(look.color)} if look.color else {})
        for name, look in classes.items()
    ]
    (root / split).mkdir(parents=True, exist_ok=True)
    content = {"images": images, "annotations": rows, "categories": categories}
    (root / split / "instances.json").write_text(json.dumps(content), "utf-8")
    return shared


def _plain(shape: Shape, rle: Rle) -> Any:
    """A mask as JSON holds it: polygons as they are, RLE packed."""
    if isinstance(shape.segmentation, list):
        return [polygon for polygon in shape.segmentation if len(polygon) >= 6]
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def _to_panoptic(root: Path, split: str, overlap: Overlap, remarks: Remarks) -> None:
    """Replaces the instances of a split by their panoptic form."""
    instances = root / split / "instances.json"
    made = coco_to_panoptic(root / "images" / split, instances, root / split, overlap=overlap)
    instances.unlink()
    if made.overlapping:
        remarks.note(made.rule, f"{made.overlapping} pixels in {split}, {made.hidden} objects hidden")


def _short_names(names: Sequence[str]) -> list[str]:
    """The names without the folders that all of them share."""
    parts = [PurePosixPath(name).parts for name in names]
    low, high = min(parts), max(parts)  # what these two share, all others share
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(low[:-1], high[:-1], strict=False)))
    return ["/".join(part[shared:]) for part in parts]


def _place(file: Path | bytes, target: Path) -> None:
    """Puts an image in place: linked where the disk allows it, else copied."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(file, bytes):
        target.write_bytes(file)
        return
    with suppress(OSError):
        os.link(file.resolve(), target)
        return
    shutil.copyfile(file, target)
