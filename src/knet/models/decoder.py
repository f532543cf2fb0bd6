"""From a feature map to segments: initial kernels, then one refinement after the other."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from knet.models.kernels import Pooling, Stage, group_features, predict_masks
from knet.structures import Output


def refine(stages: Iterable[nn.Module], features: Tensor, kernels: Tensor, mask_logits: Tensor) -> list[Output]:
    """The loop over stages. (B,C,H,W), (B,N,C), (B,N,H,W) that enter the first stage -> one Output a stage"""
    outputs = []
    for stage in stages:
        kernels, mask_logits, class_logits, seen = stage(features, kernels, mask_logits)
        outputs.append(Output(kernels, mask_logits, class_logits, seen))
    return outputs


class KernelDecoder(nn.Module):
    """Learned initial kernels and their refinement: one Output for the initial masks and one a stage.

    The kernels that enter the first stage are the learned ones plus the group features of the initial masks: no
    paper says so, all official code does it.

    Args:
        channels: C, of kernels and features.
        kernels: N, the largest number of segments in an image.
        classes: K.
        stages: number of kernel updates.
        pooling, transform, hidden: see `Stage`.
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
        # The standard deviation is that of a 1x1 convolution under Kaiming's "fan out" rule, as the originals store it.
        self.kernels = nn.Parameter(torch.randn(kernels, channels) * math.sqrt(2 / kernels))
        self.stages = nn.ModuleList(Stage(channels, classes, pooling, transform, hidden) for _ in range(stages))

    def forward(
        self, features: Tensor, localization: Tensor | None = None, fixed: tuple[Tensor, Tensor] | None = None
    ) -> list[Output]:
        """Segments a feature map.

        Args:
            features: (B,C,H,W), what kernels gather and are refined on.
            localization: (B,C,H,W), the map that the initial masks are predicted from, where it is not `features`.
            fixed: kernels (B,M,C) and mask logits (B,M,H,W) that join the learned ones before the first stage (K-Net's
                stuff). The first Output does not hold them; the stages' have N + M kernels, these last.
        """
        localization = features if localization is None else localization
        kernels = self.kernels.expand(features.shape[0], -1, -1)
        mask_logits = predict_masks(kernels, localization)
        kernels = kernels + group_features(mask_logits, features, self.pooling)
        initial = Output(kernels, mask_logits, None, localization)
        if fixed is not None:
            kernels, mask_logits = torch.cat((kernels, fixed[0]), dim=1), torch.cat((mask_logits, fixed[1]), dim=1)
        return [initial, *refine(self.stages, features, kernels, mask_logits)]
