"""From what a network says and what it should find to the losses of RT-K-Net (Eqs. 6, 12).

    targets --prepare--> truth on the losses' grid --match--> kernel <-> segment --compute--> {"s1_loss_mask": ..., ...}

Each stage is matched anew, over all segments of an image. The losses live on a grid of a quarter of the padded image.
What K-Net's criterion has in common with RT-K-Net's stands here too.
"""

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
    instance_discrimination_loss,
    mask_loss,
    rank_loss,
    semantic_loss,
)
from knet.training.match import Match, assign, matching_cost, owners

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


@dataclass(slots=True, kw_only=True)
class Criterion(MaskCriterion):
    """All losses of a training step of RT-K-Net, weighted; the loss to minimise is their plain sum.

    Keys: `s1_loss_mask`, `s1_loss_dice`, `s1_loss_rank` and so on for every stage (s1 = the initial masks), from the
    first stage with classes on also `s2_loss_cls`; `loss_seg` from the first output, if it has semantic logits (a
    network gives them in training only), and `loss_inst_disc`, unless its weight is 0.

    `pixels` is the number of pixels an image that the instance discrimination compares with each other; its cost grows
    with the square. `match_pixels` limits the pixels that matching looks at, drawn for each image; None: all, as
    official.
    """

    instance_weight: float = 1.0
    pixels: int = 4096
    match_pixels: int | None = None

    def __call__(
        self,
        outputs: Outputs,
        targets: Targets,
        noise: Tensor | None = None,
        counts: Counts | None = None,
        held: Sequence[Match] | None = None,
    ) -> dict[str, Tensor]:
        """S outputs, B targets -> weighted scalar losses in float32.

        `noise` (B, pixels of the grid) uniform in 0..1 decides which pixels are drawn; random when None. `counts` as
        of `count`; without them the targets are the whole batch. `held` are segments of each target that have their
        kernel beforehand, at every stage.
        """
        return self.compute(outputs, self.prepare(outputs, targets), noise, counts, held)

    def count(self, targets: Targets, kernels: int, parts: int = 1) -> Counts:
        """The segments of a batch of which every process has `targets`, and how many of them get one of `kernels`.

        The official code averages `segments` over processes too, but divides the mask and dice losses by the number of
        matches in each process alone, so that its loss depends on how many share the batch.
        """
        sizes = [len(target.labels) for target in targets]
        return share_counts(sum(sizes), sum(min(size, kernels) for size in sizes), parts)

    def last_match(self, outputs: Outputs, targets: Targets) -> list[Match]:
        """Which kernel of the last output is given which segment of its target, in each image."""
        return self.match(outputs[-1:], self.prepare(outputs, targets))[0]

    def match(self, outputs: Outputs, truth: Truth) -> list[list[Match]]:
        """Which kernel is given which segment: [stage][image], on the CPU."""
        return self._match([on_grid(o.mask_logits, truth) for o in outputs], outputs, truth, None)

    def compute(
        self,
        outputs: Outputs,
        truth: Truth,
        noise: Tensor | None = None,
        counts: Counts | None = None,
        held: Sequence[Match] | None = None,
    ) -> dict[str, Tensor]:
        """The same losses from truth that is already on the grid; predictions are resized to that grid."""
        if counts is None:
            kernels = outputs[0].mask_logits.shape[1]
            matched = sum(min(count, kernels) for count in truth.counts)
            counts = Counts(max(1, sum(truth.counts)), max(1, matched))
        losses = self._auxiliary(outputs[0], truth, noise)
        resized = [on_grid(output.mask_logits, truth) for output in outputs]
        matches = self._match(resized, outputs, truth, noise, held)
        for s, (output, logits, match) in enumerate(zip(outputs, resized, matches, strict=True), start=1):
            for name, loss in self._stage(output, logits, truth, match, counts).items():
                losses[f"s{s}_{name}"] = loss
        return losses

    def _match(
        self,
        resized: Sequence[Tensor],
        outputs: Outputs,
        truth: Truth,
        noise: Tensor | None,
        held: Sequence[Match] | None = None,
    ) -> list[list[Match]]:
        masks, logits = truth.masks, [one.detach() for one in resized]
        if self.match_pixels is not None and self.match_pixels < masks.shape[-2] * masks.shape[-1]:
            noise = torch.rand(len(masks), masks.shape[-2] * masks.shape[-1]) if noise is None else noise
            places = noise.to(masks.device).topk(self.match_pixels, dim=1).indices
            masks, *logits = (_pick(each, places) for each in (masks, *logits))
        costs = [
            matching_cost(one, output.class_logits, masks, truth.labels)
            for one, output in zip(logits, outputs, strict=True)
        ]
        matches, invalid = assign(costs, truth.counts, held)
        self.invalid_costs += invalid
        return matches

    def _auxiliary(self, output: Output, truth: Truth, noise: Tensor | None) -> dict[str, Tensor]:
        losses = {}
        if output.semantic_logits is not None:
            semantic = semantic_loss(on_grid(output.semantic_logits, truth), truth.semantic)
            losses["loss_seg"] = self.semantic_weight * semantic
        if self.instance_weight:  # the one loss whose cost is felt
            features = on_grid(output.features, truth)
            instance = instance_discrimination_loss(features, truth.masks, noise, pixels=self.pixels)
            losses["loss_inst_disc"] = self.instance_weight * instance
        return losses

    def _stage(
        self, output: Output, logits: Tensor, truth: Truth, match: Sequence[Match], counts: Counts
    ) -> dict[str, Tensor]:
        """The losses of one stage. `logits` (B,N,h,w) are the output's mask logits on the grid."""
        pairs = pairs_of(match, logits.device)
        # The official code ignores the largest number in the batch instead of "nobody". Where segments cover every
        # pixel of the batch, that is a real kernel, which then learns no rank: a slip not repeated here.
        owner = owned(owners, pairs.kernel, truth, pairs)
        losses = self.mask_losses(output, truth, pairs, counts.matched)
        losses["loss_rank"] = self.rank_weight * rank_loss(logits, owner)
        if output.class_logits is not None:
            losses["loss_cls"] = self.class_loss(output.class_logits, truth, pairs, counts.segments)
        return losses


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


def _pick(maps: Tensor, places: Tensor) -> Tensor:
    """(B,N,h,w), (B,P) int64 pixels of each image -> (B,N,1,P)"""
    return maps.flatten(2).gather(2, places[:, None].expand(-1, maps.shape[1], -1))[:, :, None]
