"""The units of all semantic heads, and the plainest head (FCN, Long et al., CVPR 2015)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def conv_bn_relu(inputs: int, outputs: int, size: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution with "same" padding and without bias, batch norm, ReLU. (B,inputs,H,W) -> (B,outputs,H,W)"""
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2 * dilation, dilation=dilation, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def classifier(inputs: int, classes: int, dropout: float = 0.1) -> nn.Sequential:
    """Class logits of every cell, whole channels dropped in training. (B,inputs,H,W) -> (B,classes,H,W)"""
    conv = nn.Conv2d(inputs, classes, 1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return nn.Sequential(nn.Dropout2d(dropout), conv)


class FCNHead(nn.Module):
    """Joins c5 and two convolutions of it. [c2,c3,c4,c5] -> (B,channels,h5,w5)"""

    def __init__(self, inputs: Sequence[int], channels: int = 512):
        super().__init__()
        self.convs = nn.Sequential(conv_bn_relu(inputs[-1], channels, 3), conv_bn_relu(channels, channels, 3))
        self.fuse = conv_bn_relu(inputs[-1] + channels, channels, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.fuse(torch.cat([maps[-1], self.convs(maps[-1])], dim=1))
