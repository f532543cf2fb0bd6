"""The losses of video networks: those of the image model on two frames, and those of the embeddings that tell objects
apart (Video K-Net, Li et al., CVPR 2022, after QDTrack, Pang et al., CVPR 2021).

A pair is a key frame, linked to a reference frame near it, and that reference frame as a first frame. Where paper and
official code (github.com/lxtGH/Video-K-Net) differ, this follows the code. Shapes: B pairs, T segments of a key frame,
R objects found in the key frame, S in the reference frame, C channels, E of embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from knet.structures import Output, Target
from knet.training.criterion import Counts, Outputs, Targets
from knet.training.criterion_image import KNetCriterion
from knet.training.criterion_rtknet import Criterion
from knet.training.losses import in_float32, rank_loss
from knet.training.match import Match

_NEVER = -1e9  # a logit that no sum of exponentials notices


@dataclass(slots=True, kw_only=True)
class FrameCriterion(KNetCriterion):
    """The losses of one frame of `VideoKNet`, which differ from the image model's: a finer grid, cross entropy over the
    classes for the semantic branch, and no rank loss after the updates.
    """

    grid: int = 2
    stage_rank: bool = False
    floors: tuple[float, float] = (0.001, 0.01)

    def __call__(
        self,
        outputs: Outputs,
        targets: Targets,
        noise: Tensor | None = None,
        counts: Counts | None = None,
        held: Sequence[Match] | None = None,
    ) -> dict[str, Tensor]:
        """As `KNetCriterion`. `held` are things of each target that have their kernel beforehand, at every stage."""
        return self.compute(outputs, targets, counts, held)

    def semantic_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Softmax cross entropy. The mean runs over all pixels; those without a class count as zeros."""
        return rank_loss(logits, labels)


@dataclass(slots=True, kw_only=True)
class VideoCriterion:
    """All losses of a training step of a video network, weighted; the loss to minimise is their plain sum.

    Keys: those of `frame`, the losses of a single frame, for the key frame as they are and for the reference frame with
    `ref_` in front; `loss_track` and `loss_track_aux`. `frame` is a `FrameCriterion` for networks with kernels of stuff
    (`VideoKNet`), a `Criterion` for others (`RTVideoKNet`, unless it is given such kernels).

    `stuff` are the labels of classes that have no objects: they get no embeddings. With `across`, objects of the other
    pairs of a batch are others, too, if these are of other clips: so embeddings learn to tell an object from those that
    are never seen beside it (those that are in another part or process are not known).

    With `steady`, the kernel that an object has in the reference frame has it in the key frame, too, and only what
    remains is matched: so a kernel that is linked to itself learns to follow its object (as the track queries of
    TrackFormer do, Meinhardt et al., CVPR 2022). Official is without both.
    """

    frame: FrameCriterion | Criterion
    stuff: tuple[int, ...] = ()
    track_weight: float = 0.25
    similarity_weight: float = 1.0
    across: bool = False
    steady: bool = False

    def __call__(
        self,
        key_outputs: Outputs,
        reference_outputs: Outputs,
        key_targets: Targets,
        reference_targets: Targets,
        matches: Sequence[Tensor],
        clips: Sequence[int],
        noise: Tensor | None = None,
        counts: tuple[Counts, Counts] | None = None,
        *,
        embed: Callable[[Tensor], Tensor],
    ) -> dict[str, Tensor]:
        """Outputs and targets of B pairs -> weighted scalar losses in float32.

        Args:
            key_outputs: of the key frames, linked to the kernels of `reference_outputs[-1]`; not detached, as official.
            reference_outputs: of the reference frames, as first frames.
            key_targets, reference_targets: B targets each.
            matches: for each pair (T,) int64, the segment of the reference target that is the same object, or -1.
            clips: for each pair the number of its clip.
            noise: as of `Criterion`.
            counts: as of `count`; without them the targets are the whole batch.
            embed: (...,C) linked kernels -> (...,E), the network's `embed`.
        """
        key_counts, reference_counts = (None, None) if counts is None else counts
        before = self.objects(reference_outputs, reference_targets)
        held = [still_there(*each) for each in zip(before, matches, strict=True)] if self.steady else None
        losses = self.frame(key_outputs, key_targets, noise, key_counts, held)
        others = self.frame(reference_outputs, reference_targets, noise, reference_counts)
        losses |= {f"ref_{name}": loss for name, loss in others.items()}
        objects = self.objects(key_outputs, key_targets), before
        return losses | self.track_losses((key_outputs[-1], reference_outputs[-1]), objects, matches, clips, embed)

    @property
    def invalid_costs(self) -> int:
        """Matching costs that were not finite since the criterion was made."""
        return self.frame.invalid_costs

    def count(
        self, key_targets: Targets, reference_targets: Targets, kernels: int, parts: int = 1
    ) -> tuple[Counts, Counts]:
        """What the losses of the frames are divided by, see `frame.count`. Those of tracks are means over the pairs."""
        key, reference = (self.frame.count(targets, kernels, parts) for targets in (key_targets, reference_targets))
        return key, reference

    def track_losses(
        self,
        last: tuple[Output, Output],
        objects: tuple[Sequence[Match], Sequence[Match]],
        matches: Sequence[Tensor],
        clips: Sequence[int],
        embed: Callable[[Tensor], Tensor],
    ) -> dict[str, Tensor]:
        """The losses of embeddings, see `__call__`: of the kernels that the last outputs give to objects.

        last, objects: of the key frames, then of the reference frames; see `objects`.
        """
        keys, references = (_embed(output, found, embed) for output, found in zip(last, objects, strict=True))
        losses = []
        for place, (own, key, match) in enumerate(zip(keys, objects[0], matches, strict=True)):
            strangers = [other for other, clip in zip(references, clips, strict=True) if clip != clips[place]]
            other = torch.cat([references[place], *(strangers if self.across else ())])
            same = same_object(key, objects[1][place], match)
            same = F.pad(same, (0, len(other) - same.shape[1])).to(own.device)
            losses.append(torch.stack([association_loss(own, other, same), similarity_loss(own, other, same)]))
        association, similarity = torch.stack(losses).mean(0)
        return {"loss_track": self.track_weight * association, "loss_track_aux": self.similarity_weight * similarity}

    def objects(self, outputs: Outputs, targets: Targets) -> list[Match]:
        """Which kernel of the last output is given which object of its target, in each image; stuff is left out."""
        stuff = torch.tensor(self.stuff, dtype=torch.int64)

        def without_stuff(match: Match, target: Target) -> Match:
            kept = ~torch.isin(target.labels.cpu()[match.segments], stuff)
            return Match(match.kernels[kept], match.segments[kept])

        found = self.frame.last_match([_detached(output) for output in outputs], targets)
        return [without_stuff(match, target) for match, target in zip(found, targets, strict=True)]


def _detached(output: Output) -> Output:
    classes = None if output.class_logits is None else output.class_logits.detach()
    return Output(output.kernels, output.mask_logits.detach(), classes, output.features)


def _embed(output: Output, objects: Sequence[Match], embed: Callable[[Tensor], Tensor]) -> Sequence[Tensor]:
    """Embeddings of the objects of each image, (R,E) each. All go through the layers at once, also when there are none:
    then the layers still get a gradient, of zeros, which distributed training waits for.
    """
    assert output.linked is not None
    kernels = [linked[match.kernels.to(linked.device)] for linked, match in zip(output.linked, objects, strict=True)]
    return embed(torch.cat(kernels)).split([len(rows) for rows in kernels])


def still_there(before: Match, matches: Tensor) -> Match:
    """The objects of a reference frame that the key frame has, with the kernels they had. `matches` (T,) as above"""
    place, segments = (before.segments[:, None] == matches.cpu()).nonzero(as_tuple=True)
    return Match(before.kernels[place], segments)


def same_object(key: Match, reference: Match, matches: Tensor) -> Tensor:
    """Which objects found in the key frame are which of the reference frame's. `matches` as above -> (R,S) bool"""
    return matches.cpu()[key.segments][:, None] == reference.segments


@in_float32
def association_loss(key: Tensor, reference: Tensor, same: Tensor) -> Tensor:
    """An object should be nearer to itself in the other frame than to any other. (R,E), (S,E), (R,S) bool -> ()

    log(1 + sum over p, n of exp(s_n - s_p)) for every object in the key frame that the reference frame has too, where s
    are its dot products with all of that frame: p with the same object, n with others. The mean over such objects.
    """
    products = key @ reference.T
    found = same.any(1)
    if not same.numel() or not found.any():
        return products.sum() * 0
    others = products.masked_fill(same, _NEVER).logsumexp(1)
    itself = (-products).masked_fill(~same, _NEVER).logsumexp(1)
    return F.softplus(others + itself)[found].mean()


@in_float32
def similarity_loss(key: Tensor, reference: Tensor, same: Tensor, *, margin: float = 0.1, most: float = 3.0) -> Tensor:
    """Cosines should be 1 for the same object, at most `margin` for others. (R,E), (S,E), (R,S) bool -> ()

    Squared error, mean over pairs. Where there are more than `most` times as many pairs of others as of the same, only
    the worst of the others count.
    """
    cosines = F.normalize(key, dim=1) @ F.normalize(reference, dim=1).T
    errors = ((cosines - margin * ~same).clamp(0, 1) - same.to(cosines.dtype)).square()
    right, wrong = errors[same], errors[~same]
    if len(wrong) > most * (len(right) + 1):
        wrong = wrong.topk(int(most * len(right))).values
    return (right.sum() + wrong.sum()) / max(1, len(right) + len(wrong))
