"""Context from convolutions with growing holes (atrous spatial pyramid pooling: DeepLabV3, Chen et al., 2017)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from knet.models.backbones.rtformer import resize_like
from knet.models.necks.fcn import conv_bn_relu


class ASPPHead(nn.Module):
    """Joins the mean of c5 with a 1x1 and dilated 3x3 convolutions of it. [c2,c3,c4,c5] -> (B,channels,h5,w5)

    The default dilations suit a c5 at 1/8 of the image.
    """

    def __init__(self, inputs: Sequence[int], channels: int = 512, dilations: Sequence[int] = (12, 24, 36)):
        super().__init__()
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_bn_relu(inputs[-1], channels))
        dilated = (conv_bn_relu(inputs[-1], channels, 3, dilation) for dilation in dilations)
        self.convs = nn.ModuleList([conv_bn_relu(inputs[-1], channels), *dilated])
        self.fuse = conv_bn_relu((2 + len(dilations)) * channels, channels, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        x = maps[-1]
        return self.fuse(torch.cat([resize_like(self.pooled(x), x), *(conv(x) for conv in self.convs)], dim=1))
