"""From a network's outputs and their targets to the losses of RT-K-Net (Eqs. 6, 12).

    targets --prepare--> truth on the losses' grid --match--> kernel <-> segment --compute--> {"s1_loss_mask": ..., ...}

Each stage is matched separately, with all segments of an image. The losses' grid is a quarter of the padded image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from knet.structures import Output
from knet.training.criterion import (
    Counts,
    MaskCriterion,
    Outputs,
    Targets,
    Truth,
    hide_classes,
    join_matches,
    owned,
    share_counts,
)
from knet.training.losses import instance_discrimination_loss, rank_loss, semantic_loss
from knet.training.match import Held, Match, assign, matching_cost, owners


@dataclass(slots=True, kw_only=True)
class Criterion(MaskCriterion):
    """All losses of a training step of RT-K-Net, weighted; the loss to minimise is their plain sum.

    Keys: `s1_loss_mask`, `s1_loss_dice`, `s1_loss_rank` and so on for every stage (s1 = the initial masks), from the
    first stage with classes on also `s2_loss_cls`; `loss_seg` from the first output, if it has semantic logits (a
    network gives them in training only), and `loss_inst_disc`, unless its weight is 0.
    """

    instance_weight: float = 1.0
    pixels: int = 4096  # of an image that the instance discrimination compares; its cost grows with the square
    match_pixels: int | None = None  # drawn for each image for matching; None takes all, as in the official code

    def __call__(
        self,
        outputs: Outputs,
        targets: Targets,
        noise: Tensor | None = None,
        counts: Counts | None = None,
        held: Held = None,
    ) -> dict[str, Tensor]:
        """S outputs, the initial masks first, B targets -> weighted scalar losses in float32.

        Without `counts`, see `count`, the targets are the whole batch. `held` are segments of each target whose kernel
        is fixed beforehand, at every stage. `noise` (B, pixels of the grid), uniform in 0..1, decides which pixels are
        drawn; random if None.
        """
        return self.compute(outputs, self.prepare(outputs, targets), noise, counts, held)

    def count(self, targets: Targets, kernels: int, parts: int = 1) -> Counts:
        """What the losses of a batch are divided by; `targets` are the share of this process.

        `segments` counts all segments, `matched` those that get one of `kernels`. The official code averages `segments`
        over processes too, but divides the mask and dice losses by the number of matches in each process alone, so its
        loss depends on how many processes share the batch.
        """
        return _counts([len(target.labels) for target in targets], kernels, parts)

    def last_match(self, outputs: Outputs, targets: Targets) -> list[Match]:
        """Which kernel of the last output is matched to which segment of its target, for each image."""
        return self.match(outputs[-1:], self.prepare(outputs, targets))[0]

    def match(self, outputs: Outputs, truth: Truth) -> list[list[Match]]:
        """Which kernel is matched to which segment: [stage][image], on the CPU."""
        return self._match([truth.hide(truth.resize(output.mask_logits)) for output in outputs], outputs, truth, None)

    def compute(
        self,
        outputs: Outputs,
        truth: Truth,
        noise: Tensor | None = None,
        counts: Counts | None = None,
        held: Held = None,
    ) -> dict[str, Tensor]:
        """The same losses from truth that is already on the grid, to which predictions are resized."""
        counts = _counts(truth.counts, outputs[0].mask_logits.shape[1]) if counts is None else counts
        losses = self._auxiliary(outputs[0], truth, noise)
        resized = [truth.hide(truth.resize(output.mask_logits)) for output in outputs]
        matches = self._match(resized, outputs, truth, noise, held)
        for s, (output, logits, match) in enumerate(zip(outputs, resized, matches, strict=True), start=1):
            stage = self._stage(output, logits, truth, match, counts)
            losses |= {f"s{s}_{name}": loss for name, loss in stage.items()}
        return losses

    def _match(
        self, resized: Sequence[Tensor], outputs: Outputs, truth: Truth, noise: Tensor | None, held: Held = None
    ) -> list[list[Match]]:
        masks, logits = truth.masks, [one.detach() for one in resized]
        if self.match_pixels is not None and self.match_pixels < masks.shape[-2] * masks.shape[-1]:
            noise = torch.rand(len(masks), masks.shape[-2] * masks.shape[-1]) if noise is None else noise
            places = noise.to(masks.device).topk(self.match_pixels, dim=1).indices
            masks, *logits = (_pick(each, places) for each in (masks, *logits))
        stages = zip(logits, outputs, strict=True)
        costs = [matching_cost(one, output.class_logits, masks, truth.labels) for one, output in stages]
        matches, invalid = assign(costs, truth.counts, held)
        self.invalid_costs += invalid
        return matches

    def _auxiliary(self, output: Output, truth: Truth, noise: Tensor | None) -> dict[str, Tensor]:
        losses = {}
        if output.semantic_logits is not None:
            logits = hide_classes(truth.resize(output.semantic_logits), truth.unlabelled)
            semantic = semantic_loss(logits, truth.semantic)
            losses["loss_seg"] = self.semantic_weight * semantic
        if self.instance_weight:  # the only loss that takes noticeable time
            features = truth.resize(output.features)
            if truth.ignored is not None:
                features = features.masked_fill(truth.ignored[:, None], 0)
            instance = instance_discrimination_loss(features, truth.masks, noise, pixels=self.pixels)
            losses["loss_inst_disc"] = self.instance_weight * instance
        return losses

    def _stage(
        self, output: Output, logits: Tensor, truth: Truth, match: Sequence[Match], counts: Counts
    ) -> dict[str, Tensor]:
        """The losses of one stage. `logits` (B,N,h,w) are the output's mask logits on the grid."""
        matched = join_matches(match, logits.device)
        # The official code ignores the largest owner in the batch instead of "nobody". Where segments cover all pixels
        # of the batch, that is a real kernel, which then learns no rank: a slip that is not repeated here.
        owner = owned(owners, matched.kernel, truth, matched)
        losses = self.mask_losses(output, truth, matched, counts.matched)
        losses["loss_rank"] = self.rank_weight * rank_loss(logits, owner)
        if output.class_logits is not None:
            losses["loss_cls"] = self.class_loss(output, truth, matched, counts.segments)
        return losses


def _counts(sizes: Sequence[int], kernels: int, parts: int = 1) -> Counts:
    return share_counts(sum(sizes), sum(min(size, kernels) for size in sizes), parts)


def _pick(maps: Tensor, places: Tensor) -> Tensor:
    """(B,N,h,w), (B,P) int64 pixels of each image -> (B,N,1,P)"""
    return maps.flatten(2).gather(2, places[:, None].expand(-1, maps.shape[1], -1))[:, :, None]
