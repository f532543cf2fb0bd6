"""What a network learns from: the samples of a config's data set, after augmentation."""

from __future__ import annotations

from torch import nn

from knet.config import RunConfig
from knet.data.categories import load_table
from knet.data.readers.clips import ClipReader
from knet.data.readers.reader import Reader
from knet.data.samples.batches import Samples, TrainingSet
from knet.data.samples.clips import ClipSet
from knet.data.samples.pairs import PairSet
from knet.data.samples.transforms import TrainAugmentation
from knet.errors import ConfigError
from knet.models.clip import ClipKNet
from knet.models.video import RTVideoKNet, VideoKNet

CLIP = 5  # frames that a network for clips learns from at once


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
