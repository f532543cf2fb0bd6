"""What a config's data are: readers of data sets, and the samples that its network learns from."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from knet.config import Data, Files, RunConfig
from knet.data.batches import Reader, Samples, TrainingSet
from knet.data.categories import load_categories, load_table
from knet.data.cityscapes_step import CityscapesStep
from knet.data.clip_folder import ClipFolder
from knet.data.clip_roots import open_clips
from knet.data.clip_set import ClipSet
from knet.data.clips import ClipReader
from knet.data.coco_instances import CocoInstances
from knet.data.coco_panoptic import CocoPanoptic
from knet.data.label_folder import LabelFolder
from knet.data.pairs import PairSet
from knet.data.transforms import TrainAugmentation
from knet.errors import ConfigError
from knet.models.clip import ClipKNet
from knet.models.video import RTVideoKNet, VideoKNet
from knet.structures import Category

CLIP = 5  # frames that a network for clips learns from at once
_FORMS = ({"json_file", "masks"}, {"json_file"}, {"labels"}, {"labels", "instances"})


def open_data(data: Data, files: Files | None, categories: Sequence[Category] | None = None) -> Reader:
    """One data set of a config, with the given classes, else those of the config's table, else its own.

    Raises:
        ConfigError: `files` is missing or of none of the forms, or labels come without a class table.
        DataError: the data set is broken.
    """
    if files is None:
        raise ConfigError("The config has no 'data.train'; give its images and their truth, or a format and a split.")
    if files.format is not None:
        return open_split(data, files, categories)
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
    if categories is None and data.categories is not None:
        categories = load_categories(data.categories)
    if "masks" in given:
        return CocoPanoptic(images, json, masks, categories, data.cache)
    return CocoInstances(images, json, categories, training=files is data.train)


def open_split(data: Data, files: Files, categories: Sequence[Category] | None = None) -> Reader:
    """A split of a video data set in the layout that it comes in.

    Raises:
        ConfigError: no split.
        DataError: the data set is broken, or has no such split.
    """
    if files.split is None:
        raise ConfigError(f"A data set of the format {files.format} needs its split, such as split: train.")
    if categories is None and data.categories is not None:
        categories = load_categories(data.categories)
    if files.format == "cityscapes-step":
        return CityscapesStep(data.root, files.split, categories)
    return open_clips(str(files.format), data.root, files.split, categories, data.compatible)


def training_set(config: RunConfig, reader: Reader, net: nn.Module, skip: int = 0) -> Samples:
    """What a network learns from: images, pairs of frames or clips of a data set, after augmentation.

    skip: see `TrainingSet`.

    Raises:
        ConfigError: a video network and images that belong to no clip, or no 'augment'.
    """
    augmentation, data = augmentation_of(config), config.data
    if not isinstance(net, VideoKNet | RTVideoKNet | ClipKNet):
        return TrainingSet(reader, augmentation, config.seed, skip)
    if not isinstance(reader, ClipReader):
        raise ConfigError(
            f"The model '{config.model}' learns from clips; give data.train.format and data.train.split, or the "
            "images, labels and instances of clips of your own."
        )
    if isinstance(net, ClipKNet):
        reach = max(map(abs, data.offsets))
        return ClipSet(reader, augmentation, config.seed, skip, CLIP, reach)
    return PairSet(reader, augmentation, config.seed, skip, data.offsets, data.compatible)


def augmentation_of(config: RunConfig) -> TrainAugmentation:
    """The config's augmentation; a class table that tells left from right swaps such classes in mirror images."""
    a = config.augment
    if a is None:
        raise ConfigError("The config has no 'augment'; training needs at least augment.short_edges.")
    flips = load_table(config.data.categories).flip_labels if config.data.categories is not None else None
    return TrainAugmentation(
        a.short_edges,
        a.max_edge,
        a.crop,
        a.flip,
        a.color,
        a.pad,
        instance_crop=a.instance_crop,
        flip_labels=flips,
        between=a.between,
        ratio=a.ratio,
        antialias=a.antialias,
        largest_class=a.largest_class,
        pad_color=a.pad_color,
    )
