"""Reads and writes KITTI-STEP: street videos with a panoptic PNG for each frame, R = class, G * 256 + B = object.

The class 255 is void; only persons and cars have object numbers, and their number 0 is a region in which nobody told
the objects apart. Sources: deeplab2 g3doc/setup/kitti_step.md; Video-K-Net scripts/kitti_step_prepare.py.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from knet.data.categories import CategoryTable, as_table, load_categories
from knet.data.files.channels import BLUE_FIRST
from knet.data.files.io import list_images, name_some, read_ids, save_png, values_in
from knet.data.readers.clips import (
    ClipReader,
    FrameFiles,
    check_numbers,
    frames_below,
    look_up,
    make_id_map,
    refuse_lonely,
)
from knet.errors import DataError, shown
from knet.structures import Category, SegmentInfo

SPLITS = ("train", "val", "test")
VOID = 255
STEP_ENCODING = "R is the class and 256 G + B the object (KITTI-STEP)"
LARGEST_NUMBER = 65535
# The sequences of KITTI's training folder, where the splits lie together.
_SEQUENCES = {"train": (0, 1, 3, 4, 5, 9, 11, 12, 15, 17, 19, 20), "val": (2, 6, 7, 8, 10, 13, 14, 16, 18)}
_FLAT_IMAGE, _FLAT_TRUTH = "_leftImg8bit.png", "_panoptic.png"


class KittiStep(ClipReader):
    """A split of KITTI-STEP, in any of the layouts it comes in.

    Args:
        root: holds `video_sequence/<split>/<seq>_<frame>_{leftImg8bit,panoptic}.png` (Video K-Net's layout), or
            `images/<split>/<seq>/<frame>.png` and `panoptic_maps/<split>/<seq>/<frame>.png` (deeplab2's), or the
            downloads as they are: `training/image_02/<seq>`, `testing/image_02/<seq>`, and
            `panoptic_maps/<split>/<seq>` or `training/panoptic/<seq>`.
        split: train, val or test (images only).
        categories: the classes in label order, whose ids, or a table's label values, are in the PNGs; None takes the
            table kitti_step.
        compatible: whether a person's or car's region without a number is an ordinary object, as in Video K-Net's
            code, instead of a crowd.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        categories: CategoryTable | Sequence[Category] | None = None,
        compatible: bool = False,
    ):
        if split not in SPLITS:
            raise DataError(f"KITTI-STEP has no split {shown(split)}; choose from {', '.join(SPLITS)}.")
        table = as_table(load_categories("kitti_step") if categories is None else categories)
        frames = _find_frames(Path(root), split)
        super().__init__(frames, table.categories, f"The split {split} of {root}")
        self._labels = {value: label for label, value in enumerate(table.label_values)} | {VOID: -1}
        self._compatible = compatible

    def _decode(self, frame: FrameFiles, truth: Path) -> tuple[np.ndarray, list[SegmentInfo]]:
        classes, numbers = read_step_png(truth)
        refuse_blue_first(classes, numbers, self._labels, truth)
        return make_id_map(look_up(classes, self._labels, truth), numbers, self.categories, not self._compatible)


def read_step_png(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads the classes and object numbers of a STEP PNG. -> (H,W) int32, (H,W) int32"""
    packed = read_ids(path, STEP_ENCODING)
    return packed & 255, (packed & 0xFF00) + (packed >> 16)


def refuse_blue_first(classes: np.ndarray, numbers: np.ndarray, known: Collection[int], path: Path) -> None:
    """Raises `DataError` if what a STEP PNG has as classes, (H,W), is known only in its blue channel."""
    blue = set(values_in(numbers & 255).tolist())
    unknown = [value for value in values_in(classes).tolist() if value not in known]
    if unknown and len(blue) > 1 and blue.issubset(known):
        raise DataError(
            f"{path} has the class value {name_some(unknown)}, which is neither a class of the table nor void, while "
            f"its blue channel holds nothing but classes: perhaps {BLUE_FIRST}."
        )


def write_step_png(path: str | Path, classes: np.ndarray, numbers: np.ndarray) -> None:
    """Writes a STEP PNG. (H,W) class numbers 0..255, 255 = void, (H,W) object numbers 0..65535"""
    check_numbers(numbers, LARGEST_NUMBER, Path(path), "STEP PNG")
    if classes.size and not 0 <= int(classes.min()) <= int(classes.max()) <= VOID:
        raise DataError(f"{path} would need the class {int(classes.max())}, but a STEP PNG holds 0 to {VOID}.")
    save_png(path, np.stack([classes, numbers // 256, numbers % 256], -1).astype(np.uint8))


def _find_frames(root: Path, split: str) -> list[FrameFiles]:
    """The frames of a split, in the first of the layouts that the root has."""
    if (root / "video_sequence" / split).is_dir():
        return _flat_frames(root / "video_sequence" / split, split)
    labelled = split != "test"
    whole = root / ("training" if labelled else "testing") / "image_02"
    if (root / "images" / split).is_dir():
        images, truths = root / "images" / split, root / "panoptic_maps" / split
        clips = frames_below(images)
    elif whole.is_dir():
        images, truths = whole, root / "panoptic_maps" / split
        truths = truths if truths.is_dir() or not labelled else root / "training" / "panoptic"
        chosen = {f"{number:04d}" for number in _SEQUENCES[split]} if labelled else None
        clips = {name: frames for name, frames in frames_below(images).items() if chosen is None or name in chosen}
    else:
        raise DataError(
            f"{root} has neither video_sequence/{split}, images/{split} nor {whole.relative_to(root)}; "
            "give the folder that holds KITTI-STEP."
        )
    masks = frames_below(truths) if labelled else {}
    found = []
    for clip, frames in clips.items():
        if labelled:
            refuse_lonely(images / clip, frames, truths / clip, masks.get(clip, {}))
        for number, name in frames.items():
            truth = truths / masks[clip][number] if labelled else None
            found.append(FrameFiles(clip, number, images / name, truth))
    return found


def _flat_frames(folder: Path, split: str) -> list[FrameFiles]:
    """The frames of Video K-Net's layout."""
    names = list_images(folder)
    images = {name.removesuffix(_FLAT_IMAGE) for name in names if name.endswith(_FLAT_IMAGE)}
    truths = {name.removesuffix(_FLAT_TRUTH) for name in names if name.endswith(_FLAT_TRUTH)}
    if images and split != "test":
        refuse_lonely(folder, images, folder, truths)
    found = []
    for stem in images or truths:  # evaluation needs no images
        clip, _, number = stem.partition("_")
        if not number.isdecimal():
            raise DataError(f"{folder / stem}{_FLAT_IMAGE} is not named <sequence>_<frame>{_FLAT_IMAGE}.")
        image = folder / f"{stem}{_FLAT_IMAGE}" if images else None
        found.append(FrameFiles(clip, int(number), image, folder / f"{stem}{_FLAT_TRUTH}" if stem in truths else None))
    return found
