"""Reads and writes VIPSeg: videos of all kinds; a 16-bit PNG for each frame says class and object at once.

A value of `panomasks` is 0 for void, category id + 1 for stuff, and (category id + 1) * 100 + object for things.
Source: VIPSeg-Dataset/VIPSeg-Dataset; the stray value 200 is void, as in Video K-Net's code.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from knet.data.categories import CategoryTable, as_table, load_categories
from knet.data.readers.clips import ClipReader, FrameFiles, frames_below, refuse_lonely
from knet.data.readers.numbered_png import NumberedPng
from knet.errors import DataError
from knet.parse import ParseError, read_lines
from knet.structures import Category, SegmentInfo

_MASKS = NumberedPng("VIPSeg mask", objects=100, shift=1, void=(0, 200))  # 200 is a stray value
VIPSEG_OBJECTS = _MASKS.objects  # of a class, in a video
write_vipseg_png = _MASKS.write
_IMAGE_FOLDERS = ("imgs", "images")


class VipSeg(ClipReader):
    """A split of VIPSeg, of the download or of its version in 720p.

    A thing's class without an object is a crowd. Videos without masks (the test split) have images only, and masks may
    be read without images.

    Args:
        root: holds `imgs` or `images`, and `panomasks`, each with a folder for each video, and `<split>.txt` with a
            video's name on each line, which may lie beside the root.
        split: train, val or test.
        categories: the classes in label order, whose ids, or a table's label values, are those of the masks; None takes
            the table vipseg.
    """

    def __init__(self, root: str | Path, split: str, categories: CategoryTable | Sequence[Category] | None = None):
        root = Path(root)
        table = as_table(load_categories("vipseg") if categories is None else categories)
        self._ids = table.label_values
        beside = root.parent / f"{split}.txt"  # the version in 720p is a folder of the download
        own = root / beside.name
        videos = read_video_list(beside if beside.is_file() and not own.is_file() else own)
        images = next((root / name for name in _IMAGE_FOLDERS if (root / name).is_dir()), None)
        masks = root / "panomasks"
        of_images, of_masks = ({} if one is None or not one.is_dir() else frames_below(one) for one in (images, masks))
        frames = []
        for video in videos:
            numbers = of_images.get(video, of_masks.get(video))
            if numbers is None:
                raise DataError(f"{root} has no folder of images or masks of {video}, which {split}.txt lists.")
            if images and video in of_masks:
                refuse_lonely(images / video, numbers, masks / video, of_masks[video])
            for number in numbers:
                image = images / of_images[video][number] if images and video in of_images else None
                mask = masks / of_masks[video][number] if video in of_masks else None
                frames.append(FrameFiles(video, number, image, mask))
        super().__init__(frames, table.categories, f"The split {split} of {root}")

    def _decode(self, frame: FrameFiles, truth: Path) -> tuple[np.ndarray, list[SegmentInfo]]:
        return _MASKS.read(truth, self._ids, self.categories)


def read_video_list(path: Path) -> list[str]:
    """Reads a file with a video's name on each line."""
    needs = "it needs a video's name on each line."
    try:
        names = " ".join(read_lines(path)).split()
    except (OSError, ParseError) as fault:
        raise DataError(f"The list of videos {path} cannot be read ({fault}); {needs}") from fault
    if not names:
        raise DataError(f"The list of videos {path} is empty; {needs}")
    return names
