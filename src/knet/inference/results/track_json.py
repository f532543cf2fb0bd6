"""Tracked videos as the official evaluators of VPQ read predictions: a JSON file, and PNGs whose colours are ids."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from knet.data.categories import rows_for_json
from knet.data.files.io import areas_in
from knet.data.readers.cityscapes_vps import frame_stem
from knet.inference.results.draw import map_ids
from knet.inference.results.files import JsonRows, write_image
from knet.inference.results.segmentation import Segmentation
from knet.inference.sources.streams import Frame
from knet.structures import Category


class VideoJson(JsonRows):
    """`pred.json` and `pan_pred` of VIPSeg (nested) or Cityscapes-VPS, for a server's zip or for `knet eval`.

    A segment's id is R + 256 G + 65536 B of its pixels. A track has the same id in all frames of its video, and so has
    all stuff of a class; things of a class without a track are one segment. `categories` are the classes, so that
    `knet eval` finds the truth's by name. Sources: VIPSeg-Dataset/VIPSeg-Dataset, mcahny/vps.

    If `nested`, annotations lie below their video, PNGs in a folder for each, and a frame's id is its image's name.
    Else all are in one list, and a frame's id, which is also the name of its PNG, begins with the video's name.
    """

    def __init__(self, folder: Path, categories: Sequence[Category], *, nested: bool):
        rows = json.dumps(rows_for_json(categories))
        super().__init__(folder / "pred.json", f'{{"categories": {rows},\n"annotations": ['.encode())
        self._nested = nested
        self._video = ""
        self._ids: dict[tuple[int, int], int] = {}  # (category id, track or 0) -> id in the video's masks

    def begin(self, video: str) -> None:
        """Begins a video, to which the frames that follow belong."""
        if self._nested:
            close = "\n]},\n" if self._video else "\n"
            self.append(f'{close}{{"video_id": {json.dumps(video)}, "annotations": ['.encode())
            self._separator = b"\n"
        self._video, self._ids = video, {}

    def write(self, segmentation: Segmentation, frame: Frame) -> None:
        """Writes a frame: its PNG, then its row."""
        name, place = self._name(frame)
        of_segment = [
            self._ids.setdefault((s.category, (s.track or 0) if s.thing else 0), len(self._ids) + 1)
            for s in segmentation.segments
        ]
        ids = map_ids(segmentation.id_map, [s.id for s in segmentation.segments], np.array(of_segment, np.int64), 0)
        category_of = dict(zip(of_segment, (s.category for s in segmentation.segments), strict=True))
        rows = [
            {"id": id_, "category_id": category_of[id_], "iscrowd": 0, "area": area}
            for id_, area in areas_in(ids).items()
            if id_
        ]
        colors = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)
        path = write_image(self.path.parent / "pan_pred" / place, colors)
        self.add([{"image_id": name, "file_name": path.name, "segments_info": rows}])

    def _name(self, frame: Frame) -> tuple[str, str]:
        """A frame's id, and where its PNG lies below `pan_pred`."""
        file = None if frame.item.video else frame.item.path
        name = f"{frame.number:06d}" if file is None else frame_stem(file.name)
        if self._nested:
            return name, f"{self._video}/{name}.png"
        video = self._video.replace("_", "-")  # what comes before the first _ is the video
        name = name if name.startswith(f"{video}_") else f"{video}_{name}"
        return name, f"{name}.png"

    def tail(self) -> Iterable[bytes]:
        """Closes the lists."""
        return [b"\n]}\n]}\n" if self._nested and self._video else b"\n]}\n"]
