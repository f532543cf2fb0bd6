"""The losses of video networks: those of the image model on two frames, and those of the embeddings by which objects
are recognised (Video K-Net, Li et al., CVPR 2022, after QDTrack, Pang et al., CVPR 2021).

A pair is a key frame and a reference frame near it. The network sees the reference frame as a clip's first frame, and
the key frame linked to it. Where paper and official code (github.com/lxtGH/Video-K-Net) differ, this follows the code.
Shapes: B pairs, T segments of a key frame, R objects found in the key frame, S in the reference frame, C channels, E of
embeddings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from knet.structures import Output
from knet.training.criterion import Counts, Outputs, Targets
from knet.training.criterion_image import KNetCriterion
from knet.training.criterion_rtknet import Criterion
from knet.training.losses import in_float32, rank_loss
from knet.training.match import Match

_NEVER = -1e9  # a logit that adds nothing to a sum of exponentials


@dataclass(slots=True, kw_only=True)
class FrameCriterion(KNetCriterion):
    """The losses of one frame of `VideoKNet`. Unlike the image model's they have a finer grid, cross entropy over the
    classes for the semantic branch, and no rank loss after the updates.
    """

    grid: int = 2
    stage_rank: bool = False
    floors: tuple[float, float] = (0.001, 0.01)

    def semantic_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Softmax cross entropy, mean over all pixels; those without a class count as zeros."""
        return rank_loss(logits, labels)


@dataclass(slots=True, kw_only=True)
class VideoCriterion:
    """All losses of a training step of a video network, weighted; the loss to minimise is their plain sum.

    Keys: those of `frame`, for the key frame as they are and for the reference frame with the prefix `ref_`;
    `loss_track` and `loss_track_aux`. The official code has neither `across` nor `steady`.

    With `across` an object is also contrasted with the objects of the batch's other clips, so that embeddings learn to
    distinguish it from objects never seen beside it; other parts and processes do not take part. With `steady` an
    object keeps in the key frame the kernel it had in the reference frame, and only the rest is matched. So a kernel
    that is linked to itself learns to follow its object, like the track queries of TrackFormer (Meinhardt et al., CVPR
    2022).
    """

    frame: FrameCriterion | Criterion  # the former for networks with kernels of stuff
    stuff: tuple[int, ...] = ()  # labels of classes without objects, which get no embeddings
    track_weight: float = 0.25
    similarity_weight: float = 1.0  # of `loss_track_aux`
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
            key_outputs: of the key frames, linked to the kernels of `reference_outputs[-1]`, which are not detached, as
                in the official code.
            reference_outputs: of the reference frames, as first frames.
            matches: for each pair (T,) int64, the segment of the reference target that is the same object, or -1.
            clips: the number of each pair's clip.
            counts: as from `count`; without them the targets are the whole batch.
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
        """How many matching costs were not finite since the criterion was made."""
        return self.frame.invalid_costs

    def count(
        self, key_targets: Targets, reference_targets: Targets, kernels: int, parts: int = 1
    ) -> tuple[Counts, Counts]:
        """What the frames' losses are divided by, see `frame.count`; the losses of tracks are means over the pairs."""
        return self.frame.count(key_targets, kernels, parts), self.frame.count(reference_targets, kernels, parts)

    def track_losses(
        self,
        last: tuple[Output, Output],
        objects: tuple[Sequence[Match], Sequence[Match]],
        matches: Sequence[Tensor],
        clips: Sequence[int],
        embed: Callable[[Tensor], Tensor],
    ) -> dict[str, Tensor]:
        """The losses of the embeddings of matched kernels, from the last outputs of both frames and their `objects`."""
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
        """Which kernel of the last output is matched to which object of its target, for each image, without stuff."""
        stuff, objects = torch.tensor(self.stuff, dtype=torch.int64), []
        found = self.frame.last_match([_detached(output) for output in outputs], targets)
        for match, target in zip(found, targets, strict=True):
            kept = ~torch.isin(target.labels.cpu()[match.segments], stuff)
            objects.append(Match(match.kernels[kept], match.segments[kept]))
        return objects


def _detached(output: Output) -> Output:
    classes = None if output.class_logits is None else output.class_logits.detach()
    return Output(output.kernels, output.mask_logits.detach(), classes, output.features)


def _embed(output: Output, objects: Sequence[Match], embed: Callable[[Tensor], Tensor]) -> Sequence[Tensor]:
    """Embeddings of the objects of each image, (R,E) each. All pass the layers at once, even if there are none: the
    layers then get a gradient of zeros, for which distributed training waits.
    """
    assert output.linked is not None
    kernels = [linked[match.kernels.to(linked.device)] for linked, match in zip(output.linked, objects, strict=True)]
    return embed(torch.cat(kernels)).split([len(rows) for rows in kernels])


def still_there(before: Match, matches: Tensor) -> Match:
    """The objects of a key frame that the reference frame has too, with their kernels there. `matches` (T,) as above"""
    place, segments = (before.segments[:, None] == matches.cpu()).nonzero(as_tuple=True)
    return Match(before.kernels[place], segments)


def same_object(key: Match, reference: Match, matches: Tensor) -> Tensor:
    """Which objects found in the key frame are which found in the reference frame. `matches` as above -> (R,S) bool"""
    return matches.cpu()[key.segments][:, None] == reference.segments


@in_float32
def association_loss(key: Tensor, reference: Tensor, same: Tensor) -> Tensor:
    """An object should be closer to itself in the other frame than to any other. (R,E), (S,E), (R,S) bool -> ()

    The mean, over the objects of the key frame that the reference frame has too, of log(1 + sum over p, n of
    exp(s_n - s_p)), where s_p are an object's dot products with itself in the reference frame, s_n with all others.
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

    Squared error, mean over all combinations. If more than `most` times as many are of different objects as of the
    same, only the worst of the different ones count.
    """
    cosines = F.normalize(key, dim=1) @ F.normalize(reference, dim=1).T
    errors = ((cosines - margin * ~same).clamp(0, 1) - same.to(cosines.dtype)).square()
    right, wrong = errors[same], errors[~same]
    if len(wrong) > most * (len(right) + 1):
        wrong = wrong.topk(int(most * len(right))).values
    return (right.sum() + wrong.sum()) / max(1, len(right) + len(wrong))
