"""Whole clips in, objects with a mask in every frame out; and the file that YouTube-VIS's server takes.

For models of the task "clip", which look at all frames at once. YouTube-VIS's videos have at most 36 frames.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch

from knet.data.coco_masks import pack_mask
from knet.errors import ConfigError, DataError
from knet.inference.segmentation import rle_text
from knet.inference.segmenter import Segmenter
from knet.inference.settings import Options
from knet.inference.writers import write_bytes
from knet.merge.clip import ClipObject, clip_objects
from knet.models.clip import ClipKNet, clip_result
from knet.structures import Category


@torch.inference_mode()
def segment_clip(
    segmenter: Segmenter, frames: Iterable[np.ndarray], count: int = 10, **options: Unpack[Options]
) -> list[ClipObject]:
    """The objects of a clip, best first, each with its masks at the frames' own size.

    The frames go through the backbone one after the other and may come from a generator. Of each the feature map, the
    kernels and the masks at 1/8 are kept until the last has come, so memory grows with the length of the clip: by about
    20 MB a frame at the published 360 x 640 pixels, on top of what a single image needs. Cut longer videos into clips;
    objects of one clip then have nothing to do with those of another.

    Args:
        segmenter: of a model for clips, such as video-knet-r50-youtube-vis.
        frames: (H,W,3) uint8 RGB each, all of one size.
        count: the most objects.
        options: size and score, see `Options`.

    Raises:
        ConfigError: a model that is not for clips, or an option out of range.
        DataError: no frame, or frames of several sizes.
    """
    net = segmenter.net
    if not isinstance(net, ClipKNet):
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
        with segmenter.autocast():
            outputs, features = net.look(inputs)
        kept.append([features, outputs[-1].kernels, outputs[-1].mask_logits])
    if not kept:
        raise DataError("The clip has no frames; give at least one.")
    tubes = [torch.stack(list(frames), dim=2) for frames in zip(*kept, strict=True)]
    kept.clear()
    with segmenter.autocast():
        classes, masks = clip_result(net.link(*tubes))
    return clip_objects(classes[0], masks[0], padded, seen, size, pack_mask, settings.score, count)


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
