"""Pictures of ground truth: training and validation samples, drawn as results are."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from knet.data.samples.transforms import make_target
from knet.errors import DataError
from knet.files import safe_name
from knet.inference.results.draw import overlay
from knet.inference.results.files import make_folder, write_image
from knet.inference.results.page import Row, write_grid
from knet.structures import Category, Sample, Segment, Target

GAP = 6  # pixels between pictures in a row


def seen_ids(id_map: np.ndarray) -> np.ndarray:
    """The visible ids of segments that may overlap: those of the first layer that has one. (H,W) or (L,H,W) -> (H,W)"""
    id_map = np.maximum(id_map, 0)
    if id_map.ndim == 2:
        return id_map
    return np.take_along_axis(id_map, (id_map > 0).argmax(0)[None], 0)[0]


def truth_segments(id_map: np.ndarray, labels: Sequence[int], categories: Sequence[Category]) -> list[Segment]:
    """The segments of a target as a result lists them, with score 1; those without pixels are left out.

    `id_map` (H,W) integers: 0 = void, t + 1 = the t-th segment, whose class is `categories[labels[t]]`.
    """
    areas = np.bincount(id_map.ravel(), minlength=len(labels) + 1)
    segments = []
    for number, place in enumerate(ndimage.find_objects(id_map, max_label=len(labels)), start=1):
        if place is not None:
            rows, columns = place
            row = categories[labels[number - 1]]
            box = (columns.start, rows.start, columns.stop, rows.stop)
            segments.append(Segment(number, row.id, row.name, row.thing, 1.0, int(areas[number]), box))
    return segments


def draw_sample(image: np.ndarray, id_map: Any, labels: Any, categories: Sequence[Category]) -> np.ndarray:
    """Ground truth drawn over its image: class colours, borders of things, class names. -> (H,W,3) uint8 RGB

    Id map (H,W) or (L,H,W): 0 = void, t + 1 = the t-th segment; labels (T,): its class, an index of `categories`. Both
    are arrays of integers, or tensors on the CPU.
    """
    ids = seen_ids(np.asarray(id_map))
    return overlay(image, ids, truth_segments(ids, np.asarray(labels).tolist(), categories), categories)


def draw_truth(sample: Sample, categories: Sequence[Category]) -> np.ndarray:
    """`draw_sample` for a sample as a data set reads it, with crowd regions as void. -> (H,W,3) uint8 RGB"""
    target = make_target(torch.from_numpy(sample.id_map), sample)
    return draw_sample(sample.image, target.id_map, target.labels, categories)


def side_by_side(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures in a row with white gaps, resized to the height of the first. (h,w,3) uint8 each -> (H,W,3) uint8"""
    if not pictures:
        raise DataError("There is no picture to put side by side; give one at least.")
    height = pictures[0].shape[0]
    gap = np.full((height, GAP, 3), 255, np.uint8)
    parts: list[np.ndarray] = []
    for picture in pictures:
        if picture.shape[0] != height:
            width = max(round(picture.shape[1] * height / picture.shape[0]), 1)
            picture = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))
        parts += [gap, picture]
    return np.concatenate(parts[1:], axis=1)


def write_samples(
    folder: str | Path,
    title: str,
    note: str,
    samples: Iterable[tuple[str, np.ndarray, Target]],
    categories: Sequence[Category],
) -> list[dict[str, Any]]:
    """Writes pictures of samples, without and with their segments, and a page `index.html` that shows them all.

    Of each (name, (H,W,3) uint8 RGB image, target on the CPU) it returns `name`, `file` (in the folder), `height`,
    `width`, `void` (share of the pixels, 0..1) and `classes` (name -> number of segments, by area).
    """
    folder = make_folder(Path(folder))
    listed: list[dict[str, Any]] = []
    rows: list[Row] = []
    for number, (name, image, target) in enumerate(samples):
        ids = seen_ids(target.id_map.numpy())
        segments = truth_segments(ids, target.labels.tolist(), categories)
        # Numbers keep the names apart: an image comes once in every epoch.
        path = folder / f"{number:03d}_{safe_name(name)}.jpg"
        write_image(path, side_by_side([image, overlay(image, ids, segments, categories)]))
        height, width = ids.shape
        about = {"name": name, "file": path.name, "height": height, "width": width, "void": float(np.mean(ids == 0))}
        counts = Counter(segment.name for segment in sorted(segments, key=lambda s: -s.area))
        listed.append({**about, "classes": dict(counts)})
        rows.append(Row(name, overlay=path, segments=segments, size=(height, width)))
    write_grid(folder, title, note, rows, categories)
    return listed
