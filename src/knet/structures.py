"""What travels between the rooms of the package. Nothing here computes; everything else may import it.

Classes are called by two numbers, never mixed up: a *label* is the index of a category in a model's class table
(0 .. K-1, the training order); a *category id* is the number that the data set itself uses (Cityscapes car: 26).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Category:
    """One row of a class table. The position in the table is the label; `id` is the data set's own number.

    `color` is RGB, 0..255.
    """

    id: int
    name: str
    thing: bool
    color: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """One segment of a ground-truth image: its value in the id map, its class and whether it is a crowd region.

    `label` is the index in the class table. A crowd region covers several objects that nobody told apart.
    """

    id: int
    label: int
    crowd: bool = False


@dataclass(slots=True)
class Sample:
    """A labelled image as a data set reads it, before any augmentation.

    `image` (H,W,3) uint8 RGB · `id_map` (H,W) int32, 0 = void, other values are the `id` of one of `segments`; or
    (L,H,W), layers of which each holds other segments, where segments may overlap.
    `name` is unique in the data set and is what results, logs and errors call the image.
    """

    name: str
    image: np.ndarray
    id_map: np.ndarray
    segments: list[SegmentInfo]


@dataclass(slots=True)
class Target:
    """What a network should find in one training image.

    `id_map` (H,W) integer tensor: 0 = void, value t + 1 = the t-th segment · `labels` (T,) int64, its class. Segments
    that may overlap come in layers: (L,H,W), each segment in one of them.
    """

    id_map: Tensor
    labels: Tensor

    def to(self, device: object) -> Target:
        """The same target on another device, copied without waiting where the memory is pinned."""
        return Target(
            self.id_map.to(device, non_blocking=True),  # type: ignore[call-overload]
            self.labels.to(device, non_blocking=True),  # type: ignore[call-overload]
        )

    def pin_memory(self) -> Target:
        """The same target in page-locked memory (called by torch's DataLoader)."""
        return Target(self.id_map.pin_memory(), self.labels.pin_memory())


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What is done to an image before a network sees it.

    Resized so that its short side is `short_edge` pixels, but its long side at most `max_edge`; `antialias` as Pillow
    does when shrinking (True) or as OpenCV (False); then `(image - mean) / std` on RGB values 0..255; then padded with
    zeros at the right and bottom to a multiple of `divisor`. Without `resize` the image is taken as it is, and the two
    sides are those that images usually have.
    """

    short_edge: int
    max_edge: int
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    antialias: bool = True
    divisor: int = 32
    resize: bool = True


@dataclass(slots=True)
class Output:
    """What a network says after one stage, for a batch of B images, N kernels, C channels, K classes.

    `kernels` (B,N,C) · `mask_logits` (B,N,h,w) on the feature map's grid of the padded images ·
    `class_logits` (B,N,K), None where no class was predicted yet (the initial masks) ·
    `features` (B,C,h,w), the map the masks were predicted from ·
    `semantic_logits` (B,K,h,w), the auxiliary semantic prediction: only on a network's first output, in training; of
    `VideoKNet` always ·
    `linked` (B,N,C), of video networks: the last stage's kernels after they looked at those of the frame before, which
    the embeddings of tracks are made from.

    Networks for clips (`ClipKNet`) also give outputs that are about T frames at once: `kernels` (B,N,C) as ever or
    (B,N,T,C), `mask_logits` (B,N,T,h,w), `features` (B,C,T,h,w).
    """

    kernels: Tensor
    mask_logits: Tensor
    class_logits: Tensor | None
    features: Tensor
    semantic_logits: Tensor | None = None
    linked: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a result.

    `id` is its value in the id map (1, 2, ...) · `category` the data set's category id, `name` and `thing` from the
    same table row · `score` 0..1 · `area` in pixels of the original image · `box` (left, top, right, bottom) in
    pixels, right and bottom exclusive · `track` the object's identity over frames, None for single images.
    """

    id: int
    category: int
    name: str
    thing: bool
    score: float
    area: int
    box: tuple[int, int, int, int]
    track: int | None = None
