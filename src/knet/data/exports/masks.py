"""Masks in colours: CVAT's "Segmentation mask", with labelmap.txt, and folders of RGB masks with a table of colours."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from knet.data.exports.export import Export, Look, Picture, Reading, Shape, files_below, has_images, split_of
from knet.data.files.channels import is_blue_first, pack_colors
from knet.data.files.io import list_images, load_json, read_labels_or_colors, values_in, without_ending
from knet.data.files.masks import pack_mask
from knet.data.readers.reader import size_text
from knet.errors import DataError
from knet.parse import LARGEST_YAML, parse_yaml, read_bounded

Colors = dict[int, str]
"""The class of each colour, R * 65536 + G * 256 + B."""

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
    ]
)
"""Names of classes that mean that nobody labelled a pixel, unless the user lists them as stuff or things."""

_TRIPLE = re.compile(r"(?<!\d)(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})(?!\d)")
_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "segmentation", "segmentations", "gt", "semantic")
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
    pairs = _pairs(images, folder / "SegmentationClass", reading)
    return _read(reading, "CVAT segmentation masks", read_colors(path), pairs, objects if objects.is_dir() else None)


def find_colors(root: Path) -> tuple[Path, Path] | None:
    """A folder of masks and the file that says what their colours mean."""
    folders = sorted({path.parent for path in files_below(root, ".png") if _is_masks(path.parent, root)})
    if not folders:
        return None
    for path in files_below(root, ".csv", ".txt", ".json", ".yaml", ".yml"):
        try:
            if read_colors(path):
                return path, folders[0]
        except DataError:
            continue
    return None


def read_color_masks(reading: Reading) -> Export:
    """Reads folders of images with masks, whose colours a table names."""
    found = find_colors(reading.root)
    assert found is not None
    pairs = []
    folders = {path.parent for path in files_below(reading.root, ".png") if _is_masks(path.parent, reading.root)}
    tops = {folder for folder in folders if not folders & set(folder.parents)}
    for masks in sorted(tops):
        images = next((masks.parent / name for name in ("images", "image", "img", "JPEGImages", "rgb")), masks.parent)
        pairs += list(_pairs(images if images.is_dir() else masks.parent, masks, reading))
    return _read(reading, "masks in colours", read_colors(found[0]), iter(pairs), None)


def read_colors(path: Path) -> Colors:
    """The class of each colour from lines (`name:r,g,b::`, `r g b name`, CSV), or from JSON or YAML.

    Raises:
        DataError: the file cannot be read, names no colours, or gives two classes the same.
    """
    try:
        if path.suffix.lower() in (".csv", ".txt"):
            text = read_bounded(path, LARGEST_YAML).decode("utf-8-sig", "replace")
            rows = [row for line in text.splitlines() if not line.startswith("#") and (row := _of_line(line))]
        else:
            is_json = path.suffix.lower() == ".json"
            content = load_json(path) if is_json else parse_yaml(read_bounded(path, LARGEST_YAML))
            rows = list(_of_content(content))
    except (OSError, ValueError) as fault:
        raise DataError(f"The table of colours {path} cannot be read ({fault}).") from fault
    colors: Colors = {}
    for name, (red, green, blue) in rows:
        other = colors.setdefault(red << 16 | green << 8 | blue, name)
        if other != name:
            raise DataError(f"{path} has the colour {red}, {green}, {blue} for '{other}' and for '{name}'.")
    if not colors:
        raise DataError(f"{path} names no colours; give lines such as 'car:255,0,0' or 'car,255,0,0'.")
    return colors


def _of_line(line: str) -> tuple[str, tuple[int, int, int]] | None:
    found = _TRIPLE.search(line)
    if found is None or any(int(part) > 255 for part in found.groups()):
        return None
    rest = re.split(r"[,:;\t]", f"{line[: found.start()]},{line[found.end() :]}")
    names = [part.strip() for part in rest if part.strip() and not part.strip().isdigit()]
    red, green, blue = map(int, found.groups())
    return (names[0], (red, green, blue)) if names else None


def _of_content(content: Any) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """Names and colours of {name: colour}, {colour: name}, or a list of rows with name and color."""
    if isinstance(content, dict):
        content = next((content[key] for key in ("categories", "classes", "labels") if key in content), content)
    if isinstance(content, dict):
        pairs = list(content.items())
    elif isinstance(content, list):
        rows = [row for row in content if isinstance(row, dict)]
        pairs = [(row.get("name"), row.get("color", row.get("colour"))) for row in rows]
    else:
        pairs = []
    for one, other in pairs:
        for name, color in ((one, _color(other)), (other, _color(one))):
            if isinstance(name, str) and color is not None:
                yield name, color
                break


def _color(given: Any) -> tuple[int, int, int] | None:
    if isinstance(given, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", given):
        return int(given[1:3], 16), int(given[3:5], 16), int(given[5:7], 16)
    if isinstance(given, str) and (found := re.fullmatch(r"\D*(\d{1,3})\D+(\d{1,3})\D+(\d{1,3})\D*", given)):
        given = [int(part) for part in found.groups()]
    if (
        isinstance(given, list)
        and len(given) == 3
        and all(isinstance(part, int) and 0 <= part <= 255 for part in given)
    ):
        return given[0], given[1], given[2]
    return None


def _is_masks(folder: Path, root: Path) -> bool:
    return any(part.lower() in _FOLDERS for part in folder.relative_to(root).parts)


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


def _read(
    reading: Reading, form: str, colors: Colors, pairs: Iterator[tuple[Path, Path]], objects: Path | None
) -> Export:
    pictures = []
    for image, mask in pairs:
        picture = reading.open(image, split=split_of(image.parent.relative_to(reading.root)))
        if picture is not None and _add_shapes(picture, colors, mask, objects, reading):
            pictures.append(picture)
    looks = {name: Look(objects is not None or None, _unpack(color)) for color, name in colors.items()}
    return Export(form, pictures, looks)


def _add_shapes(picture: Picture, colors: Colors, path: Path, objects: Path | None, reading: Reading) -> bool:
    """Adds a shape for each class, or each object, of a mask; False if the mask cannot be used."""
    remarks = reading.remarks
    try:
        values = _packed(path)
        numbers = None if objects is None else _packed(objects / path.name)
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
    from PIL import Image

    with Image.open(path) as file:
        if file.mode == "P":
            return pack_colors(np.asarray(file.convert("RGB")))
    return values * 0x010101 if values.max(initial=0) < 256 else values


def _unpack(color: int) -> tuple[int, int, int]:
    return color >> 16, color >> 8 & 255, color & 255
