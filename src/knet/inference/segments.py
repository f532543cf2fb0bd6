"""From the masks and classes of a network to the segments of an image, by task: panoptic, instance or semantic."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from knet.data.files.masks import Rle, mask_area, mask_box, pack_mask
from knet.inference.engines.engine import Engine
from knet.inference.results.pixels import extents
from knet.inference.results.segmentation import Segmentation
from knet.inference.settings import Settings
from knet.merge.panoptic import best_class, merge_panoptic, number_segments
from knet.merge.regions import as_regions
from knet.merge.semantic import ViewLogits, best_classes, class_segments
from knet.merge.sorted import enlarge, instances, merge_sorted, panoptic_classes, to_image
from knet.models.zoo import Merge
from knet.preprocess import ImageSizes
from knet.structures import Category, Output, Segment


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a network says of an image: its `outputs`, the last of which is the result, and the sizes of the image."""

    outputs: Sequence[Output]
    sizes: ImageSizes


@dataclass(frozen=True, slots=True)
class Segments:
    """The segments of an image before they get names, areas and boxes.

    Attributes:
        id_map: (H,W) int32 at the original size, 0 for void.
        rows: id, label and score of each segment, numbered from 1.
        kernel_of: the kernel that each comes from, by id, if it comes from one.
        masks: as of `Segmentation`.
    """

    id_map: np.ndarray
    rows: list[tuple[int, int, float]]
    kernel_of: dict[int, int] = field(default_factory=dict)
    masks: dict[int, Rle] | None = None

    def segmentation(self, categories: Sequence[Category], name: str) -> Segmentation:
        """The result under a name, without segments that were lost when the map was shrunk to the image's size.

        With `masks` all stay.
        """
        if self.masks is None:
            found = zip(*(values.tolist() for values in extents(self.id_map, len(self.rows))), strict=True)
            extent_of = dict(enumerate(found))
        else:
            extent_of = {}
            for number, rle in self.masks.items():
                left, top, width, height = map(int, mask_box(rle))
                extent_of[number] = mask_area(rle), (left, top, left + width, top + height)
        segments = []
        for number, label, score in self.rows:
            (area, box), row = extent_of[number], categories[label]
            if area or self.masks is not None:
                segments.append(Segment(number, row.id, row.name, row.thing, score, area, tuple(box)))
        return Segmentation(self.id_map, segments, tuple(categories), name, masks=self.masks)


@dataclass(frozen=True, slots=True)
class PanopticRules:
    """How the masks of a panoptic model become segments. Fields are those of `models.zoo.ZooEntry`."""

    merge: Merge
    thing_candidates: int | None
    regions: int
    stretches_padding: bool


def panoptic_segments(
    engine: Engine, prediction: Prediction, things: Tensor, rules: PanopticRules, settings: Settings
) -> Segments:
    """Things and stuff: every pixel is in one segment, or void. `things` (K,) bool tells which classes are things."""
    output, sizes, thresholds = prediction.outputs[-1], prediction.sizes, (settings.score, settings.overlap)
    merged = engine.merged(output, *thresholds)
    if merged is None:
        mask_logits, class_logits = output.mask_logits[0], output.class_logits[0]  # type: ignore[index]
        if engine.stuff:
            scores, labels = panoptic_classes(class_logits, engine.stuff, rules.thing_candidates)
        else:
            scores, labels = best_class(class_logits)
        if rules.merge == "sorted":
            probabilities = enlarge(mask_logits, 4 if engine.embeds else 2)  # as the official code of each
            to_pixels = to_image(probabilities, sizes)
            merged = merge_sorted(probabilities, scores, labels, things, *thresholds, to_pixels)
        else:
            padded = None if rules.stretches_padding else sizes.padded
            merged = merge_panoptic(mask_logits, scores, labels, sizes.resized, *thresholds, padded)
    if rules.regions:
        merged = as_regions(merged, things, rules.regions)
    id_map, rows, kernel_of = number_segments(merged, things)
    # Algorithm 1 merges at the size that the network saw; the nearest pixel takes it to the image's own.
    return Segments(nearest(id_map, sizes.original).cpu().numpy(), rows, kernel_of)


def instance_segments(prediction: Prediction, score: float, empty: bool = False) -> Segments:
    """Objects with a mask each, which may overlap, of a score or more; those without a pixel only where `empty`."""
    last = prediction.outputs[-1]
    mask_logits, class_logits = last.mask_logits[0], last.class_logits[0]  # type: ignore[index]
    found = instances(mask_logits, class_logits, prediction.sizes, pack_mask, score)
    rows, masks, kernel_of = list[tuple[int, int, float]](), {}, {}
    number_of = np.zeros(len(found.masks) + 1, np.int32)
    objects = zip(found.masks, found.labels.tolist(), found.scores.tolist(), found.kernels.tolist(), strict=True)
    for place, (rle, label, object_score, kernel) in enumerate(objects, start=1):
        if rle is None and not empty:
            continue
        number_of[place] = number = len(rows) + 1
        masks[number] = rle or pack_mask(np.zeros(prediction.sizes.original, bool))
        kernel_of[number] = kernel
        rows.append((number, label, object_score))
    return Segments(number_of[found.best], rows, kernel_of, masks)


def semantic_segments(views: Sequence[ViewLogits], score: float) -> Segments:
    """A segment a class, from all views of an image; classes with a score below become void."""
    id_map, rows = class_segments(*best_classes(views), score)
    return Segments(id_map.cpu().numpy(), rows)


def nearest(id_map: Tensor, size: tuple[int, int]) -> Tensor:
    """A map of whole numbers resized without mixing them. (H,W) integer -> (h,w), the same dtype"""
    if tuple(id_map.shape) == size:
        return id_map
    # float64 holds every int32 id exactly.
    return F.interpolate(id_map[None, None].double(), size, mode="nearest")[0, 0].to(id_map.dtype)
