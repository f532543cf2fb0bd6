"""Reads Cityscapes with the classes of KITTI-STEP: single images that Video K-Net is trained on before videos.

Only persons and cars have objects; Cityscapes' other things are stuff here. Source: Video-K-Net
external/cityscapes_step.py.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from knet.data.categories import CategoryTable, as_table, load_categories, package_table
from knet.data.files.io import list_images, name_some, read_image, read_labels
from knet.data.readers.clips import look_up, make_id_map
from knet.data.readers.reader import with_image, without_image
from knet.data.readers.roots import find_cityscapes
from knet.errors import DataError
from knet.structures import Category, Sample

_VOID = 255
_OBJECTS = 1000
_TRAIN_IDS, _RAW = "_gtFine_instanceTrainIds.png", "_gtFine_instanceIds.png"


class CityscapesStep:
    """A split of Cityscapes as single images with KITTI-STEP's classes.

    Objects are read from `*_gtFine_instanceTrainIds.png` where cityscapesScripts made them, else from the download's
    `*_gtFine_instanceIds.png`, which say the same. Groups of persons or cars are crowds: the original trains them
    neither as objects nor as stuff. Images without a person or car stay in the set.

    Args:
        root: the folder that holds gtFine and leftImg8bit.
        split: train or val.
        categories: the classes in label order, whose ids, or a table's label values, are train ids; None takes
            the table kitti_step.
    """

    def __init__(self, root: str | Path, split: str, categories: CategoryTable | Sequence[Category] | None = None):
        (place,) = find_cityscapes(root, (split,))
        table = as_table(load_categories("kitti_step") if categories is None else categories)
        self.categories = table.categories
        labels = list_images(place.labels)
        self._ending = _TRAIN_IDS if any(name.endswith(_TRAIN_IDS) for name in labels) else _RAW
        self._stems = [name.removesuffix(self._ending) for name in labels if name.endswith(self._ending)]
        self._images, self._labels = place.images, place.labels
        if not self._stems:
            raise DataError(f"{place.labels} holds no *{_RAW}; unpack gtFine_trainvaltest.zip there.")
        lonely = sorted(set(self._stems) - {n.removesuffix(place.image_ending) for n in list_images(place.images)})
        if lonely:
            raise DataError(
                f"{place.images} has no image of {name_some(lonely)}; unpack leftImg8bit_trainvaltest.zip there."
            )
        self._train_ids = _train_ids(table.label_values, raw=self._ending == _RAW)

    def __len__(self) -> int:
        return len(self._stems)

    def name(self, index: int) -> str:
        """City, sequence and frame, such as aachen_000000_000019; unique in the data set."""
        return PurePosixPath(self._stems[index]).name

    def read(self, index: int) -> Sample:
        """Reads image number `index` with its id map and segments."""
        path = self._images / f"{self._stems[index]}_leftImg8bit.png"
        return with_image(self.read_truth(index), read_image(path), path, self._path(index))

    def read_truth(self, index: int) -> Sample:
        """Like `read`, with an empty image (0,0,3)."""
        values = read_labels(self._path(index))
        told_apart = values >= _OBJECTS
        classes = np.where(told_apart, values // _OBJECTS, values)
        labels = look_up(classes, self._train_ids, self._path(index))
        numbers = np.where(told_apart, values % _OBJECTS + 1, 0)
        return without_image(self.name(index), *make_id_map(labels, numbers, self.categories))

    def _path(self, index: int) -> Path:
        return self._labels / f"{self._stems[index]}{self._ending}"


def _train_ids(train_ids: Sequence[int], raw: bool) -> dict[int, int]:
    """Pixel value of a class -> label, -1 for void. `raw`: Cityscapes' own numbers of classes in place of train ids."""
    labels = {train_id: label for label, train_id in enumerate(train_ids)}
    if not raw:
        return labels | {_VOID: -1}
    return {row["id"]: labels.get(row["train_id"], -1) for row in package_table("cityscapes")["raw_labels"]}
