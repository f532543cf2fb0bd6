"""Opens the data set that a config or a command names: a split of a download, or files of one's own."""

from collections.abc import Sequence
from pathlib import Path

from knet.config import Data, Files
from knet.data.categories import load_categories
from knet.data.readers.cityscapes_step import CityscapesStep
from knet.data.readers.cityscapes_vps import CityscapesVps
from knet.data.readers.clip_folder import ClipFolder
from knet.data.readers.clips import ClipReader
from knet.data.readers.coco_instances import CocoInstances
from knet.data.readers.coco_panoptic import CocoPanoptic
from knet.data.readers.kitti_step import KittiStep
from knet.data.readers.label_folder import LabelFolder
from knet.data.readers.reader import Reader
from knet.data.readers.vipseg import VipSeg
from knet.data.readers.youtube_vis import YoutubeVis
from knet.errors import ConfigError
from knet.structures import Category

_FORMS = ({"json_file", "masks"}, {"json_file"}, {"labels"}, {"labels", "instances"})
CLIP_ROOTS = {
    "step": ("train", "val"),
    "vipseg": ("train", "val"),
    "youtube-vis": ("train", "valid"),
    "cityscapes-vps": ("train", "val"),
}
"""The layouts of video data sets, with their splits that have a ground truth."""


def open_data(data: Data, files: Files | None, categories: Sequence[Category] | None = None) -> Reader:
    """Opens a data set of a config, with the given classes, else those of the config's table, else its own.

    Raises:
        ConfigError: `files` is missing or of none of the forms, or labels come without a class table.
        DataError: the data set is broken.
    """
    if files is None:
        raise ConfigError("The config has no 'data.train'; give its images and their truth, or a format and a split.")
    if categories is None and data.categories is not None:
        categories = load_categories(data.categories)
    if files.format is not None:
        if files.split is None:
            raise ConfigError(f"A data set of the format {files.format} needs its split, such as split: train.")
        if files.format == "cityscapes-step":
            return CityscapesStep(data.root, files.split, categories)
        return open_clips(str(files.format), data.root, files.split, categories, data.compatible)
    kinds = ("json_file", "masks", "labels", "instances")
    given = {name for name in kinds if getattr(files, name) is not None}
    if files.images is None or given not in _FORMS:
        raise ConfigError(
            f"The data set with the images '{files.images}' needs images, and json and masks (COCO panoptic), json "
            "alone (COCO instances), labels alone (label PNGs) or labels and instances (clips), or format and split."
        )
    images = data.root / files.images
    json, masks, labels, instances = (data.root / str(getattr(files, name)) for name in kinds)
    if "labels" in given:
        if data.categories is None:
            raise ConfigError("Label PNGs do not say what their values mean; give a class table with data.categories.")
        if "instances" in given:
            return ClipFolder(images, labels, instances, data.categories)
        return LabelFolder(images, labels, data.categories)
    if "masks" in given:
        return CocoPanoptic(images, json, masks, categories, data.cache)
    return CocoInstances(images, json, categories, training=files is data.train)


def open_clips(
    layout: str, root: str | Path, split: str, categories: Sequence[Category] | None = None, compatible: bool = False
) -> ClipReader:
    """Opens a split of a video data set whose layout is one of `CLIP_ROOTS`; the rest as in its reader."""
    root = Path(root)
    if layout == "step":
        return KittiStep(root, split, categories, compatible)
    if layout == "vipseg":
        return VipSeg(root, split, categories)
    if layout == "cityscapes-vps":
        return CityscapesVps(root, split, categories)
    if layout == "youtube-vis":
        return YoutubeVis(root / split / "JPEGImages", root / f"{split}.json", categories)
    raise ConfigError(f"There is no layout {layout!r} of clips; choose from {', '.join(CLIP_ROOTS)}.")
