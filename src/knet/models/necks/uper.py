"""Pyramid pooling on the coarsest map, then a feature pyramid down to the finest (UPerNet, Xiao et al., ECCV 2018)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from knet.models.backbones.rtformer import resize_like
from knet.models.necks.fcn import conv_bn_relu
from knet.models.necks.psp import PSPHead


class UPerHead(nn.Module):
    """Joins all four maps at the size of the finest. [c2,c3,c4,c5] -> (B,channels,h2,w2)"""

    def __init__(self, inputs: Sequence[int], channels: int = 512):
        super().__init__()
        self.context = PSPHead(inputs, channels)
        self.laterals = nn.ModuleList(conv_bn_relu(count, channels) for count in inputs[:-1])
        self.outputs = nn.ModuleList(conv_bn_relu(channels, channels, 3) for _ in inputs[:-1])
        self.fuse = conv_bn_relu(len(inputs) * channels, channels, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        coarse = self.context(maps)
        levels = [coarse]  # from coarse to fine
        for x, lateral, output in zip(maps[-2::-1], self.laterals[::-1], self.outputs[::-1], strict=True):
            coarse = lateral(x) + resize_like(coarse, x)
            levels.append(output(coarse))
        finest = levels[-1]
        return self.fuse(torch.cat([resize_like(level, finest) for level in levels[::-1]], dim=1))
