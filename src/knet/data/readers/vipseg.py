"""Reads and writes VIPSeg: videos of all kinds with a 16-bit PNG for each frame that says class and object at once.

A value of `panomasks` is 0 for void, category id + 1 for stuff, and (category id + 1) * 100 + object for things.
Source: VIPSeg-Dataset/VIPSeg-Dataset; the stray value 200 is void, as in Video K-Net's code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from knet.data.categories import load_table
from knet.data.files.io import name_some, read_labels
from knet.data.readers.clips import ClipReader, FrameFiles, check_numbers, frames_below, look_up, make_id_map
from knet.errors import DataError
from knet.files import atomic_path
from knet.structures import Category, SegmentInfo

_OBJECTS = 100
_FIRST_OBJECT = 125  # values from here on hold an object's number
_STRAY = 200
_IMAGE_FOLDERS = ("imgs", "images")


class VipSeg(ClipReader):
    """A split of VIPSeg, of the download or of its version in 720p.

    root: holds `imgs` or `images`, and `panomasks`, each with a folder for each video, and `<split>.txt`, a video's
    name a line, which may lie beside the root · split: train, val or test · categories: the classes in label order;
    None takes the table vipseg.

    The object's number in a segment's id is the PNG's + 1, since theirs start from 0. A thing's class without an
    object is a crowd. Videos without masks (the test split) have images only, and masks may be read without images.

    Raises:
        DataError: a folder, the list or a video of it is missing, or images and masks do not pair up.
    """

    def __init__(self, root: str | Path, split: str, categories: Sequence[Category] | None = None):
        root = Path(root)
        categories = load_table("vipseg").categories if categories is None else categories
        beside = root.parent / f"{split}.txt"  # the version in 720p is a folder of the download
        videos = read_video_list(
            beside if beside.is_file() and not (root / beside.name).is_file() else root / beside.name
        )
        images = next((root / name for name in _IMAGE_FOLDERS if (root / name).is_dir()), None)
        masks = root / "panomasks"
        of_images, of_masks = ({} if one is None or not one.is_dir() else frames_below(one) for one in (images, masks))
        frames = []
        for video in videos:
            numbers = of_images.get(video, of_masks.get(video))
            if numbers is None:
                raise DataError(f"{root} has no folder of images or masks of {video}, which {split}.txt lists.")
            lonely = sorted(numbers.keys() ^ of_masks.get(video, numbers).keys())
            if lonely:
                raise DataError(f"The video {video} of {root} has the frame {name_some(lonely)} as image or mask only.")
            for number in numbers:
                image = images / of_images[video][number] if images and video in of_images else None
                mask = masks / of_masks[video][number] if video in of_masks else None
                frames.append(FrameFiles(video, number, image, mask))
        super().__init__(frames, categories, f"The split {split} of {root}")
        values = {category.id + 1: label for label, category in enumerate(categories)}
        things = {value: label for value, label in values.items() if categories[label].thing}
        self._labels = (
            {0: -1, _STRAY: -1}
            | values
            | {value * _OBJECTS + number: label for value, label in things.items() for number in range(_OBJECTS)}
        )

    def _decode(self, index: int) -> tuple[np.ndarray, list[SegmentInfo]]:
        path = self._frames[index].truth
        assert path is not None  # asked by read_truth
        values = read_labels(path)
        numbers = np.where(values >= _FIRST_OBJECT, values % _OBJECTS + 1, 0)
        return make_id_map(look_up(values, self._labels, path), numbers, self.categories)


def read_video_list(path: Path) -> list[str]:
    """The names of videos in a file with one a line.

    Raises:
        DataError: the file is missing or has no line.
    """
    try:
        names = path.read_text("utf-8").split()
    except (OSError, UnicodeDecodeError) as fault:
        raise DataError(f"The list of videos {path} cannot be read ({fault}); it has a video's name a line.") from fault
    if not names:
        raise DataError(f"The list of videos {path} is empty; it needs a video's name a line.")
    return names


def write_vipseg_png(path: str | Path, labels: np.ndarray, numbers: np.ndarray, categories: Sequence[Category]) -> None:
    """Writes a mask. (H,W) labels, -1 = void, (H,W) object numbers from 1 on for things, 0 = not told apart

    Raises:
        DataError: more than 100 objects of a class.
        OutputError: the file cannot be written.
    """
    is_thing = np.array([category.thing for category in categories] + [False])  # the last is void's, label -1
    value = np.array([category.id + 1 for category in categories] + [0])
    told_apart = is_thing[labels] & (numbers > 0)
    check_numbers(np.where(told_apart, numbers, 0), _OBJECTS, Path(path), "VIPSeg mask")
    values = np.where(told_apart, value[labels] * _OBJECTS + numbers - 1, value[labels]).astype(np.uint16)
    with atomic_path(path) as temporary:
        Image.fromarray(values).save(temporary)
