"""Whole clips in, objects with a mask in every frame out; and the file that YouTube-VIS's server takes.

For models of the task "clip", which look at all frames at once. YouTube-VIS's videos have at most 36 frames.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch

from knet.data.files.masks import mask_area, mask_box, pack_mask, unpack_mask
from knet.data.readers.youtube_vis import YoutubeVis
from knet.errors import ConfigError, DataError, OutputError
from knet.inference.encoding import rle_text
from knet.inference.engine import Engine, TorchEngine
from knet.inference.files import make_folder, write_bytes
from knet.inference.segmentation import Segmentation
from knet.inference.segmenter import Segmenter
from knet.inference.settings import Options
from knet.inference.streams import Frame
from knet.inference.submissions import OF_CLIPS, ResultRows
from knet.merge.clip import ClipObject, clip_objects
from knet.models.clip import ClipKNet, clip_result
from knet.structures import Category, Segment


@torch.inference_mode()
def segment_clip(
    segmenter: Segmenter, frames: Iterable[np.ndarray], count: int = 10, **options: Unpack[Options]
) -> list[ClipObject]:
    """The objects of a clip, best first, each with its masks at the frames' own size.

    The frames go through the backbone one after the other and may come from a generator. Of each the feature map, the
    kernels and the masks at 1/8 are kept until the last has come, so memory grows with the length of the clip: by about
    20 MB a frame at the published 360 x 640 pixels, on top of what a single image needs. An exported model takes all
    frames at once, and several times that. Cut longer videos into clips; objects of one clip then have nothing to do
    with those of another.

    Args:
        segmenter: of a model for clips, such as video-knet-r50-youtube-vis.
        frames: (H,W,3) uint8 RGB each, all of one size.
        count: the most objects.
        options: size and score, see `Options`.

    Raises:
        ConfigError: a model that is not for clips, an option out of range, or frames that are larger than the fixed
            size of an exported model.
        DataError: no frame, or frames of several sizes.
    """
    if segmenter.task != "clip":
        raise ConfigError(f"The model '{segmenter.name}' is not for clips; `knet models '*youtube-vis'` lists some.")
    settings = segmenter.settings.changed(segmenter.task, options)
    size = padded = seen = (0, 0)
    kept: list[list[torch.Tensor]] = []
    for number, frame in enumerate(frames):
        here = (frame.shape[0], frame.shape[1])
        size = size if number else here
        if here != size:
            raise DataError(
                f"Frame {number} of the clip has {here} pixels (height, width), the frames before have {size}; give "
                "frames of one size."
            )
        inputs, seen = segmenter.prepare(frame, settings.size)
        padded = (inputs.shape[2], inputs.shape[3])
        kept.append(_looked_at(segmenter.engine, inputs))
    if not kept:
        raise DataError("The clip has no frames; give at least one.")
    classes, masks = _linked(segmenter.engine, kept)
    return clip_objects(classes[0], masks[0], padded, seen, size, pack_mask, settings.score, count)


def _looked_at(engine: Engine, inputs: torch.Tensor) -> list[torch.Tensor]:
    """What is kept of a frame (1,3,h,w): features, kernels and masks; of an exported model, which sees frames only
    together, the frame itself.
    """
    net = engine.net
    if not isinstance(engine, TorchEngine) or not isinstance(net, ClipKNet):
        return [inputs]
    with engine.autocast():
        outputs, features = net.look(inputs)
    return [features, outputs[-1].kernels, outputs[-1].mask_logits]


def _linked(engine: Engine, kept: list[list[torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """What `_looked_at` gave of all frames -> class logits (1,N,K), mask logits (1,N,T,h,w). Empties the list."""
    net = engine.net
    if not isinstance(engine, TorchEngine) or not isinstance(net, ClipKNet):
        clip = torch.cat([frame for (frame,) in kept])
        kept.clear()
        return clip_result(engine(clip))
    tubes = [torch.stack(list(frames), dim=2) for frames in zip(*kept, strict=True)]
    kept.clear()
    with engine.autocast():
        return clip_result(net.link(*tubes))


def segment_clips(
    segmenter: Segmenter,
    frames: Iterable[Frame],
    on_error: Callable[[DataError], None] | None = None,
    **options: Unpack[Options],
) -> Iterator[tuple[list[Frame], list[ClipObject]]]:
    """The frames of each video of a stream, see `open_stream`, and its objects, see `segment_clip`.

    A video's images are kept until it has ended, beside what `segment_clip` keeps.

    Args:
        on_error: called with the error of a video that cannot be a clip; the next one follows. Without it the error is
            raised.

    Raises:
        ConfigError: as `segment_clip`.
    """
    for group in by_video(frames):
        kept: list[Frame] = []
        try:
            objects = segment_clip(segmenter, _keeping(group, kept), **options)
        except DataError as error:
            if on_error is None:
                raise
            on_error(DataError(f"'{kept[-1].sequence}': {error}") if kept else error)
            continue
        yield kept, objects


def by_video(frames: Iterable[Frame]) -> Iterator[Iterator[Frame]]:
    """The frames of each video of a stream, see `open_stream`."""
    count = 0

    def video(frame: Frame) -> int:
        nonlocal count
        count += frame.first
        return count

    for _, group in groupby(frames, video):
        yield group


def _keeping(frames: Iterable[Frame], kept: list[Frame]) -> Iterator[np.ndarray]:
    for frame in frames:
        kept.append(frame)
        yield frame.item.image


def frame_results(
    objects: Sequence[ClipObject], size: tuple[int, int], names: Sequence[str], categories: Sequence[Category]
) -> Iterator[Segmentation]:
    """The objects of a clip as the results of its frames, one after the other: to be drawn and written as any others.

    An object's track is its place in the list, from 1; it has the same score in all frames. Objects may overlap, so
    there are `masks`.

    size: height and width of the frames · names: what each is called · categories: the class table of the model.
    """
    for place, name in enumerate(names):
        id_map = np.zeros(size, np.int32)
        segments, masks = list[Segment](), {}
        for track, found in enumerate(objects, 1):
            rle = found.masks[place]
            if rle is None:
                continue
            number, category = len(segments) + 1, categories[found.label]
            masks[number] = rle
            id_map[unpack_mask(rle) & (id_map == 0)] = number  # the best comes first and keeps its pixels
            left, top, width, height = map(int, mask_box(rle))
            box, area = (left, top, left + width, top + height), mask_area(rle)
            segments.append(Segment(number, category.id, category.name, category.thing, found.score, area, box, track))
        yield Segmentation(id_map, segments, tuple(categories), name, masks=masks)


def youtube_vis_results(
    video_id: int, objects: Sequence[ClipObject], categories: Sequence[Category]
) -> list[dict[str, Any]]:
    """The objects of a video as rows of YouTube-VIS's results list, ready for JSON.

    Rows are {video_id, score, category_id, segmentations: RLE or None for each frame}. `categories` is the class table
    of the model. Objects without a pixel in any frame are left out.
    """
    return [
        {
            "video_id": video_id,
            "score": float(found.score),
            "category_id": categories[found.label].id,
            "segmentations": [None if mask is None else rle_text(mask) for mask in found.masks],
        }
        for found in objects
        if any(mask is not None for mask in found.masks)
    ]


def write_youtube_vis(path: str | Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Writes the rows of all videos as one JSON file, whole or not at all; its path.

    YouTube-VIS's server takes it as `results.json` in a zip.

    Raises:
        OutputError: the folder cannot be made or written, or the disk is full.
    """
    return write_bytes(Path(path), json.dumps(list(rows)).encode())


class YoutubeVisWriter:
    """Writes `youtube-vis/results.json` below a folder, video by video. A context manager, see `SubmissionWriter`.

    YouTube-VIS's server takes it in a zip. Memory does not grow with the videos.

    Args:
        images: of all videos that will come, in their folders `<split>/JPEGImages/<video>`, beside which the data set's
            `<split>.json` says the videos' ids.

    Raises:
        ConfigError: the class table is not that of the JSON.
        DataError: no such JSON, a video that it does not list, or not all images of one.
        OutputError: the folder cannot be made or written.
    """

    def __init__(self, folder: str | Path, categories: Sequence[Category], images: Iterable[Path]):
        self.categories = tuple(categories)
        self._videos = _read_videos(images, categories)
        self._rows: ResultRows | None = ResultRows(make_folder(Path(folder) / OF_CLIPS) / "results.json")

    def write(self, frames: Sequence[Frame], objects: Sequence[ClipObject]) -> None:
        """Adds the objects of a video.

        Raises:
            DataError: frames of it could not be read, so its masks would not fit.
            OutputError: no permission, no space.
        """
        folder = _video_of(frames[0].item.path or Path())
        id_, count = self._videos[folder]
        if len(frames) != count:
            raise DataError(
                f"The video '{folder.name}' has {len(frames)} frames that can be read of {count}; the submission lacks "
                "it, since the server takes whole videos only."
            )
        assert self._rows is not None  # not closed yet
        self._rows.add(youtube_vis_results(id_, objects, self.categories))

    def close(self) -> None:
        """Finishes the file. A second call does nothing."""
        rows, self._rows = self._rows, None
        if rows is not None:
            rows.finish()

    def __enter__(self) -> YoutubeVisWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        with suppress(*([OutputError] if kind else [])):  # the error on its way says more
            self.close()


def _video_of(image: Path) -> Path:
    return image.absolute().parent


def _read_videos(images: Iterable[Path], categories: Sequence[Category]) -> dict[Path, tuple[int, int]]:
    """The folder of each video -> its id and number of frames, by the JSON of its split."""
    videos: dict[Path, tuple[int, int]] = {}
    splits: dict[Path, dict[str, tuple[int, int]]] = {}
    for folder, count in Counter(map(_video_of, images)).items():
        split = folder.parent.parent
        json_file = split.parent / f"{split.name}.json"
        if json_file not in splits:
            if not json_file.is_file():
                raise DataError(
                    f"A submission to YouTube-VIS needs the ids of the videos, but there is no '{json_file}'; give the "
                    "folders of frames as they are in the download, such as 'valid/JPEGImages/*', beside valid.json."
                )
            reader = YoutubeVis(None, json_file)
            if sorted(c.id for c in reader.categories) != sorted(c.id for c in categories):
                raise ConfigError(f"The model has other classes than '{json_file}'; take one for YouTube-VIS.")
            splits[json_file] = {clip.name: (reader.video_ids[clip.name], len(clip.frames)) for clip in reader.clips}
        if folder.name not in splits[json_file]:
            raise DataError(f"'{json_file}' lists no video '{folder.name}'; give the folders of the videos it lists.")
        videos[folder] = splits[json_file][folder.name]
        if videos[folder][1] != count:
            raise DataError(
                f"The video '{folder.name}' has {videos[folder][1]} frames in '{json_file}', but {count} images are "
                "given; give the whole folder."
            )
    return videos
