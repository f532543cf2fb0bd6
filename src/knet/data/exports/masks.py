"""Masks in colours: CVAT's "Segmentation mask", with labelmap.txt, and folders of RGB masks with a table of colours."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from knet.data.exports.color_table import Colors, read_colors
from knet.data.exports.export import (
    Export,
    Look,
    Picture,
    Reading,
    Shape,
    files_below,
    has_images,
    split_named,
    split_of,
)
from knet.data.files.channels import is_blue_first, pack_colors
from knet.data.files.io import list_images, read_labels_or_colors, values_in, without_ending
from knet.data.files.masks import pack_mask
from knet.data.files.pictures import open_picture
from knet.data.readers.reader import size_text
from knet.errors import DataError
from knet.files import open_plain
from knet.parse import LARGEST_YAML, read_bounded

VOID = frozenset(
    [
        "background",
        "void",
        "unlabeled",
        "unlabelled",
        "ignore",
        "ignored",
        "unknown",
        "__background__",
        "_background_",
        "none",
        "__ignore__",
    ]
)
"""Names of classes that mean that nobody labelled a pixel, unless the user lists them as stuff or things."""

_MASKS = re.compile(r"(?:(.+)[-_ ])?(?:masks?|labels?|annotations?|segmentations?|gt|semantic)", re.IGNORECASE)
_IMAGES = ("images", "image", "img", "imgs", "JPEGImages", "rgb")
_SUFFIX = re.compile(r"[-_. ](mask|masks|label|labels|seg|gt|l|color|colour)$", re.IGNORECASE)


def find_labelmap(root: Path) -> Path | None:
    """CVAT's labelmap.txt beside SegmentationClass."""
    found = files_below(root, "labelmap.txt")
    return next((path for path in found if (path.parent / "SegmentationClass").is_dir()), None)


def read_cvat_masks(reading: Reading) -> Export:
    """Reads SegmentationClass; where SegmentationObject numbers the objects, these are told apart."""
    path = find_labelmap(reading.root)
    assert path is not None
    folder = path.parent
    images = next((folder / name for name in ("JPEGImages", "images") if (folder / name).is_dir()), folder)
    if images == folder and not has_images(folder):
        raise DataError(f"{folder} has masks but no JPEGImages; export with 'Save images', or copy the images there.")
    objects = folder / "SegmentationObject"
    masks = folder / "SegmentationClass"
    pairs = [
        (image, mask, objects / mask.relative_to(masks) if objects.is_dir() else None)
        for image, mask in _pairs(images, masks, reading)
    ]
    export = _read(reading, "CVAT segmentation masks", read_colors(path), pairs)
    splits = _image_sets(folder)
    for picture in export.pictures:
        name = without_ending((reading.root / picture.name).relative_to(images).as_posix())
        picture.split = splits.get(name, picture.split)
    return export


def _image_sets(folder: Path) -> dict[str, str]:
    """The split of each image, by its name without ending, as CVAT lists them in ImageSets/Segmentation/Train.txt."""
    named = [(path, split) for path in files_below(folder / "ImageSets", ".txt") if (split := split_named(path.stem))]
    lines = {path: read_bounded(path, LARGEST_YAML).decode("utf-8-sig", "replace").splitlines() for path, _ in named}
    return {line.strip().strip('"'): split for path, split in named for line in lines[path]}


def find_colors(root: Path) -> tuple[Path, list[Path]] | None:
    """The file that says what colours mean, and the folders of masks."""
    folders = {masks_above(path.parent, root) for path in files_below(root, ".png")} - {None}
    tables = files_below(root, ".csv", ".txt", ".json", ".yaml", ".yml") if folders else []
    for path in tables:
        with suppress(DataError):
            read_colors(path)
            return path, sorted(folder for folder in folders if folder is not None)
    return None


def read_color_masks(reading: Reading) -> Export:
    """Reads folders of images with masks, whose colours a table names."""
    found = find_colors(reading.root)
    assert found is not None
    pairs = []
    for masks in found[1]:
        pairs += [(image, mask, None) for image, mask in _pairs(_images_of(masks, reading.root), masks, reading)]
    return _read(reading, "masks in colours", read_colors(found[0]), pairs)


def masks_above(folder: Path, root: Path) -> Path | None:
    """The folder of masks that a folder is, or is in: root/masks for root/masks/train."""
    above = [folder, *folder.parents]
    return next((one for one in above if one.is_relative_to(root) and one != root and _MASKS.fullmatch(one.name)), None)


def _images_of(masks: Path, root: Path) -> Path:
    """The folder of the images of masks: train for train_labels, or one called images, beside them or above."""
    found = _MASKS.fullmatch(masks.name)
    beside = [masks.parent / found[1]] if found and found[1] else []
    beside += [folder / name for folder in masks.parents if folder.is_relative_to(root) for name in _IMAGES]
    return next((folder for folder in beside if folder.is_dir()), masks.parent)


def _pairs(images: Path, masks: Path, reading: Reading) -> Iterator[tuple[Path, Path]]:
    """Images and their masks: of the same name, but for the ending or for "_mask" and the like."""
    found = {without_ending(name): masks / name for name in list_images(masks)}
    shorter = {_SUFFIX.sub("", name): path for name, path in found.items()}
    used = set()
    for name in list_images(images):
        stem = without_ending(name)
        if masks in (images / name).parents or _SUFFIX.search(stem):
            continue
        mask = next(
            (known[key] for known in (found, shorter) for key in (stem, _SUFFIX.sub("", stem)) if key in known), None
        )
        if mask is None:
            reading.remarks.left_out("images without a mask", name)
            continue
        used.add(mask)
        yield images / name, mask
    for mask in sorted(set(found.values()) - used):
        reading.remarks.left_out("masks without an image", mask.name)


def _read(reading: Reading, form: str, colors: Colors, pairs: Sequence[tuple[Path, Path, Path | None]]) -> Export:
    """Reads images with their masks, and the pictures that number the objects, where there are any."""
    pictures = []
    for image, mask, objects in pairs:
        picture = reading.open(image, split=split_of(image.parent.relative_to(reading.root)))
        if picture is not None and _add_shapes(picture, colors, mask, objects, reading):
            pictures.append(picture)
    looks = {name: Look(any(row[2] for row in pairs) or None, _unpack(color)) for color, name in colors.items()}
    return Export(form, pictures, looks)


def _add_shapes(picture: Picture, colors: Colors, path: Path, objects: Path | None, reading: Reading) -> bool:
    """Adds a shape for each class, or each object, of a mask; False if the mask cannot be used."""
    remarks = reading.remarks
    try:
        values = _packed(path)
        numbers = None if objects is None else _packed(objects)
    except DataError as fault:
        remarks.left_out("masks that cannot be read", str(fault).rstrip("."))
        return False
    for drawn in (values, numbers):
        if drawn is not None and drawn.shape != picture.size:
            remarks.left_out("masks of another size than their image", f"{path.name} {size_text(drawn.shape)}")
            return False
    present = values_in(values).tolist()
    if is_blue_first(present, list(colors)):
        remarks.left_out("masks with red and blue exchanged (write them as RGB; OpenCV's imwrite takes BGR)", path.name)
        return False
    for color in present:
        inside = values == color
        if color not in colors:
            if color:
                where = f"{path.name} {_unpack(color)}, {int(inside.sum())} pixels"
                remarks.left_out("colours that the table lacks, whose pixels are void", where)
        elif numbers is None:
            picture.shapes.append(Shape(colors[color], pack_mask(inside), apart=False))
        else:
            for number in values_in(numbers[inside]).tolist():
                picture.shapes.append(Shape(colors[color], pack_mask(inside & (numbers == number))))
    return True


def _packed(path: Path) -> np.ndarray:
    values = read_labels_or_colors(path)
    return pack_colors(values) if values.ndim == 3 else _palette(path, values)


def _palette(path: Path, values: np.ndarray) -> np.ndarray:
    """The colours of a picture with a palette, or grey levels as colours. -> (H,W) int32"""
    with open_plain(path) as stream, open_picture(stream) as file:
        if file.mode == "P":
            return pack_colors(np.asarray(file.convert("RGB")))
    return values * 0x010101 if values.max(initial=0) < 256 else values


def _unpack(color: int) -> tuple[int, int, int]:
    return color >> 16, color >> 8 & 255, color & 255
