"""From a feature map to segments: learned initial kernels, then one refinement after the other."""

import math

import torch
from torch import Tensor, nn

from knet.models.kernels import Pooling, Stage, group_features, predict_masks
from knet.structures import Output


class KernelDecoder(nn.Module):
    """Initial kernels and the loop over stages. (B,C,H,W) -> one Output for the initial masks and one a stage.

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

    def forward(self, features: Tensor) -> list[Output]:
        kernels = self.kernels.expand(features.shape[0], -1, -1)
        mask_logits = predict_masks(kernels, features)
        kernels = kernels + group_features(mask_logits, features, self.pooling)
        outputs = [Output(kernels, mask_logits, None, features)]
        for stage in self.stages:
            kernels, mask_logits, class_logits, seen = stage(features, kernels, mask_logits)
            outputs.append(Output(kernels, mask_logits, class_logits, seen))
        return outputs
