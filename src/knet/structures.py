"""What travels between the rooms of the package. Nothing here computes, and everything may import it.

Classes have two numbers, which must not be mixed up: a *label* is the index of a category in a model's class table
(0 to K-1, the training order); a *category id* is the number that the data set itself uses (Cityscapes car: 26).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Category:
    """One row of a class table; its place in the table is the label.

    Attributes:
        id: the category id.
        thing: whether its objects can be counted.
        color: RGB, 0 to 255.
    """

    id: int
    name: str
    thing: bool
    color: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """One segment of a ground-truth image."""

    id: int  # its value in the id map
    label: int
    crowd: bool = False  # whether it covers several objects that were not labelled separately


@dataclass(slots=True)
class Sample:
    """A labelled image as read from a data set, before any augmentation.

    In `id_map` 0 is void, other values are the `id` of one of `segments`. Where segments may overlap, it has L layers,
    each with other segments.
    """

    name: str  # unique in the data set; names the image in results, logs and errors
    image: np.ndarray  # (H,W,3) uint8 RGB
    id_map: np.ndarray  # (H,W) or (L,H,W) int32
    segments: list[SegmentInfo]
    ignored: frozenset[int] = frozenset()  # values of the id map that no loss looks at, such as 0 or a crowd's
    unlabelled: tuple[int, ...] = ()  # classes that may be in the image without being labelled


@dataclass(slots=True)
class Target:
    """What a network should find in one training image with T segments.

    In `id_map` 0 is void, where masks should be empty, t + 1 segment t, and -1 void that no loss looks at. Where
    segments may overlap, it has L layers, each segment in one of them.
    """

    id_map: Tensor  # (H,W) or (L,H,W) integers
    labels: Tensor  # (T,) int64
    unlabelled: tuple[int, ...] = ()  # classes that may be in the image without being labelled

    def to(self, device: object) -> Target:
        """The same target on another device; copied without waiting if its memory is pinned."""
        return replace(
            self,
            id_map=self.id_map.to(device, non_blocking=True),  # type: ignore[call-overload]
            labels=self.labels.to(device, non_blocking=True),  # type: ignore[call-overload]
        )

    def pin_memory(self) -> Target:
        """The same target in page-locked memory (called by torch's DataLoader)."""
        return replace(self, id_map=self.id_map.pin_memory(), labels=self.labels.pin_memory())


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What happens to an image before a network sees it: resizing, (image - mean) / std, zeros at the right and bottom.

    Attributes:
        short_edge, max_edge: its short side in pixels, but the long side is at most `max_edge`.
        mean, std: of RGB values 0 to 255.
        antialias: whether shrunk images are smoothed, as by Pillow, or not, as by OpenCV.
        divisor: sides are padded to a multiple of this.
        resize: if False the image keeps its size, and the two edges are those that images usually have.
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
    """What a network predicts after one stage, for a batch of B images, N kernels, C channels, K classes.

    Networks for clips (`ClipKNet`) also have outputs for T frames at once: kernels (B,N,C) or (B,N,T,C), mask logits
    (B,N,T,h,w), features (B,C,T,h,w).

    Attributes:
        kernels: (B,N,C)
        mask_logits: (B,N,h,w), on the feature map's grid of the padded images.
        class_logits: (B,N,K), or None where no class was predicted (the initial masks).
        features: (B,C,h,w), the map that the masks were predicted from.
        semantic_logits: (B,K,h,w), the auxiliary semantic prediction, in a network's first output: in training, and
            always of `VideoKNet`.
        linked: (B,N,C), of video networks: the last stage's kernels, linked to those of the frame before, from which
            the embeddings of tracks are made.
    """

    kernels: Tensor
    mask_logits: Tensor
    class_logits: Tensor | None
    features: Tensor
    semantic_logits: Tensor | None = None
    linked: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a result, in pixels of the original image.

    Attributes:
        id: its value in the id map: 1, 2, ...
        category: the data set's category id.
        name, thing: from the same row of the class table.
        score: 0 to 1.
        area: in pixels.
        box: left, top, right, bottom in pixels; right and bottom are exclusive.
        track: the object's identity over frames, None for single images.
    """

    id: int
    category: int
    name: str
    thing: bool
    score: float
    area: int
    box: tuple[int, int, int, int]
    track: int | None = None
