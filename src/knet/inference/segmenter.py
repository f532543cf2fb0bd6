"""A network together with everything that is needed to use it: image in, `Segmentation` out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as TF

from knet.data.transforms import resized_size
from knet.errors import ConfigError
from knet.inference.segmentation import Segmentation
from knet.inference.sources import load_image, open_source
from knet.merge.plain import best_class, merge_panoptic, number_segments
from knet.structures import Category, Preprocessing, Segment

Size = Literal["model", "image"] | int | tuple[int, int]
_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Segmenter:
    """Segments images, one at a time: `segmenter("street.jpg")`. Made by `knet.load`.

    Attributes:
        net: the network, in evaluation mode.
        name: the model's name in the zoo.
        categories: its class table; a category's position is the network's label.
        preprocessing, size, score, overlap: test settings, the published ones unless `load` was told otherwise.
    """

    def __init__(
        self,
        net: nn.Module,
        name: str,
        categories: Sequence[Category],
        preprocessing: Preprocessing,
        score: float,
        overlap: float,
        device: str | torch.device = "cpu",
        precision: str = "fp32",
        size: Size = "model",
    ):
        self.device = torch.device(device)
        # Channels last is the faster layout for convolutions on a CPU and for half precision on a GPU.
        self.net = net.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.name, self.categories, self.preprocessing = name, tuple(categories), preprocessing
        self.score, self.overlap = _fraction("score", score), _fraction("overlap", overlap)
        self.precision, self.size = precision, size
        self._things = torch.tensor([category.thing for category in categories])

    def __call__(
        self, source: Any, size: Size | None = None, score: float | None = None, overlap: float | None = None
    ) -> Any:
        """Segments an image, or each of a list of images.

        Args:
            source: a path, the bytes of an image file, a PIL image, a (H,W,3) uint8 RGB array, a (3,H,W) tensor (uint8,
                or float 0..1), or a list of these.
            size: what the network sees: "model" = the published test size, "image" = the image as it is, a number =
                the short side in pixels, a pair = (short, long) side at most. Results have the image's own size.
            score: masks that are less certain are dropped.
            overlap: masks that win less than this share of their pixels are dropped.

        Returns:
            A `Segmentation`, or a list of them for a list. It keeps the image, to be drawn upon.

        Raises:
            DataError: the image is missing, damaged or of a kind that cannot be read.
            ConfigError: an option is out of range.
        """
        if isinstance(source, list | tuple):
            return [self(item, size, score, overlap) for item in source]
        name = Path(source).stem if isinstance(source, str | Path) else "image"
        image = load_image(source)
        return replace(self.segment(image, name, size, score, overlap), image=image)

    def stream(self, source: Any, **options: Any) -> Iterator[tuple[np.ndarray, Segmentation]]:
        """Image and result, one after the other, of a folder, a glob, a video file or a list; constant memory.

        Args:
            source: see `inference.sources.open_source`.
            options: `size`, `score` and `overlap` as for a single image.
        """
        for item in open_source(source):
            yield item.image, self.segment(item.image, item.name, **options)

    def segment(
        self,
        image: np.ndarray,
        name: str = "image",
        size: Size | None = None,
        score: float | None = None,
        overlap: float | None = None,
    ) -> Segmentation:
        """One image as (H,W,3) uint8 RGB -> its `Segmentation`, under the given name."""
        score = _fraction("score", self.score if score is None else score)
        overlap = _fraction("overlap", self.overlap if overlap is None else overlap)
        inputs, seen = self._prepare(image, self.size if size is None else size)
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, _PRECISIONS[self.precision], enabled=self.precision != "fp32"),
        ):
            output = self.net(inputs)[-1]
        with torch.inference_mode():
            scores, labels = best_class(output.class_logits[0])
            merged = merge_panoptic(output.mask_logits[0], scores, labels, seen, score, overlap)
            id_map, rows = number_segments(merged, self._things)
            # The result was merged at the size the network saw; the nearest pixel takes it to the image's own.
            id_map = nearest(id_map, (image.shape[0], image.shape[1]))
        return self._segmentation(id_map.cpu().numpy(), rows, name)

    def _prepare(self, image: np.ndarray, size: Size) -> tuple[Tensor, tuple[int, int]]:
        """(H,W,3) uint8 -> (1,3,h,w) normalised and padded, and the size before padding."""
        p = self.preprocessing
        x = torch.tensor(image, device=self.device).permute(2, 0, 1)  # a copy: arrays of others may be read-only
        seen = _test_size((image.shape[0], image.shape[1]), size, p)
        if seen != image.shape[:2]:
            x = TF.resize(x, list(seen), TF.InterpolationMode.BILINEAR, antialias=p.antialias)
        return normalize_and_pad([x], p).contiguous(memory_format=torch.channels_last), seen

    def _segmentation(self, id_map: np.ndarray, rows: list[tuple[int, int, float]], name: str) -> Segmentation:
        areas = np.bincount(id_map.ravel(), minlength=len(rows) + 1)
        boxes = ndimage.find_objects(id_map, max_label=len(rows))
        segments = []
        for (number, label, score), box in zip(rows, boxes, strict=True):
            if box is None:  # lost when the map was shrunk to the image's size
                continue
            category, (y, x) = self.categories[label], box
            segments.append(
                Segment(
                    id=number,
                    category=category.id,
                    name=category.name,
                    thing=category.thing,
                    score=score,
                    area=int(areas[number]),
                    box=(x.start, y.start, x.stop, y.stop),
                )
            )
        return Segmentation(id_map, segments, self.categories, name)


def normalize_and_pad(
    images: Sequence[Tensor], preprocessing: Preprocessing, least: tuple[int, int] = (1, 1)
) -> Tensor:
    """A batch for a network. B tensors (3,H,W) uint8 or 0..255 -> (B,3,h,w) float32

    h and w are the largest of the batch and of `least`, rounded up to the divisor; zeros fill the right and the
    bottom, after the normalisation, so that padding is the mean colour.
    """
    mean = torch.tensor(preprocessing.mean, device=images[0].device)[:, None, None]
    std = torch.tensor(preprocessing.std, device=images[0].device)[:, None, None]
    d = preprocessing.divisor
    sizes = [*((image.shape[1], image.shape[2]) for image in images), least]
    height, width = (-(-max(sides) // d) * d for sides in zip(*sizes, strict=True))
    batch = images[0].new_zeros(len(images), 3, height, width, dtype=torch.float32)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = (image.float() - mean) / std
    return batch


def nearest(id_map: Tensor, size: tuple[int, int]) -> Tensor:
    """A map of whole numbers resized without mixing them. (H,W) integer -> (h,w), the same dtype"""
    if tuple(id_map.shape) == size:
        return id_map
    # float64 holds every int32 id exactly.
    return F.interpolate(id_map[None, None].double(), size, mode="nearest")[0, 0].to(id_map.dtype)


def _test_size(shape: tuple[int, int], size: Size, preprocessing: Preprocessing) -> tuple[int, int]:
    if size == "image":
        return shape
    if size == "model":
        short, long = preprocessing.short_edge, preprocessing.max_edge
    elif isinstance(size, int) and size > 0:
        # The longest side keeps the model's proportion, so that a panorama does not become a giant.
        short, long = size, size * preprocessing.max_edge // preprocessing.short_edge
    elif isinstance(size, tuple) and len(size) == 2 and 0 < size[0] <= size[1]:
        short, long = size
    else:
        raise ConfigError(f"The size {size!r} is not 'model', 'image', a positive number or a pair (short, long).")
    return resized_size(shape, short, long)


def _fraction(option: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ConfigError(f"The {option} threshold {value} is not between 0 and 1.")
    return float(value)
