"""Whole clips in, objects with a mask in every frame out.

For models of the task "clip", which look at all frames at once. YouTube-VIS's videos have at most 36 frames.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, groupby
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from knet.calls import named_options
from knet.data.files.masks import pack_mask, unpack_mask
from knet.errors import ConfigError, DataError, KNetError, PredictionError, shown
from knet.inference.finite import require_finite_numbers
from knet.inference.results.chosen import class_ids
from knet.inference.results.segmentation import Segmentation
from knet.inference.segmenter import Segmenter
from knet.inference.segments import Segments
from knet.inference.settings import Options
from knet.inference.sources.streams import Frame
from knet.merge.clip import ClipObject, clip_objects
from knet.preprocess import ImageSizes
from knet.structures import Category


@named_options
@torch.inference_mode()
def segment_clip(
    segmenter: Segmenter, frames: Iterable[np.ndarray], count: int = 10, name: str = "clip", **options: Unpack[Options]
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
        name: of the clip, in errors.
        options: size, score and only, see `Options`.

    Raises:
        ConfigError: a model that is not for clips, an option out of range, or frames that are larger than the fixed
            size of an exported model.
        DataError: no frame, or frames of several sizes.
        PredictionError: the network's output is not finite.
    """
    if segmenter.task != "clip":
        raise ConfigError(f"The model '{segmenter.name}' is not for clips; `knet models '*youtube-vis'` lists some.")
    if count < 1:
        raise ConfigError(f"A clip has {shown(count)} objects at most (count); give 1 or more.")
    settings = segmenter.settings.changed(segmenter.task, options)
    if settings.region is not None:
        raise ConfigError("A region is for models that look at single frames; cut the frames of a clip before.")
    chosen = class_ids(settings.only, segmenter.categories)
    sizes: ImageSizes | None = None
    kept: list[tuple[Tensor, ...]] = []
    for number, frame in enumerate(frames):
        if sizes is not None and frame.shape[:2] != sizes.original:
            raise DataError(
                f"Frame {number} of the clip has {frame.shape[:2]} pixels (height, width), the frames before have "
                f"{sizes.original}; give frames of one size."
            )
        inputs, sizes = segmenter.prepare(frame, settings.size)
        kept.append(segmenter.engine.look(inputs))
    if sizes is None:
        raise DataError("The clip has no frames; give at least one.")
    classes, masks = segmenter.engine.link(kept)
    require_finite_numbers(name, segmenter.engine, classes, masks)
    objects = clip_objects(classes[0], masks[0], sizes, pack_mask, settings.score, count)
    return [found for found in objects if segmenter.categories[found.label].id in chosen]


def segment_clips(
    segmenter: Segmenter,
    frames: Iterable[Frame],
    on_error: Callable[[KNetError], None] | None = None,
    **options: Unpack[Options],
) -> Iterator[tuple[list[Frame], list[ClipObject]]]:
    """The frames of each video of a stream, see `open_stream`, and its objects, see `segment_clip`.

    A video's images are kept until it has ended, beside what `segment_clip` keeps. `on_error` is called with the error
    of a video that cannot be a clip, or of which the network says nothing; the next one follows. Without it the
    error is raised.
    """
    for group in by_video(frames):
        first = next(group)
        kept: list[Frame] = []
        try:
            objects = segment_clip(segmenter, _keeping(chain([first], group), kept), name=first.sequence, **options)
        except (DataError, PredictionError) as error:
            if on_error is None:
                raise
            unnamed = isinstance(error, DataError) and kept
            on_error(DataError(f"'{kept[-1].sequence}': {error}") if unnamed else error)
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
    """The objects of a clip as the results of its frames, of `size` (height, width), to be drawn and written as others.

    An object's track is its place in the list, from 1; it has the same score in all frames. Objects may overlap, so
    there are `masks`.
    """
    for place, name in enumerate(names):
        id_map = np.zeros(size, np.int32)
        rows, masks, track_of = list[tuple[int, int, float]](), {}, {}
        for track, found in enumerate(objects, 1):
            rle = found.masks[place]
            if rle is None:
                continue
            number = len(rows) + 1
            rows.append((number, found.label, found.score))
            masks[number], track_of[number] = rle, track
            id_map[unpack_mask(rle) & (id_map == 0)] = number  # the best comes first and keeps its pixels
        result = Segments(id_map, rows, masks=masks).segmentation(categories, name)
        segments = [replace(s, track=track_of[s.id]) for s in result.segments]
        yield replace(result, segments=segments, tracked=True)
