"""Evaluates a model on labelled images: every image is segmented, counted and forgotten again.

Clips are evaluated by `evaluate_clips`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
from tqdm import tqdm

from knet.data.categories import load_categories
from knet.data.readers.clips import ClipReader
from knet.data.readers.coco_instances import CocoInstances
from knet.data.readers.label_folder import LabelFolder
from knet.data.readers.reader import Reader
from knet.data.readers.youtube_vis import YoutubeVis
from knet.distributed import gather_objects, rank, world
from knet.errors import ConfigError
from knet.evaluation.instance import mask_ap
from knet.evaluation.panoptic import PanopticQuality
from knet.evaluation.semantic import ConfusionMatrix, ade20k_means, semantic_result
from knet.inference.results.submissions import coco_instance_results
from knet.inference.segmenter import Segmenter
from knet.runs.evaluate_clips import evaluate_clips, evaluate_tracks

_ONLY = {CocoInstances: "instance", YoutubeVis: "clip"}  # truth for models of one task alone


def evaluate(segmenter: Segmenter, dataset: Reader, *, linked: bool = True, compatible: bool = False) -> dict[str, Any]:
    """The figures of a model for its task, at the images' own size.

    Of several processes each takes its share of the images or clips, and all get the figures of the whole.

    Args:
        segmenter, dataset: the model, and images or clips with their truth.
        linked: for panoptic models on clips; False takes a video model's link and embeddings away.
        compatible: for panoptic models on clips; True brings back the faults of Video K-Net's code.

    Returns:
        Fractions 0..1, by the model's task:

        - Panoptic: {"panoptic": as `PanopticQuality.result`, "semantic": as `mean_iou`, over the classes that occur};
          only the latter on label PNGs. On clips also {"stq": as `stq`, "vpq": as `vpq`}, and for KITTI-STEP
          "stq_video_knet", by the script of Video K-Net; "panoptic" and "semantic" are then those of single frames. A
          model for images tracks by overlap.
        - Semantic: {"semantic": as `mean_iou`}; with ADE20K's classes it has the means by both conventions.
        - Instances: {"instance": as `mask_ap`}, and of models for clips {"instance": as `ytvis_ap`}.

    Raises:
        ConfigError: the model needs another kind of truth, or has other classes, or an option is not for this data set.
        DataError: an image or its truth cannot be read, or the class table does not fit STQ.
    """
    _check_truth(segmenter, dataset)
    if [category.id for category in dataset.categories] != [category.id for category in segmenter.categories]:
        raise ConfigError(
            f"The data set has other classes ({len(dataset.categories)}) than the model '{segmenter.name}' "
            f"({len(segmenter.categories)}); give the model's own class table with data.categories."
        )
    if segmenter.task == "panoptic" and isinstance(dataset, ClipReader):
        return evaluate_tracks(segmenter, dataset, linked, compatible)
    if not linked or compatible:
        option = "compatible" if compatible else "unlinked"
        raise ConfigError(f"The option {option} is for panoptic models on clips, which are tracked; leave it out.")
    if isinstance(dataset, YoutubeVis):
        return evaluate_clips(segmenter, dataset)
    return _instances(segmenter, dataset) if isinstance(dataset, CocoInstances) else _pixels(segmenter, dataset)


def _check_truth(segmenter: Segmenter, dataset: Reader) -> None:
    """Refuses a data set with another kind of truth than the model needs."""
    kind = next((task for form, task in _ONLY.items() if isinstance(dataset, form)), None)
    if kind == segmenter.task or (kind is None and segmenter.task in ("panoptic", "semantic")):
        return
    panoptic = "COCO panoptic (data.val.json and data.val.masks)"
    clips = "clips (data.val.format, such as step, or data.val.labels and data.val.instances)"
    needed = {
        "instance": "COCO instances (data.val.json alone)",
        "panoptic": f"{panoptic}, label PNGs (data.val.labels) or {clips}",
        "semantic": f"label PNGs (data.val.labels), {panoptic} or {clips}",
        "clip": "clips with the objects of YouTube-VIS (data.val.format=youtube-vis and data.val.split)",
    }
    if segmenter.task == "clip":
        what = f"The model '{segmenter.name}' looks at all frames of a clip at once, not at single images"
    else:
        what = f"The model '{segmenter.name}' is for {segmenter.task} segmentation"
    raise ConfigError(f"{what}; to evaluate it, give {needed[segmenter.task]}.")


def _pixels(segmenter: Segmenter, dataset: Reader) -> dict[str, Any]:
    """IoU of classes and, where the truth has segments, panoptic quality, in memory that does not grow.

    The semantic prediction of a panoptic model is the class of each pixel's segment; a pixel that it left void is
    missed.
    """
    categories = dataset.categories
    label_of = {category.id: label for label, category in enumerate(categories)}
    quality, matrix = PanopticQuality(categories), ConfusionMatrix(len(categories))
    panoptic = segmenter.task == "panoptic" and not isinstance(dataset, LabelFolder)
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
    """Mask AP against the JSON file itself. Packed masks are kept until the end: some 20 KB an image."""
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
    """(H,W) ids -> (H,W) int64 labels, -1 where there is no segment"""
    ids, inverse = np.unique(id_map, return_inverse=True)
    return np.array([labels.get(i, -1) for i in ids.tolist()])[inverse].reshape(id_map.shape)
