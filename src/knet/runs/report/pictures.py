"""The pictures of a report: small JPEGs, truth at the left and what was found at the right."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from knet.evaluation.details import SURE, Side
from knet.inference.results.draw import map_ids, overlay
from knet.inference.results.samples import GAP, seen_ids, side_by_side, truth_segments
from knet.inference.results.segmentation import Segmentation
from knet.structures import Category, Sample

LARGEST = 60_000  # bytes of a picture
_SIDE = 480  # pixels of the longer side of either half


def jpeg(picture: np.ndarray) -> bytes:
    """A picture (H,W,3) uint8 RGB as a small JPEG, of 60 kB at most."""
    image = Image.fromarray(picture)
    image.thumbnail((2 * _SIDE + GAP, 2 * _SIDE + GAP))
    for quality in (82, 60, 40, 20):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        if file.tell() <= LARGEST:
            return file.getvalue()
    return jpeg(np.asarray(image.resize((max(image.width // 2, 1), max(image.height // 2, 1)))))


def draw_pair(sample: Sample, found: Segmentation, categories: Sequence[Category]) -> bytes:
    """The truth and the result of an image, over it."""
    label_of = {category.id: label for label, category in enumerate(categories)}
    sure = [segment for segment in found.segments if found.masks is None or segment.score >= SURE]
    truth = {segment.id: segment.label for segment in sample.segments if not segment.crowd}
    result = {segment.id: label_of[segment.category] for segment in sure}
    return _pair((seen_ids(sample.id_map), truth), (found.id_map, result), categories, sample.image)


def paint_maps(truth: Side, found: Side, categories: Sequence[Category]) -> bytes:
    """A `Painter` of results on disk: class colours alone, as their images are not there."""
    return _pair(truth, found, categories)


def _pair(truth: Side, found: Side, categories: Sequence[Category], image: np.ndarray | None = None) -> bytes:
    return jpeg(side_by_side([_painted(*side, categories, image) for side in (truth, found)]))


def _painted(
    ids: np.ndarray, rows: Mapping[int, int], categories: Sequence[Category], image: np.ndarray | None
) -> np.ndarray:
    """A map in class colours at the size at which it is shown, so that names can be read. (H,W) -> (h,w,3) uint8"""
    listed = list(rows)
    numbers = map_ids(ids.astype(np.int64), listed, np.arange(1, len(listed) + 1, dtype=np.int32), 0)
    scale = min(_SIDE / max(ids.shape), 1.0)
    height, width = (max(round(side * scale), 1) for side in ids.shape)
    numbers = np.asarray(Image.fromarray(numbers).resize((width, height), Image.Resampling.NEAREST))
    ground = np.zeros((height, width, 3), np.uint8)
    if image is not None:
        ground = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    segments = truth_segments(numbers, [rows[id_] for id_ in listed], categories)
    return overlay(ground, numbers, segments, categories, alpha=1.0 if image is None else 0.5)
