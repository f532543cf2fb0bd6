"""Makes what training reads from the raw download of a data set: class table, COCO panoptic JSON and PNGs."""

import json as jsonlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from knet.calls import named_options
from knet.data.categories import load_table
from knet.data.files.io import name_some, read_json
from knet.data.make.cityscapes import instance_ids_to_panoptic
from knet.data.make.mapillary import instances_to_panoptic, read_config, table_from_config
from knet.data.readers.coco_panoptic import CocoPanoptic
from knet.data.readers.roots import (
    CITYSCAPES_SPLITS,
    MAPILLARY_SPLITS,
    MapillaryRoot,
    RootSplit,
    find_cityscapes,
    find_mapillary,
    unpaired_files,
)
from knet.errors import DataError
from knet.files import atomic_path
from knet.structures import Category


@dataclass(frozen=True, slots=True)
class PreparedSplit:
    """A split that training can read: `images` labelled ones, and its panoptic form, new (`made`) or there already.

    `unlabelled` lists image files without a label, which stay unused.
    """

    name: str
    images: int
    json: Path
    masks: Path
    made: bool
    unlabelled: list[str]


@dataclass(frozen=True, slots=True)
class PreparedMapillary:
    """The class table of a Mapillary Vistas download, its version and its splits."""

    version: str
    table: Path
    splits: list[PreparedSplit]


@named_options
def prepare_cityscapes(
    root: str | Path, splits: Sequence[str] = CITYSCAPES_SPLITS, *, train_ids: bool = False, overwrite: bool = False
) -> list[PreparedSplit]:
    """Makes gtFine/cityscapes_panoptic_<split>[_trainId](.json) from the instance PNGs, as the official script does.

    Every split is opened afterwards, so that what this returns can be trained on: every label has its image, and JSON
    and PNGs belong together.

    Args:
        root: the folder that holds gtFine and leftImg8bit.
        splits: their names.
        train_ids: whether category ids are 0..18 instead of the raw 7..33.
        overwrite: whether to make again what is there already.

    Raises:
        DataError: a folder, an image or a label is missing or broken, or an existing form contradicts itself.
    """

    def convert(split: RootSplit) -> None:
        options = {"train_ids": train_ids, "overwrite": overwrite}
        instance_ids_to_panoptic(split.labels, split.json, split.masks, **options)

    found = find_cityscapes(root, splits, train_ids)
    unlabelled = _require_images(found)
    categories = None if train_ids else load_table("cityscapes").categories
    return [_prepare(split, overwrite, convert, unlabelled[split.name], categories) for split in found]


@named_options
def prepare_mapillary(
    root: str | Path, splits: Sequence[str] = MAPILLARY_SPLITS, *, version: str | None = None, overwrite: bool = False
) -> PreparedMapillary:
    """Writes the class table knet_categories.json beside the download's config file, and the panoptic form if absent.

    Args:
        root: the folder that holds config.json or config_v2.0.json.
        splits: their names.
        version: "1.2" or "2.0"; None takes what is there (1.2 if both are). The name of v2.0's table ends with it.
        overwrite: whether to replace a split's official panoptic JSON and PNGs by what the instance PNGs give.

    Raises:
        DataError: a folder, an image or a label is missing or broken, another table is in the way, or an existing
            panoptic form contradicts itself or the table.
    """

    def convert(split: RootSplit) -> None:
        files = split.images, split.labels, found.config, split.json, split.masks
        instances_to_panoptic(*files, overwrite=overwrite)

    found = find_mapillary(root, splits, version)
    unlabelled = _require_images(found.splits)
    _write_table(found)
    categories = load_table(found.table).categories
    prepared = [_prepare(split, overwrite, convert, unlabelled[split.name], categories) for split in found.splits]
    return PreparedMapillary(found.version, found.table, prepared)


def _require_images(splits: Sequence[RootSplit]) -> dict[str, list[str]]:
    """The images of each split that have no label. Raises: DataError for labels without an image."""
    found = {}
    for split in splits:
        lonely, found[split.name] = unpaired_files(split)
        if lonely:
            raise DataError(
                f"{split.labels} has {name_some(lonely)} without an image in {split.images}; "
                "copy the images again or remove these labels."
            )
    return found


def _prepare(
    split: RootSplit,
    overwrite: bool,
    convert: Callable[[RootSplit], None],
    unlabelled: list[str],
    categories: Sequence[Category] | None,
) -> PreparedSplit:
    made = overwrite or not split.json.exists()
    if made:
        convert(split)
    try:
        reader = CocoPanoptic(split.images, split.json, split.masks, categories)
    except DataError as fault:
        if made:
            raise
        raise DataError(f"{fault} (--overwrite makes {split.json.name} anew from the instance PNGs.)") from fault
    return PreparedSplit(split.name, len(reader), split.json, split.masks, made, unlabelled)


def _write_table(found: MapillaryRoot) -> None:
    content = table_from_config(read_config(found.config), found.version)
    if found.table.exists():
        if read_json(found.table) != content:
            raise DataError(
                f"{found.table} is not the class table that {found.config.name} gives; "
                "remove it to have it written anew, or keep a table of your own under another name."
            )
        return
    rows = ",\n".join("  " + jsonlib.dumps(row) for row in content["categories"])
    head = "".join(f" {jsonlib.dumps(key)}: {jsonlib.dumps(content[key])},\n" for key in ("name", "source", "void_id"))
    with atomic_path(found.table) as part:
        part.write_text(f'{{\n{head} "categories": [\n{rows}\n ]\n}}\n', "utf-8")
