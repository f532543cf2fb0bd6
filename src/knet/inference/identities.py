"""Which objects of a frame are those of the frames before: from a network's outputs to identities.

A network with `embed` tells objects apart by embeddings of its linked kernels: Video K-Net by these alone,
RT-Video-K-Net by overlap with these as descriptors. Any other is tracked by overlap, with its kernels as descriptors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from knet.errors import ConfigError, did_you_mean, require, shown
from knet.inference.engines.engine import Engine
from knet.inference.finite import require_finite_numbers
from knet.inference.results.segmentation import Segmentation
from knet.inference.segments import Prediction
from knet.models.zoo import Tracker
from knet.preprocess import unpadded
from knet.structures import Category, Segment
from knet.track.embeddings import EmbeddingMemory, match
from knet.track.overlap import BY_EMBEDDINGS, BY_KERNELS, OverlapMemory, coarse_grid, match_by_overlap
from knet.track.settings import EmbeddingSettings, OverlapSettings, TrackerSettings


@dataclass(frozen=True, slots=True)
class VideoState:
    """What is carried from one frame of a video to the next; `VideoState()` for the first.

    Attributes:
        kernels: (1,N,C), the last ones of a linked network, else None.
        tracks: The tracker's memory.
    """

    kernels: Tensor | None = None
    tracks: EmbeddingMemory | OverlapMemory | None = None


def choose_tracker(
    tracker: Tracker | TrackerSettings | None, own: Tracker, embeds: bool, model: str
) -> TrackerSettings:
    """The settings of the tracker asked for, or else of the model's own. ConfigError if the model cannot have it."""
    chosen: object = tracker
    if tracker is None:
        chosen = own if embeds else "overlap"
    if isinstance(chosen, str) and chosen in ("embeddings", "overlap"):
        chosen = EmbeddingSettings() if chosen == "embeddings" else OverlapSettings()
    if not isinstance(chosen, TrackerSettings):
        known = "it is 'embeddings' or 'overlap', or settings of knet.track."
        hint = did_you_mean(tracker, get_args(Tracker), known)
        raise ConfigError(f"There is no tracker {shown(tracker)}; {hint}")
    if isinstance(chosen, EmbeddingSettings) and not embeds:
        raise ConfigError(
            f"The tracker 'embeddings' is for models that were trained on video, and '{model}' has no embeddings here; "
            "take 'overlap' (--tracker overlap), or leave the tracker out."
        )
    return chosen


def tracked_ids(classes: Sequence[str] | str | None, categories: Sequence[Category]) -> frozenset[int]:
    """The category ids of the things to follow; None means all. ConfigError for a name that is not a thing's."""
    things = [category for category in categories if category.thing]
    if classes is None:
        return frozenset(category.id for category in things)
    known, names = [category.name for category in things], [classes] if isinstance(classes, str) else classes
    require(list | tuple | set | frozenset, "names of classes", classes=names)
    for name in names:
        if name in known:
            continue
        its_things = f"its things are: {', '.join(known)}."
        if any(category.name == name for category in categories):
            raise ConfigError(
                f"The class '{name}' is stuff, so the model finds no objects of it to follow; {its_things}"
            )
        hint = did_you_mean(name, known, its_things)
        raise ConfigError(f"The model has no class '{name}' to follow (--track-classes); {hint}")
    return frozenset(category.id for category in things if category.name in names)


@dataclass(frozen=True, slots=True)
class Tracking:
    """How the objects of a video are followed; see `Segmenter.segment_next`. `followed` holds category ids."""

    tracker: TrackerSettings
    followed: frozenset[int]
    compatible: bool = False
    linked: bool = True


def identify(
    engine: Engine,
    prediction: Prediction,
    result: Segmentation,
    kernel_of: Mapping[int, int],
    state: VideoState,
    number: int,
    tracking: Tracking,
) -> tuple[Segmentation, VideoState]:
    """Gives followed objects their tracks, and returns the state for the next frame.

    Args:
        engine: what embeds kernels.
        prediction: what the network said of the frame.
        result: what was made of it.
        kernel_of: segment id -> the kernel it comes from, for things.
        state: what the frame before gave.
        number: of the frame in its video; missing frames count.
        tracking: the tracker and what it follows.
    """
    labels = {category.id: label for label, category in enumerate(result.categories)}
    things = [segment for segment in result.segments if segment.thing and segment.category in tracking.followed]
    scores = np.array([segment.score for segment in things], np.float32)
    kinds = np.array([labels[segment.category] for segment in things], np.int64)
    rows = torch.tensor([kernel_of[segment.id] for segment in things], dtype=torch.int64)
    objects = np.zeros(max((segment.id for segment in result.segments), default=0) + 1, np.int32)
    objects[[segment.id for segment in things]] = np.arange(1, len(things) + 1)

    last, tracks, tracker = prediction.outputs[-1], state.tracks, tracking.tracker
    trained = engine.embeds and tracking.linked
    kernels = last.linked if trained and last.linked is not None else last.kernels
    kernels = kernels[0, rows.to(kernels.device)]
    embeddings = engine.embed(kernels) if trained else kernels
    require_finite_numbers(result.name, engine, embeddings)
    descriptors = embeddings.float().cpu().numpy()
    if isinstance(tracker, EmbeddingSettings):
        memory = tracks if isinstance(tracks, EmbeddingMemory) else EmbeddingMemory()
        boxes = _boxes(objects[result.id_map], len(things), prediction, result.categories, tracking.compatible)
        ids, kept, after = match(memory, number, boxes, scores, kinds, descriptors, tracker)
        if tracking.compatible:  # the original's list is shorter where duplicates were dropped, and is read by position
            ids = np.concatenate((ids[kept], np.zeros(len(ids) - len(kept), np.int64)))
        new = VideoState(last.kernels, after)
    else:
        known = tracks if isinstance(tracks, OverlapMemory) else OverlapMemory()
        grid = objects[coarse_grid(result.id_map)]
        if tracker.start is None and result.masks is None:
            # The merge has left out what is uncertain, and each object that it kept needs a number.
            tracker = replace(tracker, start=0.0)
        appearance = BY_EMBEDDINGS if trained else BY_KERNELS
        ids, moved = match_by_overlap(known, number, grid, scores, kinds, descriptors, tracker, appearance)
        new = VideoState(last.kernels if trained else None, moved)
    track_of = {segment.id: int(track) for segment, track in zip(things, ids, strict=True) if track}
    segments = [replace(segment, track=track_of.get(segment.id)) for segment in result.segments]
    return replace(result, segments=segments, tracked=True), new


def _boxes(
    objects: np.ndarray, count: int, prediction: Prediction, categories: Sequence[Category], compatible: bool
) -> np.ndarray:
    """Boxes by which duplicates are found: around what of each object the semantic head, if any, takes for a thing."""
    whole = ndimage.find_objects(objects, max_label=count)
    visible, semantic_logits, sizes = whole, prediction.outputs[0].semantic_logits, prediction.sizes
    if semantic_logits is not None:
        things = torch.tensor([category.thing for category in categories], device=semantic_logits.device)
        logits = semantic_logits.float()
        if not compatible:  # the original stretches the padded map over the image
            logits = unpadded(F.interpolate(logits, sizes.padded, mode="bilinear", align_corners=False), sizes)
        logits = F.interpolate(logits, sizes.original, mode="bilinear", align_corners=False)[0]
        thing = things[logits.argmax(0)].cpu().numpy()
        visible = ndimage.find_objects(np.where(thing, objects, 0), max_label=count)
    boxes = np.zeros((count, 4), np.float32)
    for box, place, other in zip(boxes, visible, whole, strict=True):
        if place is None and compatible:
            box[:] = -1, -1, 10, 10
        elif (place or other) is not None:
            y, x = place or other
            box[:] = x.start, y.start, x.stop - 1, y.stop - 1
    return boxes


def void_as_lowest(result: Segmentation) -> Segmentation:
    """Gives void pixels to the class with the lowest id (KITTI-STEP: road), as Video K-Net writes its results."""
    lowest = min(result.categories, key=lambda category: category.id)
    segment = next((s for s in result.segments if s.category == lowest.id and not s.thing), None)
    number = max((s.id for s in result.segments), default=0) + 1
    return void_as(result, segment or Segment(number, lowest.id, lowest.name, lowest.thing, 0.0, 0, (0, 0, 0, 0)))


def void_as(result: Segmentation, segment: Segment) -> Segmentation:
    """Gives void pixels to a segment of the result, or to a new one."""
    void = result.id_map == 0
    if not void.any():
        return result
    id_map = np.where(void, np.int32(segment.id), result.id_map)
    ((y, x),) = ndimage.find_objects((id_map == segment.id).astype(np.uint8))
    larger = replace(segment, box=(x.start, y.start, x.stop, y.stop), area=int((id_map == segment.id).sum()))
    segments = [larger if s.id == segment.id else s for s in result.segments]
    return replace(result, id_map=id_map, segments=segments if larger in segments else [*segments, larger])
