"""Stochastic depth (Huang et al., ECCV 2016), as torchvision and timm draw it; neither is needed to import this."""

import torch
from torch import Tensor, nn


class StochasticDepth(nn.Module):
    """In training, leaves a residual branch out with a probability, for each image of a batch. (B,...) -> the same"""

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        kept = 1 - self.probability
        noise = torch.empty((x.shape[0], *[1] * (x.ndim - 1)), dtype=x.dtype, device=x.device).bernoulli_(kept)
        return x * (noise.div_(kept) if kept > 0 else noise)

    def extra_repr(self) -> str:
        """What `print` shows beside the class."""
        return f"{self.probability}"
