"""Reads and writes YouTube-VIS 2019: a JSON of videos and of objects with a mask, or none, for each frame.

Objects may overlap, so a frame's id map has layers, as in `CocoInstances`. Source: youtubevos/cocoapi ytvos.py.
"""

import json as jsonlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from knet.data.categories import things_from_rows
from knet.data.class_order import labels_of_ids
from knet.data.files.io import name_some, read_json
from knet.data.files.masks import Rle, mask_area, mask_box, read_mask, run_lengths
from knet.data.files.numbers import flag, whole
from knet.data.files.pictures import MAX_PIXELS
from knet.data.readers.clips import NUMBERS, ClipReader, FrameFiles, last_number
from knet.data.readers.coco_instances import stack_layers
from knet.data.readers.find_images import ImageFinder, plain_name
from knet.data.readers.reader import unknown_category
from knet.errors import DataError, shown
from knet.files import atomic_path
from knet.structures import Category, SegmentInfo


@dataclass(frozen=True, slots=True)
class _Track:
    """An object of a video; its masks are kept as text, which takes a fraction of the memory."""

    row: int
    label: int
    crowd: bool
    masks: list[bytes | None]


@dataclass(slots=True)
class _Video:
    clip: str
    files: list[str]
    size: tuple[int, int]
    tracks: list[_Track]


class YoutubeVis(ClipReader):
    """A split of YouTube-VIS.

    Objects are numbered in each video in the order of the JSON. Without annotations, as in valid.json, frames have
    images only. `video_ids` are the JSON's own, by the name of the clip, and `category_ids` by the label.

    Args:
        images: the folder JPEGImages of the split; None reads the ground truth only.
        json: train.json or valid.json.
        categories: the classes in label order; None takes those of the JSON, in its order.
        content: what is taken for the content of the JSON, in other classes; None reads it.
    """

    def __init__(
        self,
        images: str | Path | None,
        json: str | Path,
        categories: Sequence[Category] | None = None,
        content: dict[str, Any] | None = None,
    ):
        self.json = Path(json)
        self.truth: Path | dict[str, Any] = self.json if content is None else content  # what evaluation reads whole
        content = read_json(self.json) if content is None else content
        if not isinstance(content, dict) or not isinstance(content.get("videos"), list):
            raise DataError(f"{self.json} is no YouTube-VIS JSON: it must hold lists 'videos' and 'annotations'.")
        if categories is None:
            categories = things_from_rows(content.get("categories"), str(self.json))
        videos = self._read_videos(content["videos"])
        annotations = content.get("annotations")
        labels = labels_of_ids(content.get("categories"), categories, str(self.json))
        self.category_ids = {label: id_ for id_, label in labels.items()}
        for number, row in enumerate(annotations or [], 1):
            self._read_track(row, number, videos, labels)
        if images is not None:
            self._find_images(Path(images), videos.values())
        frames = []
        self.video_ids = {video.clip: id_ for id_, video in videos.items()}
        self._places: dict[tuple[str, int], tuple[_Video, int]] = {}
        for video in videos.values():
            for place, (name, number) in enumerate(zip(video.files, _frame_numbers(video.files), strict=True)):
                image = None if images is None else Path(images) / name
                frames.append(FrameFiles(video.clip, number, image, None if annotations is None else self.json))
                self._places[video.clip, number] = video, place
        super().__init__(frames, categories, str(self.json))

    def segments(self, index: int) -> list[SegmentInfo]:
        """The objects of a frame, as far as they are known without drawing masks."""
        frame = self._frames[index]
        video, place = self._places[frame.clip, frame.number]
        return [SegmentInfo(t.row, t.label, t.crowd) for t in video.tracks if t.masks[place] is not None]

    def _decode(self, frame: FrameFiles, truth: Path) -> tuple[np.ndarray, list[SegmentInfo]]:
        video, place = self._places[frame.clip, frame.number]
        rles, segments = [], []
        for number, track in enumerate(video.tracks, 1):
            mask = track.masks[place]
            if mask is None:
                continue
            rle = read_mask(jsonlib.loads(mask), video.size, f"{self.json}: annotation {track.row}")
            if mask_area(rle):
                rles.append(rle)
                segments.append(SegmentInfo((track.label + 1) * NUMBERS + number, track.label, track.crowd))
        ids = np.array([0] + [segment.id for segment in segments], np.int32)
        return ids[stack_layers(rles, video.size)], segments

    def _find_images(self, images: Path, videos: Iterable[_Video]) -> None:
        """Replaces the names of the JSON by those of the files."""
        find, absent = ImageFinder(images, self.json), list[str]()
        for video in videos:
            for place, name in enumerate(video.files):
                if not find.candidates(name):
                    absent.append(name)
                else:
                    video.files[place] = find(name)
        if absent:
            raise DataError(f"{images} has no image {name_some(absent)}, which {self.json} lists.")
        find.say_oddities()

    def _read_videos(self, rows: list[Any]) -> dict[int, _Video]:
        videos: dict[int, _Video] = {}
        for row in rows:
            known: Any = row if isinstance(row, dict) else {}
            files = known.get("file_names")
            id_, height, width = (whole(known.get(key)) or 0 for key in ("id", "height", "width"))
            named = isinstance(files, list) and files and all(isinstance(name, str) for name in files)
            if not named or min(id_, height, width) < 1 or height * width > MAX_PIXELS:
                raise DataError(f"{self.json}: a video needs id, file_names, height and width, not {str(row)[:80]}.")
            if id_ in videos:
                raise DataError(f"{self.json} lists the video {id_} twice; ids must be unique.")
            folder = PurePosixPath(plain_name(files[0])).parent.as_posix()
            videos[id_] = _Video(str(id_) if folder == "." else folder, list(files), (height, width), [])
        return videos

    def _read_track(self, row: Any, number: int, videos: dict[int, _Video], labels: dict[int, int]) -> None:
        where = f"{self.json}: annotation {number}"
        known: Any = row if isinstance(row, dict) else {}
        masks, crowd = known.get("segmentations"), flag(known.get("iscrowd") or 0)
        video, category = whole(known.get("video_id")), whole(known.get("category_id"))
        if video is None or video not in videos:
            raise DataError(f"{where} is of the video {shown(known.get('video_id'))}, which the file does not list.")
        if category is None or category not in labels:
            raise DataError(unknown_category(where, known.get("category_id"), labels))
        if crowd is None:
            raise DataError(f"{where} has iscrowd {shown(known['iscrowd'])}; give 0 or 1.")
        if not isinstance(masks, list) or len(masks) != len(videos[video].files):
            count = len(masks) if isinstance(masks, list) else 0
            raise DataError(
                f"{where} has {count} segmentations for {len(videos[video].files)} frames; give one or null each."
            )
        texts = [None if mask is None else jsonlib.dumps(mask).encode() for mask in masks]
        videos[video].tracks.append(_Track(number, labels[category], crowd, texts))


class TrackToWrite(NamedTuple):
    """An object of a video: its category id, and its packed mask in each frame, None where it is not seen."""

    category: int
    masks: Sequence[Rle | None]


class VideoToWrite(NamedTuple):
    """A video: its images relative to JPEGImages, their (height, width), its objects."""

    files: Sequence[str]
    size: tuple[int, int]
    tracks: Sequence[TrackToWrite]


def write_youtube_vis(json: str | Path, videos: Sequence[VideoToWrite], categories: Sequence[Category]) -> None:
    """Writes the JSON of a split."""
    rows: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for video_id, video in enumerate(videos, 1):
        size, edges = {"height": video.size[0], "width": video.size[1]}, list(video.size)
        rows.append({"id": video_id, **size, "length": len(video.files), "file_names": list(video.files)})
        for track in video.tracks:
            annotation = {
                "id": len(annotations) + 1,
                "video_id": video_id,
                "category_id": track.category,
                "iscrowd": 0,
                **size,
                "length": 1,  # as in the real files
                "segmentations": [mask and {"size": edges, "counts": run_lengths(mask)} for mask in track.masks],
                "bboxes": [mask and mask_box(mask) for mask in track.masks],
                "areas": [mask and mask_area(mask) for mask in track.masks],
            }
            annotations.append(annotation)
    names = [{"supercategory": "object", "id": category.id, "name": category.name} for category in categories]
    with atomic_path(json) as temporary:
        content = {"info": {}, "licenses": [], "videos": rows, "categories": names, "annotations": annotations}
        temporary.write_text(jsonlib.dumps(content), "utf-8")


def _frame_numbers(files: Sequence[str]) -> list[int]:
    """The numbers in the names if they rise from frame to frame, else 0, 1, ..."""
    numbers = [last_number(PurePosixPath(plain_name(name)).stem) for name in files]
    known = [number for number in numbers if number is not None]
    rising = len(known) == len(files) and all(one < other for one, other in pairwise(known))
    return known if rising else list(range(len(files)))
