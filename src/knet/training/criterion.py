"""What the losses of all networks share: the truth on a grid, matches, and the losses of matched kernels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from knet.distributed import gather_numbers
from knet.errors import DataError
from knet.structures import Output, Target
from knet.training.losses import IGNORE, dice_loss, focal_loss, mask_loss
from knet.training.match import Match

Outputs = Sequence[Output]
Targets = Sequence[Target]

SURELY_NOT = -30.0  # a logit that gives neither loss nor gradient where the truth is 0
GRID = 4  # the losses' grid is a quarter of the padded image in both directions


@dataclass(slots=True)
class Truth:
    """The targets of a batch on the losses' grid, padded with zeros to the largest number of segments T."""

    masks: Tensor  # (B,T,h,w) float32, the share of each pixel that belongs to the segment
    labels: Tensor  # (B,T) int64
    semantic: Tensor  # (B,h,w) int64 labels or IGNORE
    counts: list[int]  # how many segments each image has
    ignored: Tensor | None = None  # (B,h,w) bool, of clips (B,T,h,w), where no loss looks; None: nowhere
    unlabelled: Sequence[tuple[int, ...]] = ()  # for each image the classes that may be in it unlabelled; (): none

    def resize(self, logits: Tensor) -> Tensor:
        """Resizes logits to the losses' grid (bilinear). (B,N,h,w) of any size -> (B,N,h,w) float32"""
        return F.interpolate(logits.float(), self.masks.shape[-2:], mode="bilinear", align_corners=False)

    def hide(self, logits: Tensor) -> Tensor:
        """Logits on the grid that are surely negative where no loss looks, as the masks are there. (B,N,...,h,w)"""
        return logits if self.ignored is None else logits.masked_fill(self.ignored[:, None], SURELY_NOT)

    def unknown(self, mask_logits: Tensor) -> Tensor | None:
        """Which kernels show mostly what is ignored, so nobody knows their class. (B,N,...,h,w) -> (B,N) or None"""
        if self.ignored is None:
            return None
        ignored = F.interpolate(self.ignored.float().flatten(0, -3)[None], mask_logits.shape[-2:], mode="area")
        inside = mask_logits.detach().float().sigmoid()
        hidden = (inside * ignored.reshape(inside[:, :1].shape)).flatten(2).sum(2)
        return hidden > 0.5 * inside.flatten(2).sum(2)


def prepare(targets: Targets, size: tuple[int, int], device: torch.device | str = "cpu", stride: int = GRID) -> Truth:
    """Targets at image resolution as truth at 1 / `stride` of the padded `size` (height, width), on `device`.

    Images lie in the top left corner of the padded size; the rest is void. As in the official code, masks are resized
    bilinearly without antialiasing: a pixel is the mean of the middle four of its 4 x 4 block (with stride 2, of all
    four). The semantic map takes the nearest pixel, which is the block's first; where segments overlap, it shows the
    one in the first layer.
    """
    count = max((len(target.labels) for target in targets), default=0)
    height, width = size
    grid, middle = (height // stride, width // stride), (stride // 2 - 1, stride // 2)
    masks = torch.zeros(len(targets), count, *grid, device=device)
    labels = torch.zeros(len(targets), count, dtype=torch.int64, device=device)
    semantic = torch.empty(len(targets), *grid, dtype=torch.int64, device=device)
    ignored = torch.zeros(len(targets), *grid, dtype=torch.bool, device=device)
    for b, target in enumerate(targets):
        ids, T = target.id_map.to(device, non_blocking=True), len(target.labels)
        layers = pad_ids(ids, size, f"Target {b}").long().reshape(-1, height, width)
        labels[b, :T] = target.labels.to(device, non_blocking=True)
        numbers = torch.arange(1, T + 1, device=device)[:, None, None]
        for layer in layers:
            for y in middle:
                for x in middle:
                    masks[b, :T] += (layer[y::stride, x::stride] == numbers) * 0.25
                    ignored[b] |= layer[y::stride, x::stride] < 0
        semantic[b] = labels_of(layers[:, ::stride, ::stride], labels[b, :T])
    counts, unlabelled = [len(target.labels) for target in targets], [target.unlabelled for target in targets]
    truth = Truth(masks, labels, semantic, counts, None, unlabelled)
    if any((target.id_map < 0).any() for target in targets):  # the maps are on the CPU still
        truth.masks.masked_fill_(ignored[:, None], 0)
        truth.ignored = ignored
    return truth


def pad_ids(ids: Tensor, size: tuple[int, int], name: str) -> Tensor:
    """Pads a map of integers, which errors call `name`, with zeros at the right and bottom. (...,H,W) -> (...,h,w)"""
    height, width = ids.shape[-2:]
    if height > size[0] or width > size[1]:
        raise DataError(
            f"{name} has {(height, width)} pixels (height, width), more than the {size} of the padded batch: "
            "give the network's outputs for the same images."
        )
    return F.pad(ids, (0, size[1] - width, 0, size[0] - height))


def labels_of(layers: Tensor, labels: Tensor) -> Tensor:
    """Each pixel's label, from the first layer that has one. (L,h,w) int64 ids, (T,) int64 -> (h,w) int64 or IGNORE"""
    top = layers[0].clamp(min=0)
    for layer in layers[1:]:
        top = torch.where(top > 0, top, layer.clamp(min=0))
    return F.pad(labels, (1, 0), value=IGNORE)[top]


def hide_classes(logits: Tensor, unlabelled: Sequence[tuple[int, ...]]) -> Tensor:
    """Logits that are surely negative for the classes that may be in an image unlabelled. (B,K,...) -> (B,K,...)"""
    if not any(unlabelled):
        return logits
    hidden = torch.zeros(logits.shape[:2], dtype=torch.bool)
    for image, labels in enumerate(unlabelled):
        hidden[image, list(labels)] = True
    return logits.masked_fill(hidden.to(logits.device).reshape(*hidden.shape, *[1] * (logits.dim() - 2)), SURELY_NOT)


@dataclass(frozen=True, slots=True)
class Counts:
    """What sums over segments are divided by: the numbers of the whole batch over the number of its parts.

    Processes share a batch, and each may go through its share in several parts. Thanks to these divisors, the mean of
    the parts' losses is the loss of the whole batch, however it was shared. See also the criterion's `count`.
    """

    segments: float  # divides the class losses
    matched: float  # divides the mask losses of kernels that may become any segment


def share_counts(segments: int, matched: int, parts: int) -> Counts:
    """The counts of a whole batch, from the numbers of this process, which goes through its share in `parts` parts."""
    numbers = gather_numbers([segments, matched])
    return Counts(*(max(1, number) / (parts * len(numbers)) for number in numbers.sum(0).tolist()))


class Matched(NamedTuple):
    """The matches of a batch on the device, image by image: `kernel` of `image` is matched to `segment`, (M,) int64."""

    image: Tensor
    kernel: Tensor
    segment: Tensor
    counts: list[int]  # how many matches each image has


def join_matches(match: Sequence[Match], device: torch.device) -> Matched:
    """The matches of all images, which travel to the device in one copy."""
    image = torch.cat([torch.full_like(m.kernels, b) for b, m in enumerate(match)])
    rows = torch.stack([image, torch.cat([m.kernels for m in match]), torch.cat([m.segments for m in match])])
    image, kernel, segment = rows.to(device, non_blocking=True)
    return Matched(image, kernel, segment, [len(m.kernels) for m in match])


class CriterionLike(Protocol):
    """What a training step needs of any network's losses. `targets` is a list, or `PairTargets` for pairs of frames."""

    @property
    def invalid_costs(self) -> int:
        """How many matching costs were not finite since the criterion was made."""

    def count(self, targets: Any, kernels: int, parts: int = 1) -> Any:
        """What the losses of a batch are divided by; `targets` are the share of this process."""

    def __call__(
        self, outputs: Outputs, targets: Any, noise: Tensor | None = None, counts: Any = None
    ) -> dict[str, Tensor]:
        """Weighted scalar losses in float32."""


@dataclass(slots=True, kw_only=True)
class MaskCriterion:
    """What the losses of RT-K-Net and K-Net have in common: their factors, and the losses of matched kernels."""

    class_weight: float = 2.0
    mask_weight: float = 1.0
    dice_weight: float = 4.0
    rank_weight: float = 0.1
    semantic_weight: float = 1.0
    stride: int = 8  # image pixels to a pixel of the mask logits
    grid: int = GRID  # image pixels to a pixel of the losses' grid
    invalid_costs: int = 0  # how many matching costs were not finite so far

    def prepare(self, outputs: Outputs, targets: Targets) -> Truth:
        """The targets on the losses' grid and the outputs' device; the outputs give the padded size."""
        logits = outputs[0].mask_logits
        height, width = logits.shape[-2:]
        return prepare(targets, (height * self.stride, width * self.stride), logits.device, self.grid)

    def mask_losses(self, output: Output, truth: Truth, matched: Matched, count: float) -> dict[str, Tensor]:
        """Mask and dice loss of the matched kernels, whose masks may be those of images or of clips, over `count`."""
        masks = truth.masks[matched.image, matched.segment]
        # Resizing the few matched masks again costs less than scattering their gradient into all masks of the grid.
        logits = output.mask_logits[matched.image, matched.kernel][:, None].flatten(1, -3)
        logits = truth.resize(logits).reshape(masks.shape)
        if truth.ignored is not None:
            logits = logits.masked_fill(truth.ignored[matched.image], SURELY_NOT)
        return {
            "loss_mask": self.mask_weight * mask_loss(logits, masks, count),
            "loss_dice": self.dice_weight * dice_loss(logits, masks, count),
        }

    def class_loss(
        self, output: Output, truth: Truth, matched: Matched, count: float, learned: Tensor | None = None
    ) -> Tensor:
        """Focal loss of all kernels over `count`; `learned` (N,K) bool limits it to some classes.

        Kernels without a segment that show what is ignored, and classes that nobody labelled, are left out.
        """
        assert output.class_logits is not None
        class_logits = output.class_logits
        wanted = torch.zeros_like(class_logits, dtype=torch.float32)
        wanted[matched.image, matched.kernel, truth.labels[matched.image, matched.segment]] = 1
        unknown = truth.unknown(output.mask_logits)
        if unknown is not None:
            unknown[matched.image, matched.kernel] = False
            class_logits = class_logits.masked_fill(unknown[..., None], SURELY_NOT)
        class_logits = hide_classes(class_logits.transpose(1, 2), truth.unlabelled).transpose(1, 2)
        if learned is not None:
            class_logits, wanted = class_logits[:, learned], wanted[:, learned]
        return self.class_weight * focal_loss(class_logits, wanted) / count


def owned(rule: Callable[[Tensor, Tensor, int], Tensor], values: Tensor, truth: Truth, matched: Matched) -> Tensor:
    """Which matched kernel owns each pixel, by a rule such as `owners`. (M,) values of the kernels -> (B,h,w) int64"""
    masks = truth.masks[matched.image, matched.segment]
    images = zip(values.split(matched.counts), masks.split(matched.counts), strict=True)
    return torch.stack([rule(value, mask, IGNORE) for value, mask in images])
