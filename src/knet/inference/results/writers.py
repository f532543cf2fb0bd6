"""Results on disk. Every file appears under its own name only when it is whole.

File names begin with the image's and say what the file holds, so results may go into the folder of the images:

    format      file                    content
    overlay     <name>_overlay.jpg      the image with class colours, borders and names
    panoptic    <name>_panoptic.png     COCO panoptic: segment id = R + 256 G + 65536 B, 0 = void; with panoptic.json
    instances   <name>_instances.png    Cityscapes instanceIds, 16 bit: things category id * 1000 + n, stuff category id
    semantic    <name>_semantic.png     category ids, 8 bit (16 bit where needed); with semantic_classes.json
    json        <name>_segments.json    the segments as plain data
    polygons    <name>_polygons.json    the segments as COCO's annotations with polygons
    video       <video>_overlay.mp4     the overlays as H.264 at the video's frame rate

Void is 0 in instances and semantic. If a class has the id 0 (KITTI-STEP, VIPSeg), void is the largest number that the
pixels can hold, 255 or 65535.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from knet.calls import named_options
from knet.data.categories import SEMANTIC_CLASSES, rows_for_json
from knet.errors import ConfigError, OutputError
from knet.files import UniqueNames, open_plain, safe_name
from knet.inference.results.encoding import panoptic_entries
from knet.inference.results.files import JsonRows, Writer, write_bytes
from knet.inference.results.film import STILL_RATE, Film
from knet.inference.results.formats import check_formats
from knet.inference.results.legend import room_for
from knet.inference.results.segmentation import Segmentation, write_files
from knet.inference.results.style import Drawing, style_of
from knet.inference.sources.videos import VideoInfo
from knet.structures import Category

_MADE = b'{"info": {"description": "results of knet"},\n'


class CocoFile(JsonRows):
    """A JSON in COCO's form, in the making: `panoptic.json`, or one of objects."""

    def __init__(self, path: Path, categories: Sequence[Category]):
        rows = json.dumps(rows_for_json(categories))
        super().__init__(path, _MADE + f'"categories": {rows},\n"annotations": ['.encode())
        # The images come last in the file, and until then lie in one of their own.
        self._images = self._beside()

    def add_image(self, image: dict[str, Any], *annotations: dict[str, Any]) -> None:
        """Adds an image's rows of `images` and `annotations`; after an OutputError the file is as it was before."""
        before = self._images.size
        self._images.append((b",\n" if before else b"") + json.dumps(image).encode())
        try:
            self.add(annotations)
        except OutputError:
            self._images.cut(before)
            raise

    def tail(self) -> Iterator[bytes]:
        """Closes `annotations`, and adds `images`."""
        yield b'\n],\n"images": [\n'
        yield from self._images.content()
        yield b"\n]}\n"


def _refuse_truth(path: Path) -> None:
    """Raises `ConfigError` for a `panoptic.json` that no earlier run wrote: data sets have one of that name."""
    with suppress(OSError), open_plain(path) as file:  # none is there, or writing tells what is
        if file.read(len(_MADE)) != _MADE:
            raise ConfigError(
                f"'{path}' would be replaced by results, and does not come from knet predict; choose another folder."
            )


class ResultWriter(Writer):
    """Writes the results of many images to a folder, in any of `FORMATS`.

    Images of the same name (a/x.jpg, b/x.png, b/X.png) get a number, in the order in which they come: x, x_2, X_3.
    Files that an earlier run left under these names are replaced. `panoptic.json` and videos are finished by `close`,
    see `Writer`; after an error `panoptic.json` lists the images that were done, and the unfinished video is removed.
    Memory does not grow with the number of images. `drawing` are the options of `Segmentation.overlay`.

    Raises:
        ConfigError: an unknown format, or one that cannot hold the class table; a wrong option of drawing; the folder
            has a `panoptic.json` that is not of results.
        OutputError: the folder cannot be made or written.
    """

    @named_options
    def __init__(
        self,
        folder: str | Path,
        formats: Sequence[str],
        categories: Sequence[Category],
        drawing: Drawing | None = None,
    ):
        self.formats, self._drawing = check_formats(formats, categories), drawing or {}
        self._style = style_of(self._drawing)
        if "panoptic" in self.formats:
            _refuse_truth(Path(folder) / "panoptic.json")
        super().__init__(folder, categories)
        self._image_names, self._video_names = UniqueNames(), UniqueNames()
        self._filmed: Path | None = None  # the video that the open film is of
        self._classes_written = False
        self._image_ids: set[int] = set()

    @named_options
    def write(
        self,
        segmentation: Segmentation,
        image: Any,
        *,
        path: Path | None = None,
        video: VideoInfo | None = None,
        seconds: float | None = None,
        name: str | None = None,
        file_name: str | None = None,
    ) -> list[Path]:
        """Writes one result, and returns the files that are finished by now: not `panoptic.json`, and no videos.

        Args:
            image: what the result was made from, anything that `load_image` takes.
            path: the image's file, whose name `panoptic.json` gives.
            file_name: what `panoptic.json` gives instead, such as a path below a folder.
            name: what file names begin with; by default that of the result, with a number if it was there before.
            video: the video that the image is a frame of. Each video becomes one film; images without a video become
                one together (`images_overlay.mp4`, 10 frames a second, each fitted into the size of the first).

        Raises:
            DataError: the image does not fit the result.
            OutputError: no permission, no space; the files written before stay.
        """
        # Without a file of the image alone no name is needed, and a camera's would fill the memory.
        if name is None:
            name = "" if set(self.formats) <= {"video"} else self._image_names(safe_name(segmentation.name))
        drawn = "overlay" in self.formats or "video" in self.formats
        picture = self._draw(segmentation, image) if drawn else None
        written = write_files(segmentation, self.folder, name, self.formats, picture)
        if "semantic" in self.formats and not self._classes_written:
            table = {"categories": rows_for_json(self.categories)}
            written.append(write_bytes(self.folder / SEMANTIC_CLASSES, json.dumps(table, indent=1).encode()))
            self._classes_written = True
        if "panoptic" in self.formats:
            image_file, png_file = file_name or (path.name if path else name), f"{name}_panoptic.png"
            self._note_rows(*panoptic_entries(segmentation, name, image_file, png_file))
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
        name = self._video_names(safe_name(video.name if video else "images"))
        return Film(self.folder / f"{name}_overlay.mp4", video.rate if video else STILL_RATE)

    def add_rows(self, *rows: dict[str, Any]) -> None:
        """Adds an image's rows, of `images` and of `annotations`, to `panoptic.json`."""
        image, annotation = rows
        id_ = self._image_id(image["id"])
        panoptic = self._file("panoptic", lambda: CocoFile(self.folder / "panoptic.json", self.categories))
        panoptic.add_image(image | {"id": id_}, annotation | {"image_id": id_})

    def _image_id(self, name: str) -> int | str:
        """The image's id in `panoptic.json`. COCO's files are named by a number, by which it finds the truth."""
        if not (name.isascii() and name.isdecimal()) or int(name) in self._image_ids:
            return name
        self._image_ids.add(int(name))
        return int(name)
