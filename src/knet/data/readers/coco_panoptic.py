"""Reads a data set in the COCO panoptic form: a JSON of images and segments, and an RGB PNG of ids for each image.

Cityscapes (after the official conversion), Mapillary Vistas and COCO itself all come in this form.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from knet.data.files.channels import BLUE_FIRST, is_blue_first
from knet.data.files.id_cache import IdCache
from knet.data.files.io import list_images, name_some, read_ids, read_image, values_in
from knet.data.readers.find_images import ImageFinder
from knet.data.readers.panoptic_json import Entry, Fault, PanopticJson
from knet.data.readers.reader import size_text, with_image, without_image
from knet.errors import DataError
from knet.structures import Category, Sample, SegmentInfo


class CocoPanoptic:
    """Any data set in the COCO panoptic form.

    What can be checked without opening a picture is checked at once, for all images.

    Args:
        images: folder of the images, see `ImageFinder`; None reads the ground truth only.
        json: the panoptic JSON.
        masks: folder of its PNGs.
        categories: the classes in label order; None takes those of the JSON, in its order.
        cache: folder that keeps the PNGs' content in a form that is read faster (`IdCache`); None keeps nothing.

    Raises:
        DataError: a missing or broken file, or a JSON that contradicts itself, its folders or the categories.
    """

    def __init__(
        self,
        images: str | Path | None,
        json: str | Path,
        masks: str | Path,
        categories: Sequence[Category] | None = None,
        cache: str | Path | None = None,
    ):
        self._images = None if images is None else Path(images)
        self._json = Path(json)
        self._masks = Path(masks)
        self._read_ids = read_ids if cache is None else IdCache(Path(cache)).read
        document = PanopticJson(self._json, categories)
        self.categories = document.categories
        find = None if self._images is None else ImageFinder(self._images, self._json)
        self._entries: list[Entry] = []
        for found in document.walk(find, self._masks, set(list_images(self._masks))):
            if isinstance(found, Fault):
                raise DataError(found.sentence)
            self._entries.append(replace(found, rows=[]))
        if find is not None:
            find.say_oddities()

    def __len__(self) -> int:
        return len(self._entries)

    def name(self, index: int) -> str:
        """The image id of the JSON as text; unique in the data set."""
        return self._entries[index].name

    def segments(self, index: int) -> list[SegmentInfo]:
        """The segments of an image, from the JSON alone."""
        return self._entries[index].segments

    def read(self, index: int) -> Sample:
        """Reads image number `index` with its id map and segments."""
        image_name = self._entries[index].image
        if self._images is None or image_name is None:
            raise DataError(f"{self._json} was opened without a folder of images; give one to read images.")
        path = self._images / image_name
        image = read_image(path)
        return with_image(self.read_truth(index), image, path, self._masks / self._entries[index].mask)

    def read_truth(self, index: int) -> Sample:
        """Like `read`, with an empty image (0,0,3)."""
        entry = self._entries[index]
        path = self._masks / entry.mask
        id_map = self._read_ids(path)
        if entry.size is not None and id_map.shape != entry.size:
            raise DataError(
                f"{path} is {size_text(id_map.shape)} pixels but {self._json} says {size_text(entry.size)} for image "
                f"{entry.name}; use the PNGs that belong to this JSON."
            )
        in_map = set(values_in(id_map).tolist()) - {0}
        in_json = {segment.id for segment in entry.segments}
        if in_map != in_json:
            if is_blue_first(in_map, in_json):
                raise DataError(f"{path} has ids that {self._json} lacks: {BLUE_FIRST}.")
            extra, lacking = sorted(in_map - in_json), sorted(in_json - in_map)
            what = f"has the ids {name_some(extra)} that" if extra else f"lacks the ids {name_some(lacking)} that"
            verb = "does not list" if extra else "lists"
            raise DataError(
                f"{path} {what} {self._json} {verb} for image {entry.name}; use the PNGs that belong to this JSON."
            )
        return without_image(entry.name, id_map, list(entry.segments))
