"""What the losses of all networks share: truth on a grid, matches, and the losses of kernels that have a segment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from knet.distributed import gather_numbers
from knet.errors import DataError
from knet.structures import Output, Target
from knet.training.losses import (
    IGNORE,
    dice_loss,
    focal_loss,
    mask_loss,
)
from knet.training.match import Match

Outputs = Sequence[Output]

Targets = Sequence[Target]

GRID = 4  # the losses look at every fourth pixel of the padded image in both directions


@dataclass(slots=True)
class Truth:
    """The targets of a batch on the losses' grid, padded to the largest number of segments T.

    `masks` (B,T,h,w) float32, the share of a pixel that belongs to the segment, zeros beyond an image's count ·
    `labels` (B,T) int64, 0 beyond · `semantic` (B,h,w) int64 label or IGNORE · `counts` the segments of each image.
    """

    masks: Tensor
    labels: Tensor
    semantic: Tensor
    counts: list[int]


def prepare(targets: Targets, size: tuple[int, int], device: torch.device | str = "cpu", stride: int = GRID) -> Truth:
    """Targets at image resolution to truth at 1 / `stride` of the padded `size` (height, width), on `device`.

    Images lie in the top left corner of the padded size; the rest is void. Masks are resized as the official code
    does, bilinearly without antialias: the value of a pixel is the mean of the four in the middle of its 4 x 4 block
    (with stride 2, of all four). The semantic map is resized to the nearest, which is the block's first pixel; of
    segments that overlap there, it shows the one in the first layer.

    Raises: DataError if an image is larger than `size`.
    """
    count = max((len(target.labels) for target in targets), default=0)
    height, width = size
    grid, middle = (height // stride, width // stride), (stride // 2 - 1, stride // 2)
    masks = torch.zeros(len(targets), count, *grid, device=device)
    labels = torch.zeros(len(targets), count, dtype=torch.int64, device=device)
    semantic = torch.empty(len(targets), *grid, dtype=torch.int64, device=device)
    for b, target in enumerate(targets):
        ids, T = target.id_map.to(device, non_blocking=True), len(target.labels)
        layers = pad_ids(ids, size, f"Target {b}").long().reshape(-1, height, width)
        labels[b, :T] = target.labels.to(device, non_blocking=True)
        numbers = torch.arange(1, T + 1, device=device)[:, None, None]
        for layer in layers:
            for y in middle:
                for x in middle:
                    masks[b, :T] += (layer[y::stride, x::stride] == numbers) * 0.25
        semantic[b] = labels_of(layers[:, ::stride, ::stride], labels[b, :T])
    return Truth(masks, labels, semantic, [len(target.labels) for target in targets])


def pad_ids(ids: Tensor, size: tuple[int, int], name: str) -> Tensor:
    """A map of whole numbers with zeros at the right and bottom, up to `size`. (...,H,W) -> (...,h,w)

    Raises: DataError if it is larger than `size`; `name` begins the sentence.
    """
    height, width = ids.shape[-2:]
    if height > size[0] or width > size[1]:
        raise DataError(
            f"{name} has {(height, width)} pixels (height, width), more than the {size} of the padded batch: "
            "give the network's outputs for the same images."
        )
    return F.pad(ids, (0, size[1] - width, 0, size[0] - height))


def labels_of(layers: Tensor, labels: Tensor) -> Tensor:
    """Class of each pixel in the first layer that has one. (L,h,w) int64 ids, (T,) int64 -> (h,w) int64 or IGNORE"""
    top = layers[0]
    for layer in layers[1:]:
        top = torch.where(top > 0, top, layer)
    return F.pad(labels, (1, 0), value=IGNORE)[top]


@dataclass(frozen=True, slots=True)
class Counts:
    """What sums over segments are divided by: the numbers of the whole batch over the number of its parts.

    A batch is shared by processes, and each may go through its share in several parts. Divided in this way, the mean
    of the parts' losses is the loss of the whole batch, however it was shared. `segments` divides the class losses,
    `matched` the masks' of kernels that may become anything: each criterion says what it counts.
    """

    segments: float
    matched: float


def share_counts(segments: int, matched: int, parts: int) -> Counts:
    """The counts of a whole batch from the numbers of this process, which goes through its share in `parts` parts."""
    numbers = gather_numbers([segments, matched])
    return Counts(*(max(1, number) / (parts * len(numbers)) for number in numbers.sum(0).tolist()))


class Pairs(NamedTuple):
    """The matches of a batch on the device: kernel `kernel` of image `image` has segment `segment`, (M,) int64 each.

    Images come one after the other; `counts` are their numbers of rows.
    """

    image: Tensor
    kernel: Tensor
    segment: Tensor
    counts: list[int]


def pairs_of(match: Sequence[Match], device: torch.device) -> Pairs:
    """The matches of the images in three rows, which travel to the device in one copy."""
    image = torch.cat([torch.full_like(m.kernels, b) for b, m in enumerate(match)])
    rows = torch.stack([image, torch.cat([m.kernels for m in match]), torch.cat([m.segments for m in match])])
    image, kernel, segment = rows.to(device, non_blocking=True)
    return Pairs(image, kernel, segment, [len(m.kernels) for m in match])


class CriterionLike(Protocol):
    """What a training step asks of the losses of any network. `targets` are those of its batch: a list, or, for pairs
    of frames, `PairTargets`.
    """

    @property
    def invalid_costs(self) -> int:
        """Matching costs that were not finite since the criterion was made."""
        ...

    def count(self, targets: Any, kernels: int, parts: int = 1) -> Any:
        """What the losses of a batch are divided by, of which every process has `targets`."""
        ...

    def __call__(
        self, outputs: Outputs, targets: Any, noise: Tensor | None = None, counts: Any = None
    ) -> dict[str, Tensor]:
        """Weighted scalar losses in float32."""
        ...


@dataclass(slots=True, kw_only=True)
class MaskCriterion:
    """What the losses of RT-K-Net and K-Net have in common: weights, and the losses of pairs of kernel and segment.

    `stride` is that of the mask logits, `grid` that of the losses. `invalid_costs` counts matching costs that were not
    finite since the criterion was made: a training loop should report it when it grows.
    """

    class_weight: float = 2.0
    mask_weight: float = 1.0
    dice_weight: float = 4.0
    rank_weight: float = 0.1
    semantic_weight: float = 1.0
    stride: int = 8
    grid: int = GRID
    invalid_costs: int = 0

    def prepare(self, outputs: Outputs, targets: Targets) -> Truth:
        """The targets on the losses' grid and on the outputs' device; the outputs tell the padded size."""
        logits = outputs[0].mask_logits
        height, width = logits.shape[-2:]
        return prepare(targets, (height * self.stride, width * self.stride), logits.device, self.grid)

    def mask_losses(self, output: Output, truth: Truth, pairs: Pairs, count: float) -> dict[str, Tensor]:
        """Mask and dice loss of the matched kernels, divided by `count`."""
        # Resizing the few matched masks again costs less than scattering their gradient into all masks of the grid.
        logits = on_grid(output.mask_logits[pairs.image, pairs.kernel][:, None], truth)[:, 0]
        masks = truth.masks[pairs.image, pairs.segment]
        return {
            "loss_mask": self.mask_weight * mask_loss(logits, masks, count),
            "loss_dice": self.dice_weight * dice_loss(logits, masks, count),
        }

    def class_loss(
        self, class_logits: Tensor, truth: Truth, pairs: Pairs, count: float, learned: Tensor | None = None
    ) -> Tensor:
        """Focal loss of all kernels, divided by `count`. (B,N,K) logits; only where `learned` (N,K) bool, if given."""
        wanted = torch.zeros_like(class_logits, dtype=torch.float32)
        wanted[pairs.image, pairs.kernel, truth.labels[pairs.image, pairs.segment]] = 1
        if learned is not None:
            class_logits, wanted = class_logits[:, learned], wanted[:, learned]
        return self.class_weight * focal_loss(class_logits, wanted) / count


def owned(
    rule: Callable[[Tensor, Tensor, int], Tensor], values: Tensor, truth: Truth, pairs: Pairs, nobody: int = IGNORE
) -> Tensor:
    """To whom each pixel of a batch belongs by a rule, such as `owners`. (M,) values of the pairs -> (B,h,w) int64"""
    masks = truth.masks[pairs.image, pairs.segment]
    images = zip(values.split(pairs.counts), masks.split(pairs.counts), strict=True)
    return torch.stack([rule(value, mask, nobody) for value, mask in images])


def on_grid(logits: Tensor, truth: Truth) -> Tensor:
    """(B,N,h,w) of any size -> (B,N,h,w) float32 on the losses' grid, bilinear."""
    return F.interpolate(logits.float(), truth.masks.shape[-2:], mode="bilinear", align_corners=False)
