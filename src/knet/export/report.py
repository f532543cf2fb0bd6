"""Compares an exported file with the network in torch, on the same images."""

import importlib
import json
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from knet.evaluation.panoptic import PanopticQuality
from knet.files import atomic_path
from knet.inference.clip import by_video, frame_results, segment_clip
from knet.inference.engines.exported import GraphEngine
from knet.inference.results.segmentation import Segmentation
from knet.inference.segmenter import Segmenter
from knet.inference.sources.streams import Frame
from knet.inference.sources.videos import Item
from knet.models.clip import clip_result
from knet.preprocess import unpadded

CLIP = 8  # frames of a video that are compared, for models of clips

Results: TypeAlias = Sequence[Segmentation]  # of an image, or of the frames of a clip
Differences: TypeAlias = dict[str, float | None]  # by the name of the output


@dataclass
class Parity:
    """How an exported model differs from the network in torch. None where there is nothing to compare.

    Attributes:
        images: a row of these figures for each image, or for each clip.
        mask_logits, class_logits, embeddings: the largest difference.
        equal_pixels: the share of pixels in the same segment, 0 to 1.
        pq: of the exported model, with torch's result as the truth, 0 to 1.
        own_size: as `equal_pixels`, with torch at the size at which it sees an image by itself, where the file's fixed
            size has another.
        fitting: height and width of a file that shows the images as torch sees them, if one does.
    """

    images: list[dict[str, Any]] = field(default_factory=list)
    mask_logits: float | None = None
    class_logits: float | None = None
    embeddings: float | None = None
    equal_pixels: float | None = None
    pq: float | None = None
    own_size: float | None = None
    fitting: tuple[int, int] | None = None


def compare(original: Segmenter, exported: Segmenter, images: Iterable[Item], own: Segmenter | None = None) -> Parity:
    """Runs both on the same images, as large as the file sees them; `own` is torch without that file's size."""
    tally = _Tally(exported)
    previous: Tensor | None = None
    for item in images:
        differences, previous = _logits(original, exported, item.image, previous)
        expected, found = (segmenter.segment(item.image, item.name) for segmenter in (original, exported))
        tally.add(item.name, differences, [expected], [found])
        if own is not None and (size := _another_size(own, exported, item.image)):
            tally.add_own(own.segment(item.image, item.name), found, size)
    return tally.parity()


def _another_size(own: Segmenter, exported: Segmenter, image: np.ndarray) -> tuple[int, int] | None:
    """Height and width that torch makes of an image, padded, where the exported model makes something else of it."""
    (inputs, mine), (_, theirs) = (segmenter.prepare(image, segmenter.size) for segmenter in (own, exported))
    return None if mine.resized == theirs.resized else (inputs.shape[2], inputs.shape[3])


def compare_clips(original: Segmenter, exported: Segmenter, frames: Iterable[Frame]) -> Parity:
    """As `compare`, for models of clips: the first `CLIP` frames of each video, as one clip."""
    tally = _Tally(exported)
    for group in by_video(frames):
        clip = list(islice(group, CLIP))
        name, images = clip[0].sequence, [frame.item.image for frame in clip]
        names = [f"{name}/{frame.item.name}" for frame in clip]
        shape = images[0].shape[:2]
        found = (segment_clip(segmenter, images) for segmenter in (original, exported))
        results = [list(frame_results(objects, shape, names, exported.categories)) for objects in found]
        tally.add(name, _clip_logits(original, exported, images), *results)
    return tally.parity()


class _Tally:
    """Collects figures, image by image or clip by clip."""

    def __init__(self, exported: Segmenter):
        self._parity, self._quality = Parity(), PanopticQuality(exported.categories)
        self._pixels = self._equal = 0
        self._own: list[np.ndarray] = []
        self._sizes = set[tuple[int, int]]()

    def add(self, name: str, differences: Differences, expected: Results, found: Results) -> None:
        """Adds an image or the frames of a clip: differences of logits, torch's results and the exported model's."""
        pixels = equal = 0
        for a, b in zip(expected, found, strict=True):
            same = same_segments(a, b)
            pixels, equal = pixels + same.size, equal + int(same.sum())
            self._quality.add(a.id_map, _rows(a), b.id_map, _rows(b), name=a.name)
        row = {"image": name, "size": list(expected[0].id_map.shape), **differences, "equal_pixels": equal / pixels}
        self._parity.images.append(row)
        self._pixels, self._equal = self._pixels + pixels, self._equal + equal

    def add_own(self, expected: Segmentation, found: Segmentation, size: tuple[int, int]) -> None:
        """Adds torch's result for the last image at a size (height, width) of its own."""
        same = same_segments(expected, found).mean()
        self._parity.images[-1]["own_size"] = float(same)
        self._own.append(same)
        self._sizes.add(size)

    def parity(self) -> Parity:
        """The figures of all images."""
        parity = self._parity
        for name in ("mask_logits", "class_logits", "embeddings"):
            values = [row[name] for row in parity.images if row[name] is not None]
            setattr(parity, name, max(values, default=None))
        parity.equal_pixels = self._equal / self._pixels if self._pixels else None
        parity.pq = self._quality.result()["all"]["pq"]
        if self._own:
            parity.own_size = float(np.mean(self._own))
            parity.fitting = self._sizes.pop() if len(self._sizes) == 1 else None
        return parity


def same_segments(expected: Segmentation, found: Segmentation) -> np.ndarray:
    """Where both have void, or a segment of the same class with the same number in that class. -> (H,W) bool"""
    return _numbered(expected) == _numbered(found)


def _numbered(result: Segmentation) -> np.ndarray:
    """A number for the class and the place among its segments at each pixel, 0 = void. -> (H,W) int64

    Places count within a class, so that one segment more or less does not shift all others.
    """
    value = np.zeros(max((s.id for s in result.segments), default=0) + 1, np.int64)
    counts: dict[int, int] = {}
    for segment in result.segments:
        counts[segment.category] = counts.get(segment.category, 0) + 1
        value[segment.id] = (segment.category + 1) * 2**20 + counts[segment.category]
    return value[result.id_map]


def _rows(result: Segmentation) -> list[dict[str, int]]:
    """The segments with pixels in the id map: where objects overlap, some may be hidden."""
    visible = set(np.unique(result.id_map).tolist())
    return [{"id": s.id, "category_id": s.category} for s in result.segments if s.id in visible]


def _logits(
    original: Segmenter, exported: Segmenter, image: np.ndarray, previous: Tensor | None
) -> tuple[Differences, Tensor | None]:
    """Differences on the same input and the same frame before; and torch's kernels, for the next frame.

    Torch sees the image without the padding of the file's fixed size.
    """
    engine = exported.engine
    differences: Differences = dict.fromkeys(("mask_logits", "class_logits", "embeddings"))
    if not isinstance(engine, GraphEngine) or engine.merges:
        return differences, None
    inputs, sizes = exported.prepare(image, exported.size)
    if exported.task == "semantic":
        inputs = unpadded(inputs, sizes)
    expected, found = original.engine(inputs.to(original.device), previous)[-1], engine(inputs, previous)[-1]
    both = {"mask_logits": (expected.mask_logits, found.mask_logits)}
    if expected.class_logits is not None and found.class_logits is not None:
        both["class_logits"] = (expected.class_logits, found.class_logits)
    if expected.linked is not None and found.linked is not None:
        both["embeddings"] = (original.engine.embed(expected.linked), found.linked)
    for name, (a, b) in both.items():
        differences[name] = float((a.float().cpu() - b).abs().max())
    return differences, expected.kernels if engine.embeds else None


def _clip_logits(original: Segmenter, exported: Segmenter, images: Sequence[np.ndarray]) -> Differences:
    """Differences on the same whole clip."""
    engine = exported.engine
    assert isinstance(engine, GraphEngine)
    clip = torch.cat([exported.prepare(image, exported.size)[0] for image in images])
    expected, found = (clip_result(run(clip.to(run.device))) for run in (original.engine, engine))
    classes, masks = (float((a.float().cpu() - b.cpu()).abs().max()) for a, b in zip(expected, found, strict=True))
    return {"mask_logits": masks, "class_logits": classes, "embeddings": None}


def describe_run(exported: Segmenter) -> dict[str, Any]:
    """What ran the file: backend, processor, threads and versions."""
    return {
        "backend": exported.engine.name,
        "version": importlib.import_module(exported.engine.name).__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Writes the report as JSON. Raises `OutputError` if it cannot be written."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")


def table(parity: Parity) -> str:
    """The report as text: a line for each image, then one for all."""
    whole = {"image": "all", "size": None, **vars(parity)}
    lines = [f"{'image':<20} {'size':>9} {'masks':>9} {'classes':>9} {'equal pixels':>13}"]
    for row in [*parity.images, whole]:
        size = "" if row["size"] is None else f"{row['size'][0]}x{row['size'][1]}"
        masks, classes = ("-" if row[key] is None else f"{row[key]:.1e}" for key in ("mask_logits", "class_logits"))
        equal = "-" if row["equal_pixels"] is None else f"{100 * row['equal_pixels']:.4f} %"
        lines.append(f"{row['image']:<20.20} {size:>9} {masks:>9} {classes:>9} {equal:>13}")
    pq = "-" if parity.pq is None else f"{100 * parity.pq:.2f}"
    lines.append(f"PQ of the exported model, with torch's result as the truth: {pq}")
    if parity.own_size is not None:
        size = f"--size {parity.fitting[0]}x{parity.fitting[1]}" if parity.fitting else "any size (--dynamic)"
        lines.append(
            f"note: by itself torch sees these images at another size, and {100 * parity.own_size:.1f} % of the pixels "
            f"are then equal; a file of {size} sees them as torch does"
        )
    return "\n".join(lines)
