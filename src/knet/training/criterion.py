"""From what a network says and what it should find to the losses of RT-K-Net (Eqs. 6, 12).

    targets --prepare--> truth on the losses' grid --match--> kernel <-> segment --compute--> {"s1_loss_mask": ..., ...}

Each stage is matched anew, over all segments of an image. The losses live on a grid of a quarter of the padded image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from knet.errors import DataError
from knet.structures import Output, Target
from knet.training.distributed import gather_numbers
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


def prepare(targets: Sequence[Target], size: tuple[int, int], device: torch.device | str = "cpu") -> Truth:
    """Targets at image resolution to truth at a quarter of the padded `size` (height, width), on `device`.

    Images lie in the top left corner of the padded size; the rest is void. Masks are resized as the official code
    does, bilinearly without antialias: the value of a pixel is the mean of the four in the middle of its 4 x 4 block.
    The semantic map is resized to the nearest, which is the block's first pixel.

    Raises: DataError if an image is larger than `size`.
    """
    count = max((len(target.labels) for target in targets), default=0)
    height, width = size
    grid = (height // GRID, width // GRID)
    masks = torch.zeros(len(targets), count, *grid, device=device)
    labels = torch.zeros(len(targets), count, dtype=torch.int64, device=device)
    semantic = torch.empty(len(targets), *grid, dtype=torch.int64, device=device)
    for b, target in enumerate(targets):
        ids, T = target.id_map.to(device, non_blocking=True), len(target.labels)
        if ids.shape[0] > height or ids.shape[1] > width:
            raise DataError(
                f"Target {b} has {tuple(ids.shape)} pixels (height, width), more than the {size} of the padded batch: "
                "give the network's outputs for the same images."
            )
        ids = F.pad(ids, (0, width - ids.shape[1], 0, height - ids.shape[0])).long()
        labels[b, :T] = target.labels.to(device, non_blocking=True)
        numbers = torch.arange(1, T + 1, device=device)[:, None, None]
        for y in (1, 2):
            for x in (1, 2):
                masks[b, :T] += (ids[y::GRID, x::GRID] == numbers) * 0.25
        semantic[b] = F.pad(labels[b, :T], (1, 0), value=IGNORE)[ids[::GRID, ::GRID]]
    return Truth(masks, labels, semantic, [len(target.labels) for target in targets])


@dataclass(frozen=True, slots=True)
class Counts:
    """What sums over segments are divided by: the numbers of the whole batch over the number of its parts.

    A batch is shared by processes, and each may go through its share in several parts. Divided in this way, the mean
    of the parts' losses is the loss of the whole batch, however it was shared. `segments` are those to find,
    `matched` those that get a kernel: in an image with more segments than kernels, only as many.
    """

    segments: float
    matched: float


def count_segments(targets: Sequence[Target], kernels: int, parts: int = 1) -> Counts:
    """The counts of a batch of which every process has `targets`, to be gone through in `parts` parts.

    The official code averages `segments` over processes too, but divides the mask and dice losses by the number of
    matches in each process alone, so that its loss depends on how many share the batch.
    """
    sizes = [len(target.labels) for target in targets]
    numbers = gather_numbers([sum(sizes), sum(min(size, kernels) for size in sizes)])
    segments, matched = (max(1, number) / (parts * len(numbers)) for number in numbers.sum(0).tolist())
    return Counts(segments, matched)


@dataclass(slots=True, kw_only=True)
class Criterion:
    """All losses of a training step, weighted; the loss to minimise is their plain sum.

    Keys: `s1_loss_mask`, `s1_loss_dice`, `s1_loss_rank` and so on for every stage (s1 = the initial masks), from the
    first stage with classes on also `s2_loss_cls`; `loss_seg` from the first output, if it has semantic logits (a
    network gives them in training only), and `loss_inst_disc`, unless its weight is 0.

    `stride` is that of the mask logits. `pixels` is the number of pixels an image that the instance discrimination
    compares with each other; its cost grows with the square. `match_pixels` limits the pixels that matching looks at,
    drawn for each image; None: all, as official.
    `invalid_costs` counts matching costs that were not finite since the criterion was made: a training loop should
    report it when it grows.
    """

    class_weight: float = 2.0
    mask_weight: float = 1.0
    dice_weight: float = 4.0
    rank_weight: float = 0.1
    semantic_weight: float = 1.0
    instance_weight: float = 1.0
    pixels: int = 4096
    match_pixels: int | None = None
    stride: int = 8
    invalid_costs: int = 0

    def __call__(
        self,
        outputs: Sequence[Output],
        targets: Sequence[Target],
        noise: Tensor | None = None,
        counts: Counts | None = None,
    ) -> dict[str, Tensor]:
        """S outputs, B targets -> weighted scalar losses in float32.

        `noise` (B, pixels of the grid) uniform in 0..1 decides which pixels are drawn; random when None. `counts` as
        of `count_segments`; without them the targets are the whole batch.
        """
        return self.compute(outputs, self.prepare(outputs, targets), noise, counts)

    def prepare(self, outputs: Sequence[Output], targets: Sequence[Target]) -> Truth:
        """The targets on the losses' grid and on the outputs' device; the outputs tell the padded size."""
        logits = outputs[0].mask_logits
        height, width = logits.shape[-2:]
        return prepare(targets, (height * self.stride, width * self.stride), logits.device)

    def match(self, outputs: Sequence[Output], truth: Truth) -> list[list[Match]]:
        """Which kernel is given which segment: [stage][image], on the CPU."""
        return self._match([_resize(o.mask_logits, truth) for o in outputs], outputs, truth, None)

    def compute(
        self, outputs: Sequence[Output], truth: Truth, noise: Tensor | None = None, counts: Counts | None = None
    ) -> dict[str, Tensor]:
        """The same losses from truth that is already on the grid; predictions are resized to that grid."""
        if counts is None:
            kernels = outputs[0].mask_logits.shape[1]
            matched = sum(min(count, kernels) for count in truth.counts)
            counts = Counts(max(1, sum(truth.counts)), max(1, matched))
        losses = self._auxiliary(outputs[0], truth, noise)
        resized = [_resize(output.mask_logits, truth) for output in outputs]
        matches = self._match(resized, outputs, truth, noise)
        for s, (output, logits, match) in enumerate(zip(outputs, resized, matches, strict=True), start=1):
            for name, loss in self._stage(output, logits, truth, match, counts).items():
                losses[f"s{s}_{name}"] = loss
        return losses

    def _match(
        self, resized: Sequence[Tensor], outputs: Sequence[Output], truth: Truth, noise: Tensor | None
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
        matches, invalid = assign(costs, truth.counts)
        self.invalid_costs += invalid
        return matches

    def _auxiliary(self, output: Output, truth: Truth, noise: Tensor | None) -> dict[str, Tensor]:
        losses = {}
        if output.semantic_logits is not None:
            semantic = semantic_loss(_resize(output.semantic_logits, truth), truth.semantic)
            losses["loss_seg"] = self.semantic_weight * semantic
        if self.instance_weight:  # the one loss whose cost is felt
            features = _resize(output.features, truth)
            instance = instance_discrimination_loss(features, truth.masks, noise, pixels=self.pixels)
            losses["loss_inst_disc"] = self.instance_weight * instance
        return losses

    def _stage(
        self, output: Output, logits: Tensor, truth: Truth, match: Sequence[Match], counts: Counts
    ) -> dict[str, Tensor]:
        """The losses of one stage. `logits` (B,N,h,w) are the output's mask logits on the grid."""
        image = torch.cat([torch.full_like(m.kernels, b) for b, m in enumerate(match)])
        flat = torch.stack([image, torch.cat([m.kernels for m in match]), torch.cat([m.segments for m in match])])
        image, kernel, segment = flat.to(logits.device, non_blocking=True)
        # Resizing the few matched masks again costs less than scattering their gradient into all masks of the grid.
        matched = _resize(output.mask_logits[image, kernel][:, None], truth)[:, 0]
        masks = truth.masks[image, segment]
        owner = _owners(kernel, masks, [len(m.kernels) for m in match], nobody=IGNORE)
        losses = {
            "loss_mask": self.mask_weight * mask_loss(matched, masks, counts.matched),
            "loss_dice": self.dice_weight * dice_loss(matched, masks, counts.matched),
            "loss_rank": self.rank_weight * rank_loss(logits, owner),
        }
        if output.class_logits is not None:
            wanted = torch.zeros_like(output.class_logits, dtype=torch.float32)
            wanted[image, kernel, truth.labels[image, segment]] = 1
            losses["loss_cls"] = self.class_weight * focal_loss(output.class_logits, wanted) / counts.segments
        return losses


def _owners(kernels: Tensor, masks: Tensor, counts: Sequence[int], nobody: int) -> Tensor:
    """Rank targets of a batch: the M kernels and masks of `counts[b]` matches an image -> (B,h,w) int64, see `owners`.

    The official code ignores the largest number in the batch instead of "nobody". Where segments cover every pixel of
    the batch, that is a real kernel, which then learns no rank: a slip not repeated here.
    """
    parts = zip(kernels.split(list(counts)), masks.split(list(counts)), strict=True)
    return torch.stack([owners(kernel, mask, nobody) for kernel, mask in parts])


def _resize(logits: Tensor, truth: Truth) -> Tensor:
    """(B,N,h,w) of any size -> (B,N,h,w) float32 on the losses' grid, bilinear."""
    return F.interpolate(logits.float(), truth.masks.shape[-2:], mode="bilinear", align_corners=False)


def _pick(maps: Tensor, places: Tensor) -> Tensor:
    """(B,N,h,w), (B,P) int64 pixels of each image -> (B,N,1,P)"""
    return maps.flatten(2).gather(2, places[:, None].expand(-1, maps.shape[1], -1))[:, :, None]
