"""From a feature map to segments: initial kernels, then stage after stage."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from knet.errors import ConfigError
from knet.models.kernels import Interaction, LinkedStage, Pooling, Stage, group_features, predict_masks
from knet.structures import Output


def refine(
    stages: Iterable[nn.Module], features: Tensor, kernels: Tensor, mask_logits: Tensor, previous: Tensor | None = None
) -> list[Output]:
    """The loop over stages. (B,C,H,W), (B,N,C), (B,N,H,W) that enter the first stage -> one Output a stage

    `previous` (B,N,C), the kernels of the frame before, reaches linked stages only.
    """
    outputs = []
    for stage in stages:
        memory = (previous,) if isinstance(stage, LinkedStage) else ()
        kernels, mask_logits, class_logits, seen, *linked = stage(features, kernels, mask_logits, *memory)
        outputs.append(Output(kernels, mask_logits, class_logits, seen, linked=linked[0] if linked else None))
    return outputs


def stuff_labels(stuff: Sequence[int], classes: int) -> list[int]:
    """The labels of classes that have kernels of their own, as a list, if they are among the classes."""
    if not set(stuff) <= set(range(classes)):
        raise ConfigError(
            f"The stuff labels {list(stuff)} are not all among the {classes} classes; give stuff= the labels "
            f"(0 to {classes - 1}) of the classes that are not countable, () for none."
        )
    return list(stuff)


def class_kernels(classifier: nn.Module, logits: Tensor, labels: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Makes kernels of the weights of a 1x1 classifier. (B,K,H,W) its logits, M labels -> (B,M,C), (B,M,H,W) logits"""
    weights: Tensor = classifier.weight  # type: ignore[assignment]
    # Slices: a list of indices would be copied to the device in each pass, which no recorded graph may do.
    runs = [slice(first, last + 1) for first, last in _runs(labels)]
    kernels, masks = [weights.flatten(1)[run] for run in runs], [logits[:, run] for run in runs]
    return torch.cat(kernels).expand(len(logits), -1, -1), torch.cat(masks, dim=1)


def _runs(labels: Sequence[int]) -> list[tuple[int, int]]:
    """The first and the last of each run of consecutive numbers."""
    starts = [n for n, label in enumerate(labels) if not n or label != labels[n - 1] + 1]
    ends = [*(start - 1 for start in starts[1:]), len(labels) - 1]
    return [(labels[start], labels[end]) for start, end in zip(starts, ends, strict=True)]


class PriorLink(nn.Module):
    """Kernels that have their group features attend to those of the frame before. (B,N,C), (B,N,C) -> (B,N,C)

    The result passes a gate that is closed at first, so that the video model starts as the trained image model.
    `exact` as in `AdaptiveUpdate`: the kernels hold their group features.
    """

    def __init__(self, channels: int, hidden: int = 2048, exact: bool = False):
        super().__init__()
        self.exact = exact
        self.interaction = Interaction(channels, hidden=hidden)
        self.gate = nn.Parameter(torch.zeros(channels))

    def forward(self, kernels: Tensor, previous: Tensor) -> Tensor:
        if not self.exact:
            return kernels + self.gate * self.interaction(kernels, previous)
        with torch.autocast(kernels.device.type, enabled=False):
            kernels = kernels.float()
            return kernels + self.gate * self.interaction(kernels, previous.float())


class KernelDecoder(nn.Module):
    """Learned initial kernels and their refinement: one Output for the initial masks and one a stage.

    The kernels that enter the first stage are the learned ones plus the group features of the initial masks: no paper
    mentions this, but all official code does it. Video networks link the kernels to the frame before in front of the
    stages. Their `carry` (B,N,C) -> (B,N,C) adds a function of the previous kernels to the learned ones, before the
    initial masks, so that kernel n can follow an object; their `link` is a `PriorLink`.

    `kernels` is N, the largest number of segments in an image, `stages` the number of kernel updates; for the other
    arguments see `Stage`.
    """

    def __init__(
        self,
        channels: int = 256,
        kernels: int = 100,
        classes: int = 19,
        stages: int = 4,
        pooling: Pooling = "mean",
        transform: bool = False,
        hidden: int = 2048,
    ):
        super().__init__()
        self.pooling: Pooling = pooling
        self.carry: nn.Module | None = None
        self.link: PriorLink | None = None
        # The standard deviation is that of a 1x1 convolution under Kaiming's "fan out" rule, as the originals store it.
        self.kernels = nn.Parameter(torch.randn(kernels, channels) * math.sqrt(2 / kernels))
        self.stages = nn.ModuleList(Stage(channels, classes, pooling, transform, hidden) for _ in range(stages))

    def forward(
        self,
        features: Tensor,
        localization: Tensor | None = None,
        fixed: tuple[Tensor, Tensor] | None = None,
        previous: Tensor | None = None,
    ) -> list[Output]:
        """Segments a feature map.

        Args:
            features: (B,C,H,W), what kernels gather and are refined on.
            localization: (B,C,H,W), the map that the initial masks are predicted from, where it is not `features`.
            fixed: kernels (B,M,C) and mask logits (B,M,H,W) that join the learned ones before the first stage (K-Net's
                stuff). The first Output does not hold them; the stages' have N + M kernels, these last.
            previous: kernels (B,N+M,C) that the last stage gave for the frame before, None for single images.
        """
        localization = features if localization is None else localization
        kernels = self.kernels.expand(features.shape[0], -1, -1)
        if previous is not None and self.carry is not None:
            kernels = kernels + self.carry(previous[:, : kernels.shape[1]])
        mask_logits = predict_masks(kernels, localization)
        kernels = kernels + group_features(mask_logits, features, self.pooling)
        if previous is not None and self.link is not None:
            kernels = self.link(kernels, previous)
        initial = Output(kernels, mask_logits, None, localization)
        if fixed is not None:
            kernels, mask_logits = torch.cat((kernels, fixed[0]), dim=1), torch.cat((mask_logits, fixed[1]), dim=1)
        return [initial, *refine(self.stages, features, kernels, mask_logits, previous)]
