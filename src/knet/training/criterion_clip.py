"""The losses of Video K-Net for clips: K-Net's losses for each frame, and for the clip those of masks over all frames.

They follow the official code (github.com/lxtGH/Video-K-Net, `knet_vis`); no paper describes them. The stages of a frame
are matched by the masks that enter them, separately for each frame. The stages of the clip are matched by the masks
that they make, over all frames at once, so that a kernel becomes one object; the last of them, which predicts no
classes, keeps the matches of the one before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from knet.errors import DataError
from knet.models.clip import is_clip
from knet.structures import Target
from knet.training.criterion import Counts, Outputs, Targets, Truth, join_matches, share_counts
from knet.training.criterion_image import KNetCriterion
from knet.training.match import Match, assign, matching_cost


@dataclass(slots=True, kw_only=True)
class ClipCriterion(KNetCriterion):
    """All losses of a training step of `ClipKNet`, weighted; the loss to minimise is their plain sum.

    Keys: those of `KNetCriterion` for the frames; `clip1_loss_mask`, `clip1_loss_dice`, `clip1_loss_cls` and so on for
    every clip stage, the last one without classes.

    There is one target for each frame, and the targets of a clip follow each other. They have the same `labels`, so
    that a number means the same object in the whole clip; an object without pixels is not in that frame.
    """

    frames: int = 5  # of a clip

    def __call__(  # type: ignore[override]  # no object of a clip is held
        self, outputs: Outputs, targets: Targets, noise: Tensor | None = None, counts: Counts | None = None
    ) -> dict[str, Tensor]:
        """S outputs, B x T targets -> weighted scalar losses in float32. `counts` as from `count`."""
        of_frames = [output for output in outputs if not is_clip(output)]
        of_clips = [output for output in outputs if is_clip(output)]
        kernels = of_frames[0].mask_logits.shape[1]
        if (seen := of_clips[0].mask_logits.shape[2]) != self.frames:
            raise DataError(f"The network saw clips of {seen} frames, the losses are for {self.frames}; give as many.")
        visible = [present(target) for target in targets]
        counts = self.count(targets, kernels) if counts is None else counts
        frame_counts = Counts(counts.segments, counts.segments)
        losses = KNetCriterion.__call__(self, of_frames, visible, None, frame_counts)
        truth = self.tubes(of_frames, targets)
        for s, (output, match) in enumerate(zip(of_clips, self.match_clips(of_clips, truth), strict=True), start=1):
            matched = join_matches(match, output.mask_logits.device)
            stage = self.mask_losses(output, truth, matched, counts.matched)
            if output.class_logits is not None:
                stage["loss_cls"] = self.class_loss(output, truth, matched, counts.matched)
            losses |= {f"clip{s}_{name}": loss for name, loss in stage.items()}
        return losses

    def count(self, targets: Targets, kernels: int, parts: int = 1) -> Counts:
        """What the losses of a batch are divided by; `targets` are the share of this process.

        `segments` counts the objects of single frames that get one of `kernels`, `matched` those of clips.
        """
        visible = [present(target) for target in targets]
        return share_counts(_matched(visible, kernels), _matched(self._firsts(targets), kernels), parts)

    def tubes(self, outputs: Outputs, targets: Targets) -> Truth:
        """The truth of whole clips on the losses' grid: `masks` (B,O,T,h,w), `labels` (B,O), `counts` of B clips."""
        firsts = self._firsts(targets)
        whole = self.prepare(outputs, targets)
        masks = whole.masks.unflatten(0, (-1, self.frames)).transpose(1, 2)
        ignored = None if whole.ignored is None else whole.ignored.unflatten(0, (-1, self.frames))
        counts = [len(first.labels) for first in firsts]
        return Truth(
            masks, whole.labels[:: self.frames], whole.semantic, counts, ignored, whole.unlabelled[:: self.frames]
        )

    def match_clips(self, outputs: Outputs, truth: Truth) -> list[list[Match]]:
        """Which kernel is matched to which object: [clip stage][clip], on the CPU. Truth as from `tubes`."""
        costs = []
        for output in outputs:
            if output.class_logits is not None:
                logits = output.mask_logits.detach()
                tubes = truth.hide(truth.resize(logits.flatten(0, 1)).unflatten(0, logits.shape[:2]))  # frame by frame
                costs.append(matching_cost(tubes, output.class_logits, truth.masks, truth.labels, (0.0, 0.0)))
        matches, invalid = assign(costs, truth.counts)
        self.invalid_costs += invalid
        return matches + matches[-1:] * (len(outputs) - len(matches))

    def _firsts(self, targets: Targets) -> list[Target]:
        """The first frame's target of each clip."""
        if len(targets) % self.frames:
            raise DataError(f"{len(targets)} targets are no whole number of clips of {self.frames} frames each.")
        firsts = [targets[number - number % self.frames] for number in range(len(targets))]
        for number, (target, first) in enumerate(zip(targets, firsts, strict=True)):
            if not torch.equal(target.labels, first.labels):
                raise DataError(
                    f"Target {number} has other labels than the first of its clip; give all {self.frames} frames of a "
                    "clip the labels of all its objects, also of those that are not in the frame."
                )
        return firsts[:: self.frames]


def present(target: Target) -> Target:
    """The target of a frame without the objects that have no pixel in it; the others are renumbered."""
    ids = target.id_map.long()
    numbers = ids.unique()
    numbers = numbers[numbers > 0]
    places = torch.zeros(len(target.labels) + 1, dtype=target.id_map.dtype, device=ids.device)
    places[numbers] = torch.arange(1, len(numbers) + 1, dtype=places.dtype, device=ids.device)
    labels = target.labels[numbers.to(target.labels.device) - 1]
    return Target(torch.where(ids < 0, -1, places[ids]), labels, target.unlabelled)


def _matched(targets: Sequence[Target], kernels: int) -> int:
    """How many of the objects get a kernel."""
    return sum(min(len(target.labels), kernels) for target in targets)
