"""Which objects of a frame are those of the frames before: from a network's outputs to identities.

A network with `embed` tells objects apart by embeddings of its linked kernels: Video K-Net by these alone, see
`knet.track.embeddings.match`, RT-Video-K-Net by overlap with these as descriptors. Those of others are their kernels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from knet.inference.engines.engine import Engine
from knet.inference.results.segmentation import Segmentation
from knet.models.zoo import Tracker
from knet.structures import Category, Output, Segment
from knet.track.embeddings import TrackMemory, match
from knet.track.overlap import BY_EMBEDDINGS, OverlapMemory, OverlapSettings, coarse_grid, match_by_overlap

ENLARGED = 4  # times, its mask logits before they become probabilities


@dataclass(frozen=True, slots=True)
class VideoState:
    """What is carried from one frame of a video to the next, `VideoState()` for the first: the last kernels (1,N,C) of
    a linked network, else None, and the tracker's memory.
    """

    kernels: Tensor | None = None
    tracks: TrackMemory | OverlapMemory | None = None


@dataclass(frozen=True, slots=True)
class View:
    """Heights and widths: the batch `padded`, the image `seen` in it without padding, the original image's `size`."""

    padded: tuple[int, int]
    seen: tuple[int, int]
    size: tuple[int, int]


def identify(
    engine: Engine,
    outputs: Sequence[Output],
    result: Segmentation,
    kernel_of: Mapping[int, int],
    view: View,
    state: VideoState,
    number: int,
    compatible: bool = False,
    linked: bool = True,
    tracker: Tracker = "embeddings",
) -> tuple[Segmentation, VideoState]:
    """The result with the track of every object that has one, and the state for the next frame.

    Args:
        outputs: the network's, of a batch of one; result: what was made of them.
        kernel_of: segment id -> its kernel, of things.
        number: of the frame in its video.
        compatible: with the faults of Video K-Net's code that its figures contain, see `Segmenter.track`.
        linked: whether embeddings count, where the network has them; else overlap does.
        tracker: which of the two counts most where both do, see `models.zoo.ZooEntry`.
    """
    labels = {category.id: label for label, category in enumerate(result.categories)}
    things = [segment for segment in result.segments if segment.thing]
    scores = np.array([segment.score for segment in things], np.float32)
    kinds = np.array([labels[segment.category] for segment in things], np.int64)
    rows = torch.tensor([kernel_of[segment.id] for segment in things], dtype=torch.int64)
    objects = np.zeros(max((segment.id for segment in result.segments), default=0) + 1, np.int32)
    objects[[segment.id for segment in things]] = np.arange(1, len(things) + 1)

    last, tracks = outputs[-1], state.tracks
    trained = engine.embeds and linked
    if trained:
        kernels = last.kernels if last.linked is None else last.linked
        descriptors = engine.embed(kernels[0, rows.to(kernels.device)]).float().cpu().numpy()
    else:
        descriptors = last.kernels[0, rows.to(last.kernels.device)].float().cpu().numpy()
    if trained and tracker == "embeddings":
        memory = tracks if isinstance(tracks, TrackMemory) else TrackMemory()
        boxes = _boxes(
            objects[result.id_map], len(things), outputs[0].semantic_logits, result.categories, view, compatible
        )
        matches = match(memory, number, boxes, scores, kinds, descriptors)
        ids, kept, after = matches
        if compatible:  # the original's list is shorter where duplicates were dropped, and is read by position
            ids = np.concatenate((ids[kept], np.zeros(len(ids) - len(kept), np.int64)))
        new = VideoState(last.kernels, after)
    else:
        known = tracks if isinstance(tracks, OverlapMemory) else OverlapMemory()
        grid = objects[coarse_grid(result.id_map)]
        chosen = BY_EMBEDDINGS if trained else OverlapSettings()
        if result.masks is None:  # a merge has left out what is too weak, and each object that it kept needs a number
            chosen = replace(chosen, start=0.0)
        ids, moved = match_by_overlap(known, number, grid, scores, kinds, descriptors, chosen)
        new = VideoState(last.kernels if trained else None, moved)
    track_of = {segment.id: int(track) for segment, track in zip(things, ids, strict=True) if track}
    segments = [replace(segment, track=track_of.get(segment.id)) for segment in result.segments]
    return replace(result, segments=segments), new


def _boxes(
    objects: np.ndarray,
    count: int,
    semantic_logits: Tensor | None,
    categories: Sequence[Category],
    view: View,
    compatible: bool,
) -> np.ndarray:
    """Boxes by which duplicates are known: the extents of what of each object looks like a thing to the semantic head,
    where a network has one. (H,W) 0 .. count -> (count,4) left, top, right, bottom, all inclusive
    """
    whole = ndimage.find_objects(objects, max_label=count)
    seen = whole
    if semantic_logits is not None:
        things = torch.tensor([category.thing for category in categories], device=semantic_logits.device)
        logits = semantic_logits.float()
        if not compatible:  # the original stretches the padded map over the image
            logits = F.interpolate(logits, view.padded, mode="bilinear", align_corners=False)
            logits = logits[:, :, : view.seen[0], : view.seen[1]]
        logits = F.interpolate(logits, view.size, mode="bilinear", align_corners=False)[0]
        thing = things[logits.argmax(0)].cpu().numpy()
        seen = ndimage.find_objects(np.where(thing, objects, 0), max_label=count)
    boxes = np.zeros((count, 4), np.float32)
    for box, place, other in zip(boxes, seen, whole, strict=True):
        if place is None and compatible:
            box[:] = -1, -1, 10, 10
        elif (place or other) is not None:
            y, x = place or other
            box[:] = x.start, y.start, x.stop - 1, y.stop - 1
    return boxes


def void_as_lowest(result: Segmentation) -> Segmentation:
    """The result with every void pixel in the class of the lowest id (KITTI-STEP: road), as Video K-Net writes it."""
    void = result.id_map == 0
    if not void.any():
        return result
    lowest = min(result.categories, key=lambda category: category.id)
    segment = next((s for s in result.segments if s.category == lowest.id and not s.thing), None)
    number = segment.id if segment else max((s.id for s in result.segments), default=0) + 1
    id_map = np.where(void, np.int32(number), result.id_map)
    ((y, x),) = ndimage.find_objects((id_map == number).astype(np.uint8))
    box, area = (x.start, y.start, x.stop, y.stop), int((id_map == number).sum())
    if segment is not None:
        segments = [replace(s, box=box, area=area) if s.id == number else s for s in result.segments]
    else:
        new = Segment(number, lowest.id, lowest.name, lowest.thing, 0.0, area, box)
        segments = [*result.segments, new]
    return replace(result, id_map=id_map, segments=segments)
