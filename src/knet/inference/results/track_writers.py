"""Tracked videos on disk, in the formats that data sets and their tools read.

    format          files                                          content
    step            panoptic/<video>/<frame>.png                   KITTI-STEP: R category id, 255 void; object 256 G + B
    vipseg          vipseg/panomasks/<video>/<frame>.png           category id + 1; of things times 100 + object; 0 void
    cityscapes-vps  cityscapes_vps/<video>_<frame>_final_mask.png  category id; of things times 1000 + object; 255 void
    tracks          tracks.jsonl                                   a line of JSON for each frame, with its time if that
                                                                   is known, and masks of things
    mots            mots/<video>.txt                               KITTI MOTS: a line for each car (1) and person (2)

The formats vipseg-json and cityscapes-vps-json make vipseg_json/ and cityscapes_vps_json/ with a pred.json and the PNGs
of pan_pred/, which the official evaluators of VPQ read; see `VideoJson`.

Beside the folders of step and vipseg, semantic_classes.json names the classes.

<frame> is the number in the file's name or, in a video, the position, with six digits. In step, tracks and mots an
object has the number of its track. vipseg and cityscapes-vps have few numbers, so there objects are counted within
their class and video. A thing without a track is a region of its class whose objects are not separated; mots omits it.
Where objects overlap, all formats but tracks give the pixel to the best of them.
"""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from knet.data.categories import SEMANTIC_CLASSES, load_categories, rows_for_json
from knet.data.files.masks import pack_mask
from knet.data.readers.cityscapes_vps import VPS_OBJECTS, write_vps_png
from knet.data.readers.kitti_step import VOID, write_step_png
from knet.data.readers.mots import MotsLine
from knet.data.readers.vipseg import VIPSEG_OBJECTS, write_vipseg_png
from knet.errors import ConfigError, DataError
from knet.files import safe_name
from knet.inference.results.draw import map_ids
from knet.inference.results.encoding import rle_text
from knet.inference.results.files import GrowingFile, LiveFile, Writer, write_bytes
from knet.inference.results.segmentation import Segmentation
from knet.inference.results.track_json import VideoJson
from knet.inference.sources.streams import Frame
from knet.structures import Category

_logger = logging.getLogger("knet")
_LARGEST_OBJECT = 65535
_OTHER_NAMES = {"pedestrian": "person"}
_NESTED = {"vipseg-json": True, "cityscapes-vps-json": False}
_PIXELS = {"step", "vipseg"}  # formats whose pixels hold category ids, and that are judged
_IDS = {
    "step": (0, 0, 254),
    "vipseg": (0, 2, 123),
    "cityscapes-vps": (0, 1, 64),
}  # of stuff from, of things from, to; VIPSeg's pixel 200 is void


def check_track_formats(formats: Sequence[str], categories: Sequence[Category]) -> None:
    """Raises ConfigError if one of the formats cannot hold the class table."""
    for name in formats:
        stuff, thing, last = _IDS.get(name, (-(10**9), -(10**9), 10**9))
        bad = next((c for c in categories if not (thing if c.thing else stuff) <= c.id <= last), None)
        if bad:
            raise ConfigError(
                f"The format '{name}' holds category ids from {thing if bad.thing else stuff} to {last}, but "
                f"'{bad.name}' has {bad.id}; use 'tracks' instead."
            )
    if "mots" in formats and not mots_classes(categories):
        raise ConfigError(
            "The format 'mots' holds cars and persons, and this model knows neither; use 'tracks' instead."
        )


def mots_classes(categories: Sequence[Category]) -> dict[int, int]:
    """The category ids of the classes that KITTI MOTS has as well, by name -> MOTS' own ids."""
    known = {category.name: category.id for category in load_categories("kitti_mots")}
    named = {c.id: c.name.casefold() for c in categories if c.thing}
    return {i: known[name] for i, old in named.items() if (name := _OTHER_NAMES.get(old, old)) in known}


class TrackWriter(Writer):
    """Writes tracked frames to a folder, in any of `TRACK_FORMATS`. ConfigError if one cannot hold the class table.

    `tracks.jsonl` can be read line by line while it grows. `pred.json` and the texts of mots grow on disk as well and
    are finished by `close`, see `Writer`. Memory does not grow with the number of frames.
    """

    def __init__(self, folder: str | Path, formats: Sequence[str], categories: Sequence[Category]):
        check_track_formats(formats, categories)
        super().__init__(folder, categories)
        self.formats = tuple(formats)
        self._mots_classes = mots_classes(categories) if "mots" in formats else {}
        self._videos: set[str] = set()
        self._video = ""
        self._told: set[tuple[str, str]] = set()
        self._counted: dict[int, dict[int, int]] = {}  # category id -> track -> its number in the video

    def write(self, segmentation: Segmentation, frame: Frame) -> None:
        """Writes one frame. DataError if step or mots have no number for a track."""
        if frame.first:
            self._begin(frame.sequence)
        makers: dict[str, Callable[[Segmentation, int], None]] = {
            "step": self._write_step,
            "vipseg": self._write_numbered,
            "cityscapes-vps": self._write_numbered,
            "mots": self._write_mots,
        }
        for maker in dict.fromkeys(makers[name] for name in self.formats if name in makers):  # two share one
            maker(segmentation, frame.number)
        if "tracks" in self.formats:
            self._write_tracks(segmentation, frame)
        for name in filter(self.formats.__contains__, _NESTED):
            self._predictions(name).write(segmentation, frame)

    def _begin(self, sequence: str) -> None:
        name, n = safe_name(sequence), 1
        while self._key(candidate := name if n == 1 else f"{name}_{n}") in self._videos:
            n += 1
        if not self._videos and _PIXELS.intersection(self.formats):  # `knet eval` finds the truth's classes by name
            table = {"categories": rows_for_json(self.categories)}
            write_bytes(self.folder / SEMANTIC_CLASSES, json.dumps(table, indent=1).encode())
        self._video, self._counted = candidate, {}
        self._videos.add(self._key(candidate))
        if "mots" in self.formats:
            self._finish("mots")
            self._mots()
        for format_ in filter(self.formats.__contains__, _NESTED):
            self._predictions(format_).begin(candidate)

    def _key(self, video: str) -> str:
        """What two videos must not have in common: Cityscapes-VPS writes all underlines in their names as hyphens."""
        flat = {"cityscapes-vps", "cityscapes-vps-json"}.intersection(self.formats)
        return video.casefold().replace("_", "-") if flat else video.casefold()

    def _mots(self) -> GrowingFile:
        return self._file("mots", lambda: GrowingFile(self.folder / "mots" / f"{self._video}.txt"))

    def _predictions(self, name: str) -> VideoJson:
        return self._file(
            name, lambda: VideoJson(self.folder / name.replace("-", "_"), self.categories, nested=_NESTED[name])
        )

    def _write_step(self, segmentation: Segmentation, number: int) -> None:
        ids = [s.id for s in segmentation.segments]
        classes = map_ids(segmentation.id_map, ids, np.array([s.category for s in segmentation.segments]), VOID)
        objects = np.array([s.track or 0 if s.thing else 0 for s in segmentation.segments], np.int64)
        self._check_objects(segmentation, "STEP PNG")
        path = self.folder / "panoptic" / self._video / f"{number:06d}.png"
        write_step_png(path, classes, map_ids(segmentation.id_map, ids, objects, 0))

    def _check_objects(self, segmentation: Segmentation, kind: str) -> None:
        """Raises DataError if the number of a track has more than 16 bits."""
        largest = max((segment.track or 0 for segment in segmentation.segments), default=0)
        if largest > _LARGEST_OBJECT:
            raise DataError(
                f"A {kind} of '{self._video}' would need the object {largest}; objects go up to {_LARGEST_OBJECT}: "
                "cut the video into parts, or use 'tracks'."
            )

    def _write_numbered(self, segmentation: Segmentation, number: int) -> None:
        """VIPSeg and Cityscapes-VPS."""
        labels = {category.id: label for label, category in enumerate(self.categories)}
        ids, numbers = [s.id for s in segmentation.segments], list[int]()
        for segment in segmentation.segments:
            counted = self._counted.setdefault(segment.category, {})
            tracked = segment.thing and segment.track
            numbers.append(counted.setdefault(segment.track, len(counted) + 1) if tracked else 0)  # type: ignore[arg-type]
        of_label = np.array([labels[s.category] for s in segmentation.segments], np.int64)
        maps = map_ids(segmentation.id_map, ids, of_label, -1), map_ids(segmentation.id_map, ids, np.array(numbers), 0)
        if "vipseg" in self.formats:
            path = self.folder / "vipseg" / "panomasks" / self._video / f"{number:06d}.png"
            write_vipseg_png(path, maps[0], self._within(maps[1], VIPSEG_OBJECTS, "VIPSeg"), self.categories)
        if "cityscapes-vps" in self.formats:
            video = self._video.replace("_", "-")  # what comes before the first _ is the video
            path = self.folder / "cityscapes_vps" / f"{video}_{number:06d}_final_mask.png"
            write_vps_png(path, maps[0], self._within(maps[1], VPS_OBJECTS, "Cityscapes-VPS"), self.categories)

    def _within(self, numbers: np.ndarray, largest: int, kind: str) -> np.ndarray:
        """Objects beyond the last number become regions that are not told apart, which is said once a video."""
        beyond = numbers > largest
        if beyond.any() and (self._video, kind) not in self._told:
            self._told.add((self._video, kind))
            _logger.warning(
                f"'{self._video}' has more than {largest} objects of a class, for which {kind} has no numbers: the "
                "rest is written as regions that are not told apart; 'tracks' holds them all."
            )
        return np.where(beyond, 0, numbers)

    def _write_tracks(self, segmentation: Segmentation, frame: Frame) -> None:
        row = {"video": self._video, "frame": frame.number, "time": frame.item.seconds, **segmentation.to_dict()}
        for segment, entry in zip(segmentation.segments, row["segments"], strict=True):
            if segment.thing:
                entry["segmentation"] = rle_text(segmentation.rle(segment))
        tracks = self._file("tracks", lambda: LiveFile(self.folder / "tracks.jsonl"))
        tracks.append(json.dumps(row).encode() + b"\n")

    def _write_mots(self, segmentation: Segmentation, number: int) -> None:
        self._check_objects(segmentation, "MOTS text")
        lines = []
        for segment in segmentation.segments:
            if segment.track and segment.category in self._mots_classes:
                pixels = segmentation.owned(segment)  # MOTS' own evaluation refuses masks that overlap
                if pixels.any():
                    kind = self._mots_classes[segment.category]
                    lines.append(MotsLine(number, segment.track, kind, pack_mask(pixels)))
        self._mots().append("".join(f"{line}\n" for line in lines).encode())
