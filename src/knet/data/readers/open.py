"""Opens the data sets that a config or a command names: a split of a download, files of one's own, or several sets."""

from collections.abc import Sequence
from pathlib import Path

from knet.config import Data, Files, TrainFiles
from knet.data.categories import CategoryTable, as_table, category_tables, load_categories, load_table
from knet.data.class_order import in_order
from knet.data.files.io import read_json
from knet.data.readers.cityscapes_step import CityscapesStep
from knet.data.readers.cityscapes_vps import CityscapesVps
from knet.data.readers.clip_folder import ClipFolder
from knet.data.readers.clips import ClipReader
from knet.data.readers.coco_instances import CocoInstances
from knet.data.readers.coco_panoptic import CocoPanoptic
from knet.data.readers.kitti_step import KittiStep
from knet.data.readers.label_folder import LabelFolder
from knet.data.readers.mixture import Mixture, Part, labels_called, names_like, translate_labels
from knet.data.readers.reader import Reader
from knet.data.readers.translated import TranslatedClips, translated_objects
from knet.data.readers.vipseg import VipSeg
from knet.data.readers.youtube_vis import YoutubeVis
from knet.errors import ConfigError, shown
from knet.structures import Category

_FORMS = ({"json_file", "masks"}, {"json_file"}, {"labels"}, {"labels", "instances"})
CLIP_ROOTS = {
    "step": ("train", "val"),
    "vipseg": ("train", "val"),
    "youtube-vis": ("train", "valid"),
    "cityscapes-vps": ("train", "val"),
}
"""The layouts of video data sets, with their splits that have a ground truth."""
_TABLES = {
    "step": "kitti_step",
    "cityscapes-step": "kitti_step",
    "vipseg": "vipseg",
    "cityscapes-vps": "cityscapes_vps",
}


def open_data(
    data: Data,
    files: Files | Sequence[TrainFiles] | None,
    categories: Sequence[Category] | None = None,
) -> Reader:
    """Opens a data set of a config, or a list of them as a `Mixture`.

    Args:
        files: of `data`, its `train` or `val`.
        categories: the classes, found by name in what the set itself says of its classes; without them those of the
            config's table, else those of the (first) set itself.

    Raises:
        ConfigError: `files` is missing or of none of the forms, labels come without a class table, or names of images
            or classes do not fit.
        DataError: the data set is broken, or has other classes.
    """
    if not files:
        raise ConfigError("The config has no 'data.train'; give its images and their truth, or a format and a split.")
    if categories is None and data.categories is not None:
        categories = load_categories(data.categories)
    sets: Sequence[Files] = [files] if isinstance(files, Files) else files
    if len(sets) == 1 and not _is_changed(sets[0]):
        return _open(data, sets[0], categories)
    if len(sets) == 1 and (translated := _translated(data, sets[0], categories)) is not None:
        return translated
    parts = []
    for own in sets:
        part = _part(data, own, categories)
        categories = part.reader.categories if categories is None else categories
        parts.append(part)
    assert categories is not None
    return Mixture(parts, categories)


def _is_changed(files: Files) -> bool:
    """Whether anything of the set is left out, translated or marked."""
    own = files if isinstance(files, TrainFiles) else TrainFiles()
    changed = bool(files.names or files.classes is not None or own.unlabelled or own.ignore_void or own.paste)
    return changed or own.weight is not None


def _title(files: Files) -> str:
    return f"the set '{files.images or files.split}'" + (f" ({', '.join(files.names)})" if files.names else "")


def _translated(data: Data, files: Files, categories: Sequence[Category] | None) -> Reader | None:
    """A set of clips, or of objects to be judged by, in other classes; None for all others, which a mixture translates.

    Models of clips and metrics of objects need more of a reader than a mixture has.
    """
    plain = files.model_copy(update={"classes": None})
    clips = files.format in CLIP_ROOTS or (files.labels is not None and files.instances is not None)
    alone = files.json_file is not None and files.masks is None and files.labels is None
    mapping, title = files.classes or {}, _title(files)
    if files.format == "youtube-vis" and not _is_changed(plain) and files.split is not None:
        path = data.root / f"{files.split}.json"
        content, own = translated_objects(read_json(path), "video", mapping, categories, (), title)
        return YoutubeVis(data.root / files.split / "JPEGImages", path, own, content)
    if alone and not isinstance(files, TrainFiles) and files.images is not None:
        path = data.root / str(files.json_file)
        content, own = translated_objects(read_json(path), "image", mapping, categories, files.names, title)
        return CocoInstances(data.root / files.images, path, own, content=content)
    if clips and not _is_changed(plain):
        table = None if files.categories is None else load_categories(files.categories)
        # What the values of a format mean, its own table says; the run's has the classes that they become.
        reader = _open(data if files.format is None else data.model_copy(update={"categories": None}), plain, table)
        assert isinstance(reader, ClipReader)
        target = reader.categories if categories is None else categories
        return TranslatedClips(reader, translate_labels(reader.categories, mapping, target, title), target)
    return None


def _part(data: Data, files: Files, categories: Sequence[Category] | None) -> Part:
    """What a mixture with these classes takes from a set; without classes it gets the set's own."""
    title = _title(files)
    own = categories if files.classes is None else None
    if files.classes is not None and files.categories is not None:
        own = load_categories(files.categories)
    reader = _open(data, files, own)
    if isinstance(reader, ClipReader):
        raise ConfigError(
            f"{title.capitalize()} holds clips, which cannot be mixed, chosen by names, or marked as unlabelled, "
            "ignore_void or paste; give it alone, with its classes at most."
        )
    target = reader.categories if categories is None else categories
    labels = translate_labels(reader.categories, files.classes or {}, target, title)
    indices = names_like(reader, files.names, title)
    if not isinstance(files, TrainFiles):
        return Part(title, reader, indices, labels, len(indices))
    return Part(
        title,
        reader,
        indices,
        labels,
        files.weight or len(indices),
        labels_called(files.unlabelled, target, f"The unlabelled classes of {title} name"),
        files.ignore_void,
        isinstance(reader, CocoInstances),
        files.paste,
    )


def _open(data: Data, files: Files, categories: Sequence[Category] | None) -> Reader:
    """Opens one set, with all its images; with the given classes, else with its own."""
    if files.format is not None:
        if files.split is None:
            raise ConfigError(f"A data set of the format {files.format} needs its split, such as split: train.")
        if files.format == "youtube-vis":
            return open_clips(files.format, data.root, files.split, categories)
        table = _numbers(files, data, categories)
        if files.format == "cityscapes-step":
            return CityscapesStep(data.root, files.split, table)
        return open_clips(files.format, data.root, files.split, table, data.compatible)
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
        named = files.categories or data.categories
        if named is None:
            raise ConfigError("Label PNGs do not say what their values mean; give a class table with data.categories.")
        table = load_table(named)
        if categories is not None:
            table = in_order(table, categories, f"The class table '{named}' of the labels in {labels}")
        if "instances" in given:
            return ClipFolder(images, labels, instances, table)
        return LabelFolder(images, labels, table)
    if "masks" in given:
        return CocoPanoptic(images, json, masks, categories, data.cache)
    return CocoInstances(images, json, categories, training=isinstance(files, TrainFiles))


def _numbers(files: Files, data: Data, categories: Sequence[Category] | None) -> CategoryTable:
    """The classes that a video data set is read with, with the ids that its files have for them as label values.

    These are the ids of a class table in a file of the user's, else those of the format.
    """
    table = as_table(load_categories(_TABLES[str(files.format)]))
    named = files.categories or data.categories
    if named in category_tables():
        table = in_order(table, load_categories(named), f"The format {files.format}")
    elif named is not None:
        table = as_table(load_categories(named))
    return table if categories is None else in_order(table, categories, f"The set of the format {files.format}")


def open_clips(
    layout: str,
    root: str | Path,
    split: str,
    categories: CategoryTable | Sequence[Category] | None = None,
    compatible: bool = False,
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
        classes = None if categories is None else as_table(categories).categories
        return YoutubeVis(root / split / "JPEGImages", root / f"{split}.json", classes)
    raise ConfigError(f"There is no layout {shown(layout)} of clips; choose from {', '.join(CLIP_ROOTS)}.")
