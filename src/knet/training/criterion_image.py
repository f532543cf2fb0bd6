"""The losses of K-Net for images: panoptic and instance segmentation (Zhang et al., NeurIPS 2021, section 3.3).

Things are matched with the learned kernels by the masks that *enter* a stage, not by those that it makes, so the stage
learns what to make of the kernels it gets. Stuff is not matched: each of its kernels stands for one class from the
start. Where paper and official code (github.com/ZwwWayne/K-Net) differ, this follows the code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from knet.distributed import mean_over_processes, world
from knet.structures import Output
from knet.training.criterion import (
    Counts,
    MaskCriterion,
    Matched,
    Outputs,
    Targets,
    Truth,
    hide_classes,
    join_matches,
    owned,
    share_counts,
)
from knet.training.losses import IGNORE, focal_loss, rank_loss
from knet.training.match import Held, Match, assign, last_owners, matching_cost


@dataclass(slots=True)
class Split:
    """A batch's truth for K-Net, things and stuff apart.

    `truth` has T columns for things, of which an image uses the first `counts`; then one for each of the S stuff
    classes, empty where an image lacks the class.
    """

    truth: Truth
    numbers: list[Tensor]  # for each image, which segments of its target are things, ascending
    present: list[Tensor]  # for each image, which of the S stuff classes it has
    things: int  # T

    def joined(self, match: Sequence[Match], kernels: int, stuff_first: bool) -> list[Match]:
        """The matches of things, and those of each stuff class in an image with the kernel that stands for it."""
        joined = []
        for things, stuff in zip(match, self.present, strict=True):
            both = [things, Match(kernels + stuff, self.things + stuff)]
            both = both[::-1] if stuff_first else both
            joined.append(Match(*(torch.cat(numbers) for numbers in zip(*both, strict=True))))
        return joined


@dataclass(slots=True, kw_only=True)
class KNetCriterion(MaskCriterion):
    """All losses of a training step of `KNet`, weighted; the loss to minimise is their plain sum.

    Keys: `loss_seg` of the semantic branch; `s1_loss_mask` and `s1_loss_dice` of the initial masks; `s2_loss_mask`,
    `s2_loss_dice`, `s2_loss_cls` and so on for every update; with stuff also `s1_loss_rank` and so on.

    Void and padding belong to no segment: every mask learns to be empty there, except where targets say -1.

    All segments of a class of stuff count as one.
    """

    stuff: tuple[int, ...] = ()  # labels in the order of the network's kernels
    stage_rank: bool = True  # whether kernels compete for pixels after their updates, too
    floors: tuple[float, float] = (0.0, 0.0)  # see `matching_cost`

    def __call__(
        self,
        outputs: Outputs,
        targets: Targets,
        noise: Tensor | None = None,
        counts: Counts | None = None,
        held: Held = None,
    ) -> dict[str, Tensor]:
        """S outputs, the initial masks first, B targets -> weighted scalar losses in float32.

        Without `counts`, see `count`, the targets are the whole batch. `held` are things of each target whose kernel is
        fixed beforehand, at every stage. `noise` is not used, as nothing is drawn.
        """
        split, kernels = self.split(self.prepare(outputs, targets)), outputs[0].mask_logits.shape[1]
        counts = self.count(targets, kernels) if counts is None else counts
        matches = self.match(outputs, split, held)
        losses = self._initial(outputs[0], split, matches[0], counts)
        for s, (output, match) in enumerate(zip(outputs[1:], matches, strict=True), start=2):
            matched = join_matches(split.joined(match, kernels, stuff_first=False), output.mask_logits.device)
            stage = self._masks(output, split.truth, matched, counts.segments, self.stage_rank)
            assert output.class_logits is not None
            learned = self._learned(output.class_logits, kernels)
            stage["loss_cls"] = self.class_loss(output, split.truth, matched, counts.segments, learned)
            losses |= {f"s{s}_{name}": loss for name, loss in stage.items()}
        return losses

    def count(self, targets: Targets, kernels: int, parts: int = 1) -> Counts:
        """What the losses of a batch are divided by; `targets` are the share of this process.

        `matched` counts the things that get one of `kernels`, `segments` also the stuff classes in the images. The
        official code takes the mean over processes for class losses alone.
        """
        stuff, things, present = set(self.stuff), 0, 0
        for target in targets:
            labels = target.labels.tolist()
            things += min(sum(label not in stuff for label in labels), kernels)
            present += len(stuff & set(labels))
        return share_counts(things + present, things, parts)

    def split(self, truth: Truth) -> Split:
        """Things and stuff apart."""
        place = {label: number for number, label in enumerate(self.stuff)}
        rows = [labels[:count] for labels, count in zip(truth.labels.tolist(), truth.counts, strict=True)]
        things = [[t for t, label in enumerate(row) if label not in place] for row in rows]
        counts = [len(numbers) for numbers in things]
        columns = max(counts, default=0)
        masks = truth.masks.new_zeros(len(rows), columns + len(place), *truth.masks.shape[2:])
        labels = F.pad(truth.labels.new_tensor(self.stuff), (columns, 0)).repeat(len(rows), 1)
        for b, (row, numbers) in enumerate(zip(rows, things, strict=True)):
            masks[b, : len(numbers)] = truth.masks[b, numbers]
            labels[b, : len(numbers)] = truth.labels[b, numbers]
            for t, label in enumerate(row):
                if label in place:
                    masks[b, columns + place[label]] += truth.masks[b, t]
        present = [torch.tensor(sorted({place[x] for x in row if x in place}), dtype=torch.int64) for row in rows]
        own = [torch.tensor(numbers, dtype=torch.int64) for numbers in things]
        return Split(
            Truth(masks, labels, truth.semantic, counts, truth.ignored, truth.unlabelled), own, present, columns
        )

    def match(self, outputs: Outputs, split: Split, held: Held = None) -> list[list[Match]]:
        """Which kernel is matched to which thing by each output but the last: [output][image], on the CPU."""
        return self._match(outputs[:-1], split, outputs[0].mask_logits.shape[1], held)

    def last_match(self, outputs: Outputs, targets: Targets) -> list[Match]:
        """Which kernel of the last output is matched to which thing of its target, for each image."""
        split = self.split(self.prepare(outputs, targets))
        matches = self._match(outputs[-1:], split, outputs[0].mask_logits.shape[1])[0]
        return [Match(match.kernels, own[match.segments]) for match, own in zip(matches, split.numbers, strict=True)]

    def _match(self, outputs: Outputs, split: Split, kernels: int, held: Held = None) -> list[list[Match]]:
        """Matches the first `kernels` kernels by each output."""
        truth, things = split.truth, split.things
        costs = []
        for output in outputs:
            logits = truth.hide(truth.resize(output.mask_logits[:, :kernels].detach()))
            classes = None if output.class_logits is None else output.class_logits[:, :kernels]
            masks, labels = truth.masks[:, :things], truth.labels[:, :things]
            costs.append(matching_cost(logits, classes, masks, labels, self.floors))
        if held is not None:
            places = (torch.searchsorted(own, one.segments) for own, one in zip(split.numbers, held, strict=True))
            held = [Match(one.kernels, place) for one, place in zip(held, places, strict=True)]
        matches, invalid = assign(costs, truth.counts, held)
        self.invalid_costs += invalid
        return matches

    def _initial(self, output: Output, split: Split, match: Sequence[Match], counts: Counts) -> dict[str, Tensor]:
        """The losses of the initial masks, none of which is of stuff, and of the semantic branch."""
        device = output.mask_logits.device
        losses = {}
        if output.semantic_logits is not None:
            # Things come last, so they own the pixels that they share with stuff.
            matched = join_matches(split.joined(match, output.mask_logits.shape[1], stuff_first=True), device)
            labels = owned(last_owners, split.truth.labels[matched.image, matched.segment], split.truth, matched)
            logits = split.truth.hide(split.truth.resize(output.semantic_logits))
            logits = hide_classes(logits, split.truth.unlabelled)
            losses["loss_seg"] = self.semantic_weight * self.semantic_loss(logits, labels)
        own = self._masks(output, split.truth, join_matches(match, device), counts.matched, rank=True)
        return losses | {f"s1_{name}": loss for name, loss in own.items()}

    def semantic_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The semantic branch's focal loss, unweighted, all classes at all pixels. (B,K,h,w), (B,h,w) int64 -> ()

        A pixel without a class (IGNORE) learns to be none of them. The sum is divided by the mean over processes of the
        number of pixels with a class, so that the mean of the processes' values is the loss of the whole batch. (In the
        official code each process divides by its own number.)
        """
        K = logits.shape[1]
        wanted = torch.zeros(len(logits), K + 1, *logits.shape[2:], device=logits.device)
        wanted.scatter_(1, torch.where(labels == IGNORE, K, labels)[:, None], 1)
        labelled = mean_over_processes((labels != IGNORE).sum().float())
        return focal_loss(logits, wanted[:, :K]) / labelled.clamp(min=1 / world())

    def _masks(self, output: Output, truth: Truth, matched: Matched, count: float, rank: bool) -> dict[str, Tensor]:
        losses = self.mask_losses(output, truth, matched, count)
        if rank and self.stuff:
            owner = owned(last_owners, matched.kernel, truth, matched)
            losses["loss_rank"] = self.rank_weight * rank_loss(truth.resize(output.mask_logits), owner)
        return losses

    def _learned(self, class_logits: Tensor, kernels: int) -> Tensor:
        """Which classes each kernel learns: thing kernels all things, a stuff kernel its own class. -> (N,K) bool"""
        learned = torch.zeros(class_logits.shape[1:], dtype=torch.bool)
        learned[:kernels] = True
        learned[:kernels, list(self.stuff)] = False
        learned[range(kernels, len(learned)), list(self.stuff)] = True
        return learned.to(class_logits.device)
