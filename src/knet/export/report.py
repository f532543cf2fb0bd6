"""What an exported file changes: the same images through the network in torch and through the file."""

from __future__ import annotations

import importlib
import json
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from knet.evaluation.panoptic import PanopticQuality
from knet.files import atomic_path
from knet.inference.runtime import GraphEngine
from knet.inference.segmentation import Segmentation
from knet.inference.segmenter import Segmenter
from knet.inference.settings import Size, seen_size
from knet.inference.sources import Item


@dataclass
class Parity:
    """How an exported model differs from the network in torch; None where there is nothing to compare.

    `images`: a row of these for each · `mask_logits`, `class_logits`, `embeddings`: the largest difference ·
    `equal_pixels`: share 0..1 of the id map's
    pixels that are in the same segment · `pq`: of the exported model, with torch's result as the truth, 0..1.
    """

    images: list[dict[str, Any]] = field(default_factory=list)
    mask_logits: float | None = None
    class_logits: float | None = None
    embeddings: float | None = None
    equal_pixels: float | None = None
    pq: float | None = None


def compare(original: Segmenter, exported: Segmenter, images: Iterable[Item]) -> Parity:
    """Both on the same images, at the size that the exported model sees them by default, or that fits into it."""
    quality, parity = PanopticQuality(exported.categories), Parity()
    previous: Tensor | None = None
    pixels = equal = 0
    engine = exported.engine
    fixed = engine.card["graph"]["size"] if isinstance(engine, GraphEngine) else None
    for item in images:
        size = fitting_size(exported, fixed, item.image)
        differences, previous = _logits(original, exported, item.image, size, previous)
        expected, found = (segmenter.segment(item.image, item.name, size=size) for segmenter in (original, exported))
        same = same_segments(expected, found)
        pixels, equal = pixels + same.size, equal + int(same.sum())
        quality.add(expected.id_map, _rows(expected), found.id_map, _rows(found), name=item.name)
        height, width = same.shape
        parity.images.append(
            {"image": item.name, "size": [height, width], **differences, "equal_pixels": float(same.mean())}
        )
    for name in ("mask_logits", "class_logits", "embeddings"):
        values = [row[name] for row in parity.images if row[name] is not None]
        setattr(parity, name, max(values, default=None))
    parity.equal_pixels = equal / pixels if pixels else None
    parity.pq = quality.result()["all"]["pq"]
    return parity


def fitting_size(segmenter: Segmenter, fixed: Sequence[int] | None, image: np.ndarray) -> Size:
    """The size at which the network sees an image by default; a smaller one where a `fixed` (H, W) asks for it."""
    shape = (image.shape[0], image.shape[1])
    seen = seen_size(shape, segmenter.size, segmenter.preprocessing)
    if fixed is None or (seen[0] <= fixed[0] and seen[1] <= fixed[1]):
        return segmenter.size
    scale = min(fixed[0] / shape[0], fixed[1] / shape[1])
    short, long = sorted(max(int(side * scale), 1) for side in shape)
    return short, long


def same_segments(expected: Segmentation, found: Segmentation) -> np.ndarray:
    """Where both say the same: void, or a segment of the same class and the same number among those. (H,W) bool

    Numbers are counted within a class, so that one segment more or less does not shift all others.
    """
    return _numbered(expected) == _numbered(found)


def _numbered(result: Segmentation) -> np.ndarray:
    """(H,W) int64: 0 = void, else the class and the place among the segments of it."""
    value = np.zeros(max((s.id for s in result.segments), default=0) + 1, np.int64)
    counts: dict[int, int] = {}
    for segment in result.segments:
        counts[segment.category] = counts.get(segment.category, 0) + 1
        value[segment.id] = (segment.category + 1) * 2**20 + counts[segment.category]
    return value[result.id_map]


def _rows(result: Segmentation) -> list[dict[str, int]]:
    """The segments that have a pixel in the id map: where objects overlap, some are hidden."""
    seen = set(np.unique(result.id_map).tolist())
    return [{"id": s.id, "category_id": s.category} for s in result.segments if s.id in seen]


def _logits(
    original: Segmenter, exported: Segmenter, image: np.ndarray, size: Size, previous: Tensor | None
) -> tuple[dict[str, float | None], Tensor | None]:
    """Differences on the same input, after the same frame before; and torch's kernels for the next frame."""
    engine = exported.engine
    differences: dict[str, float | None] = dict.fromkeys(("mask_logits", "class_logits", "embeddings"))
    if not isinstance(engine, GraphEngine) or engine.merges:
        return differences, None
    inputs, seen = exported.prepare(image, size)
    if exported.task == "semantic":
        inputs = inputs[:, :, : seen[0], : seen[1]]
    inputs = engine.fitted(inputs)
    expected, found = original.engine(inputs.to(original.device), previous)[-1], engine(inputs, previous)[-1]
    pairs = {"mask_logits": (expected.mask_logits, found.mask_logits)}
    if expected.class_logits is not None and found.class_logits is not None:
        pairs["class_logits"] = (expected.class_logits, found.class_logits)
    if expected.linked is not None and found.linked is not None:
        pairs["embeddings"] = (original.engine.embed(expected.linked), found.linked)
    for name, (a, b) in pairs.items():
        differences[name] = float((a.float().cpu() - b).abs().max())
    return differences, expected.kernels if engine.embeds else None


def describe_run(exported: Segmenter) -> dict[str, Any]:
    """What ran the file, for the report: backend, processor, threads, versions."""
    return {
        "backend": exported.engine.name,
        "version": importlib.import_module(exported.engine.name).__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Writes the report as JSON. Raises: OutputError if it cannot be written."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")


def table(parity: Parity) -> str:
    """The report for people: a line an image, then the whole."""
    whole = {"image": "all", "size": None, **{key: getattr(parity, key) for key in _COLUMNS}}
    lines = [f"{'image':<20} {'size':>9} {'masks':>9} {'classes':>9} {'equal pixels':>13}"]
    for row in [*parity.images, whole]:
        size = "" if row["size"] is None else f"{row['size'][0]}x{row['size'][1]}"
        masks, classes = ("-" if row[key] is None else f"{row[key]:.1e}" for key in ("mask_logits", "class_logits"))
        equal = "-" if row["equal_pixels"] is None else f"{100 * row['equal_pixels']:.4f} %"
        lines.append(f"{row['image']:<20.20} {size:>9} {masks:>9} {classes:>9} {equal:>13}")
    pq = "-" if parity.pq is None else f"{100 * parity.pq:.2f}"
    lines.append(f"PQ of the exported model, with torch's result as the truth: {pq}")
    return "\n".join(lines)


_COLUMNS = ("mask_logits", "class_logits", "embeddings", "equal_pixels")
