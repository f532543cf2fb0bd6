"""The training samples of a config: images, pairs of frames or clips, after augmentation."""

from torch import nn

from knet.config import RunConfig
from knet.data.categories import load_table
from knet.data.readers.clips import ClipReader
from knet.data.readers.mixture import Mixture, labels_called
from knet.data.readers.reader import Reader
from knet.data.samples.batches import Samples, TrainingSet
from knet.data.samples.clips import ClipSet
from knet.data.samples.pairs import PairSet
from knet.data.samples.paste import ObjectPaste
from knet.data.samples.transforms import TrainAugmentation
from knet.errors import ConfigError
from knet.models.clip import ClipKNet
from knet.models.video import RTVideoKNet, VideoKNet

CLIP = 5  # frames of a training clip


def training_set(config: RunConfig, reader: Reader, net: nn.Module, skip: int = 0) -> Samples:
    """The training samples for a network, whose kind decides what they are. `skip` images may be unreadable."""
    augmentation, data = augmentation_of(config), config.data
    if not isinstance(net, VideoKNet | RTVideoKNet | ClipKNet):
        return TrainingSet(reader, augmentation, config.seed, skip, paste_of(config, reader))
    if not isinstance(reader, ClipReader):
        raise ConfigError(
            f"The model '{config.model}' learns from clips; give data.train.format and data.train.split, or the "
            "images, labels and instances of clips of your own."
        )
    if isinstance(net, ClipKNet):
        return ClipSet(reader, augmentation, config.seed, skip, CLIP, reach=max(map(abs, data.offsets)))
    return PairSet(reader, augmentation, config.seed, skip, data.offsets, data.compatible)


def paste_of(config: RunConfig, reader: Reader) -> ObjectPaste | None:
    """The config's pasting of objects, if it has any."""
    options = config.augment
    if options is None or not options.paste:
        return None
    if not isinstance(reader, Mixture) or not reader.donors:
        raise ConfigError("No set of data.train has paste: true, so that augment.paste has no objects; mark one.")
    onto = labels_called(options.paste_onto, reader.categories, "augment.paste_onto names the class")
    return ObjectPaste(reader, reader.donors, onto, options.paste)


def augmentation_of(config: RunConfig) -> TrainAugmentation:
    """The config's augmentation. In mirror images it swaps the classes that the class table calls left and right."""
    options = config.augment
    if options is None:
        raise ConfigError("The config has no 'augment'; training needs at least augment.short_edges.")
    flips = load_table(config.data.categories).flip_labels if config.data.categories is not None else None
    rest = {name: value for name, value in options if name not in ("paste", "paste_onto")}
    return TrainAugmentation(rest.pop("short_edges"), rest.pop("max_edge"), flip_labels=flips, **rest)
