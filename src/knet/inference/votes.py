"""How models vote on the class of each pixel of an image, and the segments that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from knet.calls import named_options
from knet.errors import ConfigError
from knet.inference.finite import require_finite
from knet.inference.results.segmentation import Segmentation
from knet.inference.segmenter import Segmenter
from knet.inference.segments import Prediction, panoptic_segments
from knet.merge.semantic import best_classes
from knet.merge.votes import KernelView, best_of_kernels, kernel_classes
from knet.structures import SegmentInfo


def check_voter(segmenter: Segmenter) -> None:
    """Raises `ConfigError` for a model that does not tell the class of every pixel, or that has merged them already."""
    if segmenter.task not in ("panoptic", "semantic"):
        raise ConfigError(
            f"'{segmenter.name}' is for {segmenter.task} segmentation and leaves most pixels without a class; take "
            "panoptic or semantic models."
        )
    if getattr(segmenter.engine, "merges", False):
        raise ConfigError(
            f"The exported '{segmenter.name}' merges inside and gives no likelihoods; export it without "
            "--merge-inside, or take its weights."
        )


@named_options
@torch.inference_mode()
def vote(
    segmenter: Segmenter, image: np.ndarray, scales: Sequence[float] = (1.0,), flip: bool = True, name: str = "image"
) -> tuple[Tensor, Tensor, Segmentation | None]:
    """The class of each pixel of an image by one model. (H,W,3) uint8 RGB -> labels, likelihoods, result

    Args:
        scales: how many times its size the model sees, one after the other; all are averaged.
        flip: whether it sees the mirror image as well.
        name: of the image, in errors.

    Returns:
        Labels (H,W) int64 in the model's own class table, -1 where it names none; their likelihoods (H,W) float32,
        0..1, the mean of all views; and of a panoptic model its result at the scale nearest to 1, for the objects.
    """
    settings = segmenter.settings.changed("semantic", {"scales": scales, "flip": flip})
    if segmenter.task == "semantic":
        return *best_classes(segmenter.views(image, settings, name)), None
    engine, views, result = segmenter.engine, list[KernelView](), None
    rules = replace(segmenter.rules, stretches_padding=False)  # published figures need it, objects must lie in place
    for scale in sorted(scales, key=lambda scale: abs(scale - 1)):
        for flipped in (False, True)[: 1 + flip]:
            inputs, sizes = segmenter.prepare(image[:, ::-1] if flipped else image, segmenter.settings.size, scale)
            outputs = engine(inputs, None, sizes.resized)
            require_finite(name, engine, outputs)
            if result is None:
                things = torch.tensor([category.thing for category in segmenter.categories])
                prediction = Prediction(outputs, sizes)
                segments = panoptic_segments(engine, prediction, things, rules, segmenter.settings)
                result = segments.segmentation(segmenter.categories, name)
            masks, logits = outputs[-1].mask_logits[0], outputs[-1].class_logits[0]  # type: ignore[index]
            classes = kernel_classes(logits, engine.stuff)
            views.append(KernelView(masks, classes, sizes, flipped, 4 if engine.embeds else 2))
    return *best_of_kernels(views), result


def cut_segments(
    classes: np.ndarray, result: Segmentation, label_of: Sequence[int], things: Sequence[bool], minimum_area: int
) -> tuple[np.ndarray, list[SegmentInfo]]:
    """Segments of a map of classes: objects are those of a result, cut to the pixels of their class.

    (H,W) int64 labels, -1 = void -> id map (H,W) int32, 0 = void, and its segments

    An object keeps its id, and becomes void if it loses more than half of its pixels. Stuff is one segment a class.
    Thing pixels without an object are void. So are pieces, of any segment, of fewer than `minimum_area` pixels.

    Args:
        result: of a panoptic model.
        label_of: the label in the map for each label of the result, -1 for none.
        things: whether each label of the map is a thing. What the result does not tell apart becomes a crowd region.
    """
    id_map, segments = np.zeros(classes.shape, np.int32), list[SegmentInfo]()
    label_of_id = {c.id: label for c, label in zip(result.categories, label_of, strict=True)}
    for found in result.segments:
        label, (left, top, right, bottom) = label_of_id[found.category], found.box
        if label < 0 or not things[label]:
            continue
        place = slice(top, bottom), slice(left, right)
        kept = (result.id_map[place] == found.id) & (classes[place] == label)
        if 2 * kept.sum() >= found.area and (kept := _without_specks(kept, minimum_area)).any():
            id_map[place][kept] = found.id
            segments.append(SegmentInfo(found.id, label, not found.thing))
    last = max((found.id for found in result.segments), default=0)
    for label in np.unique(classes[classes >= 0]).tolist():
        if not things[label] and (kept := _without_specks(classes == label, minimum_area)).any():
            last += 1
            id_map[kept] = last
            segments.append(SegmentInfo(last, label))
    return id_map, segments


def _without_specks(mask: np.ndarray, smallest: int) -> np.ndarray:
    """A mask without its 8-connected pieces of fewer than `smallest` pixels. (H,W) bool -> (H,W) bool"""
    if smallest <= 1:
        return mask
    pieces, _ = ndimage.label(mask, np.ones((3, 3)))
    large = np.bincount(pieces.ravel()) >= smallest
    large[0] = False
    return large[pieces]
