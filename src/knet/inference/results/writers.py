"""Results on disk. Every file appears under its own name only when it is whole.

File names begin with the image's and say what the file holds, so results may go into the folder of the images:

    format      file                    content
    overlay     <name>_overlay.jpg      the image with class colours, borders and names
    panoptic    <name>_panoptic.png     COCO panoptic: segment id = R + 256 G + 65536 B, 0 = void; with panoptic.json
    instances   <name>_instances.png    Cityscapes instanceIds, 16 bit: things category id * 1000 + n, stuff category id
    semantic    <name>_semantic.png     category ids, 8 bit (16 bit where the table needs it)
    json        <name>_segments.json    the segments as plain data
    video       <video>_overlay.mp4     the overlays as H.264 at the video's frame rate

Void is 0 in instances and semantic. If a class has the id 0 (KITTI-STEP, VIPSeg), void is the largest number that the
pixels can hold, 255 or 65535.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from knet.data.categories import rows_for_json
from knet.files import safe_name
from knet.inference.results.encoding import panoptic_entries
from knet.inference.results.files import JsonRows, Writer
from knet.inference.results.film import STILL_RATE, Film
from knet.inference.results.formats import check_formats
from knet.inference.results.legend import room_for
from knet.inference.results.segmentation import Segmentation, write_files
from knet.inference.results.style import Drawing, style_of
from knet.inference.sources.videos import VideoInfo
from knet.structures import Category


class CocoFile(JsonRows):
    """A JSON in COCO's form, in the making: `panoptic.json`, or one of objects."""

    def __init__(self, path: Path, categories: Sequence[Category]):
        self._images = list[bytes]()
        rows = json.dumps(rows_for_json(categories))
        super().__init__(path, f'{{"categories": {rows},\n"annotations": ['.encode())

    def add_image(self, image: dict[str, Any], *annotations: dict[str, Any]) -> None:
        """Adds an image's rows of `images` and `annotations`; after an OutputError the file is as it was before."""
        self.add(annotations)
        self._images.append(json.dumps(image).encode())

    def tail(self) -> bytes:
        """Closes `annotations`, and adds `images`."""
        return b'\n],\n"images": [\n' + b",\n".join(self._images) + b"\n]}\n"


class ResultWriter(Writer):
    """Writes the results of many images to a folder, in any of `FORMATS`.

    Images of the same name (a/x.jpg, b/x.png, b/X.png) get a number, in the order in which they come: x, x_2, X_3.
    Files that an earlier run left under these names are replaced. `panoptic.json` and videos are finished by `close`,
    see `Writer`; after an error `panoptic.json` lists the images that were done, and the unfinished video is removed.
    Memory does not grow with the number of images. `drawing` are the options of `Segmentation.overlay`.

    Raises:
        ConfigError: an unknown format, or one that cannot hold the class table; a wrong option of drawing.
        OutputError: the folder cannot be made or written.
    """

    def __init__(
        self,
        folder: str | Path,
        formats: Sequence[str],
        categories: Sequence[Category],
        drawing: Drawing | None = None,
    ):
        self.formats, self._drawing = check_formats(formats, categories), drawing or {}
        self._style = style_of(self._drawing)
        super().__init__(folder, categories)
        self._last_number: dict[tuple[str, str], int] = {}
        self._filmed: Path | None = None  # the video that the open film is of
        self._image_ids: set[int] = set()

    def write(
        self,
        segmentation: Segmentation,
        image: Any,
        *,
        path: Path | None = None,
        video: VideoInfo | None = None,
        seconds: float | None = None,
    ) -> list[Path]:
        """Writes one result, and returns the files that are finished by now: not `panoptic.json`, and no videos.

        Args:
            image: what the result was made from, anything that `load_image` takes.
            path: the image's file, whose name `panoptic.json` gives.
            video: the video that the image is a frame of. Each video becomes one film; images without a video become
                one together (`images_overlay.mp4`, 10 frames a second, each fitted into the size of the first).

        Raises:
            DataError: the image does not fit the result.
            OutputError: no permission, no space; the files written before stay.
        """
        # Without a file of the image alone no name is needed, and a camera's would fill the memory.
        name = "" if set(self.formats) <= {"video"} else self._unique("image", safe_name(segmentation.name))
        drawn = "overlay" in self.formats or "video" in self.formats
        picture = self._draw(segmentation, image) if drawn else None
        written = write_files(segmentation, self.folder, name, self.formats, picture)
        if "panoptic" in self.formats:
            panoptic = self._file("panoptic", lambda: CocoFile(self.folder / "panoptic.json", self.categories))
            image_file, png_file = path.name if path else name, f"{name}_panoptic.png"
            panoptic.add_image(*panoptic_entries(segmentation, self._image_id(name), image_file, png_file))
        if "video" in self.formats and picture is not None:
            self._film_of(video).add(picture, seconds if video else None)
        return written

    def _draw(self, segmentation: Segmentation, image: Any) -> np.ndarray:
        """The overlay; all pictures of a film have a legend of the same size."""
        shape = (segmentation.id_map.shape[0], segmentation.id_map.shape[1])
        filmed = self._style.legend and "video" in self.formats
        room = room_for(shape, self.categories) if filmed else None
        return segmentation.overlay(image, room=room, **self._drawing)

    def _film_of(self, video: VideoInfo | None) -> Film:
        source = video.path if video else None
        if source != self._filmed:
            self._finish("film")
        self._filmed = source
        return self._file("film", lambda: self._new_film(video))

    def _new_film(self, video: VideoInfo | None) -> Film:
        name = self._unique("video", safe_name(video.name if video else "images"))
        return Film(self.folder / f"{name}_overlay.mp4", video.rate if video else STILL_RATE)

    def _image_id(self, name: str) -> int | str:
        """The image's id in `panoptic.json`. COCO's files are named by a number, by which it finds the truth."""
        if not (name.isascii() and name.isdecimal()) or int(name) in self._image_ids:
            return name
        self._image_ids.add(int(name))
        return int(name)

    def _unique(self, kind: str, name: str) -> str:
        """The name, or the first of name_2, name_3, ... that is free; case does not count as a difference."""
        number = self._last_number.get((kind, name.casefold()), 0) + 1
        candidate = name if number == 1 else f"{name}_{number}"
        while number > 1 and (kind, candidate.casefold()) in self._last_number:
            number += 1
            candidate = f"{name}_{number}"
        self._last_number[kind, name.casefold()] = number
        self._last_number.setdefault((kind, candidate.casefold()), 1)
        return candidate
