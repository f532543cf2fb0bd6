"""A model on a labelled data set: every image segmented, judged, and forgotten again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
from tqdm import tqdm

from knet.data.batches import Reader
from knet.data.categories import load_categories
from knet.data.coco_instances import CocoInstances
from knet.data.coco_panoptic import CocoPanoptic
from knet.errors import ConfigError
from knet.evaluation.instance import mask_ap
from knet.evaluation.panoptic import PanopticQuality
from knet.evaluation.semantic import ConfusionMatrix, ade20k_means, semantic_result
from knet.inference.segmenter import Segmenter, for_clips
from knet.inference.submissions import coco_instance_results
from knet.training.distributed import gather_objects, rank, world


def evaluate(segmenter: Segmenter, dataset: Reader) -> dict[str, Any]:
    """The figures of a model's task at the images' own size. Fractions 0..1.

    In several processes each takes its share of the images, and all get the figures of the whole.

    Returns:
        Panoptic models: {"panoptic": as `PanopticQuality.result`, "semantic": as `mean_iou`, over the classes that
        occur}, the latter alone on label PNGs. Semantic models: {"semantic": ...}. With ADE20K's classes it has the
        means by both conventions. Instance models: {"instance": as `mask_ap`}.

    Raises:
        ConfigError: the data set has another kind of truth than the model needs, or other classes.
        DataError: an image or its truth cannot be read.
    """
    if segmenter.task == "clip":
        raise for_clips(segmenter.name)
    if (segmenter.task == "instance") != isinstance(dataset, CocoInstances):
        needed = {
            "instance": "COCO instances (data.val.json alone)",
            "panoptic": "COCO panoptic (data.val.json and data.val.masks) or label PNGs (data.val.labels)",
            "semantic": "label PNGs (data.val.labels) or COCO panoptic (data.val.json and data.val.masks)",
        }
        raise ConfigError(
            f"The model '{segmenter.name}' is for {segmenter.task} segmentation; to judge it, give "
            f"{needed[segmenter.task]}."
        )
    if [category.id for category in dataset.categories] != [category.id for category in segmenter.categories]:
        raise ConfigError(
            f"The data set has other classes ({len(dataset.categories)}) than the model '{segmenter.name}' "
            f"({len(segmenter.categories)}); give the model's own class table with data.categories."
        )
    return _instances(segmenter, dataset) if isinstance(dataset, CocoInstances) else _pixels(segmenter, dataset)


def _pixels(segmenter: Segmenter, dataset: Reader) -> dict[str, Any]:
    """IoU of classes and, where the truth has segments, panoptic quality; memory does not grow with the images.

    The semantic prediction of a panoptic model is the class of each pixel's segment; a pixel that the model left void
    counts as missed.
    """
    categories = dataset.categories
    label_of = {category.id: label for label, category in enumerate(categories)}
    quality, matrix = PanopticQuality(categories), ConfusionMatrix(len(categories))
    panoptic = segmenter.task == "panoptic" and isinstance(dataset, CocoPanoptic)
    for index in _share(dataset):
        sample = dataset.read(index)
        found = segmenter.segment(sample.image, sample.name)
        if panoptic:
            quality.add(sample.id_map, sample.segments, found.id_map, found.segments, name=sample.name)
        matrix.add(
            _label_map(sample.id_map, {s.id: s.label for s in sample.segments}),
            _label_map(found.id_map, {s.id: label_of[s.category] for s in found.segments}),
            name=sample.name,
        )
    shares = gather_objects((quality.counts, matrix.counts))
    quality.counts, matrix.counts = (np.sum(parts, axis=0) for parts in zip(*shares, strict=True))
    semantic = semantic_result(matrix, {category.id: category.name for category in categories})
    if tuple(categories) == load_categories("ade20k"):
        semantic |= ade20k_means(matrix)
    return {"panoptic": quality.result(), "semantic": semantic} if panoptic else {"semantic": semantic}


def _instances(segmenter: Segmenter, dataset: CocoInstances) -> dict[str, Any]:
    """Mask AP against the JSON itself. Packed masks are kept until the end: some 20 KB an image."""
    rows: list[dict[str, Any]] = []
    for index in _share(dataset):
        found = segmenter.segment(dataset.read_image(index), dataset.name(index))
        rows += coco_instance_results(
            dataset.image_id(index),
            map(found.rle, found.segments),
            [segment.category for segment in found.segments],
            [segment.score for segment in found.segments],
        )
    everything = list(chain.from_iterable(gather_objects(rows)))
    return {"instance": mask_ap(dataset.json, everything, classes=segmenter.categories)}


def _share(dataset: Reader) -> Iterator[int]:
    """The images of this process, with a progress bar in the first."""
    share = range(rank(), len(dataset), world())
    return iter(tqdm(share, desc="evaluating", unit="image", disable=rank() > 0 or None, leave=False))


def _label_map(id_map: np.ndarray, labels: Mapping[int, int]) -> np.ndarray:
    """(H,W) ids -> (H,W) int64 labels, -1 where there is no segment."""
    ids, inverse = np.unique(id_map, return_inverse=True)
    return np.array([labels.get(i, -1) for i in ids.tolist()])[inverse].reshape(id_map.shape)
