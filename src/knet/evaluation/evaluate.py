"""A model on a labelled data set: every image segmented, judged, and forgotten again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from knet.data.coco_panoptic import CocoPanoptic
from knet.evaluation.panoptic import PanopticQuality
from knet.evaluation.semantic import ConfusionMatrix, semantic_result
from knet.inference.segmenter import Segmenter
from knet.training.distributed import gather_objects, rank, world


def evaluate(segmenter: Segmenter, dataset: CocoPanoptic) -> dict[str, Any]:
    """Panoptic quality and semantic IoU of a model, at the images' own size; memory does not grow with their number.

    The semantic prediction is the class of each pixel's segment; a pixel that the model left void counts as missed.
    In several processes each takes its share of the images, and all get the figures of the whole.

    Returns:
        {"panoptic": as `PanopticQuality.result`, "semantic": as `mean_iou`, over the classes that occur}. 0..1.

    Raises:
        DataError: an image or its truth cannot be read.
    """
    categories = dataset.categories
    label_of = {category.id: label for label, category in enumerate(categories)}
    quality, matrix = PanopticQuality(categories), ConfusionMatrix(len(categories))
    share = range(rank(), len(dataset), world())
    for index in tqdm(share, desc="evaluating", unit="image", disable=rank() > 0 or None, leave=False):
        sample = dataset.read(index)
        found = segmenter.segment(sample.image, sample.name)
        quality.add(sample.id_map, sample.segments, found.id_map, found.segments, name=sample.name)
        matrix.add(
            _label_map(sample.id_map, {s.id: s.label for s in sample.segments}),
            _label_map(found.id_map, {s.id: label_of[s.category] for s in found.segments}),
            name=sample.name,
        )
    shares = gather_objects((quality.counts, matrix.counts))
    quality.counts, matrix.counts = (np.sum(parts, axis=0) for parts in zip(*shares, strict=True))
    names = {category.id: category.name for category in categories}
    return {"panoptic": quality.result(), "semantic": semantic_result(matrix, names)}


def _label_map(id_map: np.ndarray, labels: Mapping[int, int]) -> np.ndarray:
    """(H,W) ids -> (H,W) int64 labels, -1 where there is no segment."""
    ids, inverse = np.unique(id_map, return_inverse=True)
    return np.array([labels.get(i, -1) for i in ids.tolist()])[inverse].reshape(id_map.shape)
