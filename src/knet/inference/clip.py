"""Whole clips in, objects with a mask in every frame out.

For models of the task "clip", which look at all frames at once. YouTube-VIS's videos have at most 36 frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Unpack

import numpy as np
import torch

from knet.data.files.masks import mask_area, mask_box, pack_mask, unpack_mask
from knet.errors import ConfigError, DataError
from knet.inference.engines.engine import Engine
from knet.inference.engines.network import TorchEngine
from knet.inference.results.segmentation import Segmentation
from knet.inference.segmenter import Segmenter
from knet.inference.settings import Options
from knet.inference.sources.streams import Frame
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
