"""The result for one image: which pixel belongs to which segment, and what each segment is."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from PIL import Image

from knet.calls import named_options
from knet.data.categories import rows_for_json
from knet.data.files.masks import Rle, pack_mask, unpack_mask
from knet.errors import ConfigError, require
from knet.files import safe_name
from knet.inference.results import elsewhere
from knet.inference.results.draw import map_ids, overlay
from knet.inference.results.encoding import instance_ids, panoptic_entries, panoptic_rgb, rle_text, semantic_ids
from knet.inference.results.files import make_folder, write_bytes, write_image
from knet.inference.results.formats import check_formats
from knet.inference.results.legend import Room
from knet.inference.results.style import Drawing, style_of
from knet.inference.results.unnamed import own_name
from knet.inference.sources.images import load_image
from knet.structures import Category, Segment

SHOWN = 0.3  # of objects that may overlap, the least score in pictures; most of a model's hundred are guesses


@dataclass(slots=True, repr=False)
class Segmentation:
    """The result for one image.

    Attributes:
        id_map: (H,W) int32, the pixels of the original image: 0 = void, otherwise the `id` of one of `segments`.
        segments: what was found.
        categories: the class table of the model.
        name: of the image: that of its file without the ending; of a frame, the video's with the frame's number.
        image: (H,W,3) uint8 RGB, the image itself if it was kept; `overlay` and `save` draw on it by default.
        masks: where segments may overlap (instance segmentation), the packed mask of each by its id. In the id map a
            pixel then belongs to the segment with the highest score; areas and boxes are those of the whole masks.
        tracked: whether it is a frame of a video whose objects are followed; one may have no object at all.
        numbers: of an image without a name (an array, bytes), those that its files got in folders; None if it has one.
    """

    id_map: np.ndarray
    segments: list[Segment]
    categories: tuple[Category, ...]
    name: str = "image"
    image: np.ndarray | None = field(default=None, compare=False)
    masks: dict[int, Rle] | None = None
    tracked: bool = field(default=False, compare=False)
    numbers: dict[Path, int] | None = field(default=None, compare=False)

    @named_options
    def mask(self, segment: Segment) -> np.ndarray:
        """The mask of a segment, with the parts that others hide. -> (H,W) bool"""
        return self.owned(segment) if self.masks is None else unpack_mask(self.masks[segment.id])

    def rle(self, segment: Segment) -> Rle:
        """The mask of a segment as COCO's packed RLE, {"size": [H, W], "counts": bytes}."""
        return pack_mask(self.mask(segment)) if self.masks is None else self.masks[segment.id]

    def owned(self, segment: Segment) -> np.ndarray:
        """The pixels that belong to a segment and to no other, for formats whose masks are disjoint. -> (H,W) bool"""
        return self.id_map == segment.id

    def overlay(self, image: Any = None, *, room: Room | None = None, **options: Unpack[Drawing]) -> np.ndarray:
        """The result drawn over its image: class colours, contours, class names. -> (H,W,3) uint8 RGB

        Of objects that may overlap, those with a score below 0.3 are not drawn.

        Args:
            image: anything that `load_image` takes; by default the kept image or, without one, no image.
            room: of the legend, the same in all frames of a video; see `room_for`.
            options: `alpha`, the share of the colours, 0 (image only) to 1 (colours only), 0.5 by default; `names`,
                whether to write class names (True); `scores`, whether to write scores as well (False); `legend`,
                whether to add a panel of the classes and their colours below, by which the picture becomes higher
                (False); `contours`, borders around all segments (True), none (False) or objects alone (None).

        Raises:
            ConfigError: an unknown option, or a wrong value.
            DataError: the image cannot be read, or its size is not that of the result.
        """
        style_of(options)
        if image is None:
            image = self.image
        if image is None:
            image, options = np.zeros((*self.id_map.shape, 3), np.uint8), {**options, "alpha": 1.0}
        pixels = load_image(image)
        shown = [s for s in self.segments if self.masks is None or s.score >= SHOWN]
        return overlay(pixels, self.id_map, shown, self.categories, room=room, **options)

    def save(
        self,
        folder: str | Path,
        formats: Sequence[str] = ("overlay", "panoptic"),
        image: Any = None,
        name: str | None = None,
        **drawing: Unpack[Drawing],
    ) -> list[Path]:
        """Writes the result to files, each of them whole or not at all. Files of the same name are replaced.

        Results of images that have no name, such as arrays and bytes, replace nothing: they are called image, image_2,
        ..., the next of which the folder has no file.

        Args:
            folder: gets the files, and is made if needed.
            formats: any of overlay (`<name>_overlay.jpg`), panoptic (`<name>_panoptic.png` and, in COCO's format,
                `<name>_panoptic.json`), instances and semantic (PNG), json (`<name>_segments.json`) and
                polygons (`<name>_polygons.json`, as `to_coco(form="polygons")`); see `writers`.
            image: for the overlay, see `overlay`.
            name: what file names begin with; by default that of the result.
            drawing: of the overlay: alpha, names, scores, legend, contours; see `overlay`.

        Returns:
            The files.

        Raises:
            ConfigError: a format is unknown, or cannot hold the class table; a wrong option of drawing.
            DataError: the image does not fit the result.
            OutputError: the folder cannot be written, or the disk is full.
        """
        require(str | PathLike, "the path of a folder", folder=folder)
        require(str | None, "a name", name=name)
        formats = check_formats(formats, self.categories)
        if "video" in formats:
            raise ConfigError("The format 'video' needs many images: write them with a ResultWriter or `knet predict`.")
        style_of(drawing, beside=("formats", "image", "folder"))
        picture = self.overlay(image, **drawing) if "overlay" in formats else None
        folder = make_folder(Path(folder))
        if name is None and self.numbers is not None:
            with own_name(self.name, folder, self.numbers) as own:
                return self._written(folder, safe_name(own), formats, picture)
        return self._written(folder, safe_name(self.name if name is None else name), formats, picture)

    def _written(self, folder: Path, name: str, formats: Sequence[str], picture: np.ndarray | None) -> list[Path]:
        """The files of this name; see `save`."""
        written = write_files(self, folder, name, formats, picture)
        if "panoptic" in formats:
            image_entry, annotation = panoptic_entries(self, name, name, f"{name}_panoptic.png")
            document = {"images": [image_entry], "annotations": [annotation]}
            document["categories"] = rows_for_json(self.categories)
            written.append(write_bytes(folder / f"{name}_panoptic.json", json.dumps(document).encode()))
        return written

    def semantic_map(self) -> np.ndarray:
        """The category id of every pixel, -1 where void. -> (H,W) int32"""
        ids = [segment.id for segment in self.segments]
        return map_ids(self.id_map, ids, np.array([s.category for s in self.segments], np.int32), -1)

    @named_options
    def to_dict(self) -> dict[str, Any]:
        """Name, size and segments as plain numbers, strings, lists and dictionaries, ready for JSON.

        Pixels are left out, except for the masks of segments that may overlap (`segmentation`, COCO's RLE).
        """
        height, width = self.id_map.shape
        segments: list[dict[str, Any]] = [
            {
                "id": int(s.id),
                "category": int(s.category),
                "name": s.name,
                "thing": bool(s.thing),
                "score": float(s.score),
                "area": int(s.area),
                "box": [int(edge) for edge in s.box],
                "track": None if s.track is None else int(s.track),
            }
            for s in self.segments
        ]
        if self.masks is not None:
            for row in segments:
                row["segmentation"] = rle_text(self.masks[row["id"]])
        return {"name": self.name, "height": int(height), "width": int(width), "segments": segments}

    @named_options
    def to_coco(self, image_id: int = 1, form: elsewhere.Outline = "rle") -> dict[str, Any]:
        """The segments as COCO's annotations with scores, beside their image and classes: a whole JSON document.

        Args:
            image_id: the number of the image in it.
            form: of the masks: "rle" is exact, "polygons" is what annotation tools can edit.
        """
        return elsewhere.coco(self, image_id, form)

    @named_options
    def to_dataframe(self) -> Any:
        """The segments as rows of a `pandas.DataFrame`. Raises `ConfigError` without that package."""
        return elsewhere.dataframe(self)

    @named_options
    def to_supervision(self) -> Any:
        """The segments as `supervision.Detections`: boxes, (N,H,W) masks, class ids, scores, names, tracks.

        `class_id` is the data set's category id. `tracker_id` is -1 for what has no track; it is set for every tracked
        frame, also for one without objects, and None for images.

        Raises:
            ConfigError: the package `supervision` is not installed.
        """
        return elsewhere.supervision(self)

    @named_options
    def to_fiftyone(self) -> Any:
        """The segments as `fiftyone.Detections` with masks. Raises `ConfigError` without that package."""
        return elsewhere.fiftyone(self)

    def to_pil(self, **options: Any) -> Image.Image:
        """The `overlay`, which takes the options, as Pillow's image."""
        return Image.fromarray(self.overlay(**options))

    def show(self, **options: Any) -> None:
        """Opens the `overlay`, which takes the options, in the system's image viewer."""
        self.to_pil(**options).show(self.name)

    def _repr_png_(self) -> bytes:
        """What notebooks show."""
        return elsewhere.png(self.overlay())

    def __repr__(self) -> str:
        height, width = self.id_map.shape
        counts = Counter(segment.name for segment in self.segments)
        found = ", ".join(name if count == 1 else f"{count} {name}" for name, count in counts.most_common(8))
        more = f" and {len(counts) - 8} classes more" if len(counts) > 8 else ""
        return f"Segmentation({self.name!r}, {width}x{height}: {found or 'nothing'}{more})"


def write_files(
    segmentation: Segmentation, folder: Path, name: str, formats: Sequence[str], picture: np.ndarray | None
) -> list[Path]:
    """Writes the files of one image to an existing folder, and returns them; `picture` is the finished overlay."""
    makers: dict[str, tuple[str, Callable[[], np.ndarray]]] = {
        "panoptic": (f"{name}_panoptic.png", lambda: panoptic_rgb(segmentation)),
        "instances": (f"{name}_instances.png", lambda: instance_ids(segmentation)),
        "semantic": (f"{name}_semantic.png", lambda: semantic_ids(segmentation)),
    }
    if picture is not None:
        makers["overlay"] = (f"{name}_overlay.jpg", lambda: picture)
    written: list[Path] = []
    for kind in formats:
        if kind in makers:
            path = folder / makers[kind][0]
            written.append(write_image(path, makers[kind][1]()))
        elif kind == "json":
            text = json.dumps(segmentation.to_dict(), indent=1)
            written.append(write_bytes(folder / f"{name}_segments.json", text.encode()))
        elif kind == "polygons":
            text = json.dumps(segmentation.to_coco(form="polygons"))
            written.append(write_bytes(folder / f"{name}_polygons.json", text.encode()))
    return written
