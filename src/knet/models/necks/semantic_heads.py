"""The heads of known semantic networks, and the units that they are made of."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from knet.models.backbones.rtformer import resize_like


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
    """FCN (Long et al., CVPR 2015): joins c5 and two convolutions of it. [c2,c3,c4,c5] -> (B,channels,h5,w5)"""

    def __init__(self, inputs: Sequence[int], channels: int = 512):
        super().__init__()
        self.convs = nn.Sequential(conv_bn_relu(inputs[-1], channels, 3), conv_bn_relu(channels, channels, 3))
        self.fuse = conv_bn_relu(inputs[-1] + channels, channels, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.fuse(torch.cat([maps[-1], self.convs(maps[-1])], dim=1))


class PSPHead(nn.Module):
    """Pyramid pooling (PSPNet, Zhao et al., CVPR 2017). [c2,c3,c4,c5] -> (B,channels,h5,w5)

    Joins c5 and its means over grids of 1, 2, 3 and 6 cells a side, so every cell sees the whole image.
    """

    def __init__(self, inputs: Sequence[int], channels: int = 512, cells: Sequence[int] = (1, 2, 3, 6)):
        super().__init__()
        self.pools = nn.ModuleList(nn.AdaptiveAvgPool2d(count) for count in cells)
        self.scales = nn.ModuleList(conv_bn_relu(inputs[-1], channels) for _ in cells)
        self.fuse = conv_bn_relu(inputs[-1] + len(cells) * channels, channels, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        x = maps[-1]
        context = [scale(pool(x)) for pool, scale in zip(self.pools, self.scales, strict=True)]
        return self.fuse(torch.cat([x, *(resize_like(part, x) for part in context)], dim=1))


class ASPPHead(nn.Module):
    """Atrous spatial pyramid pooling (DeepLabV3, Chen et al., 2017). [c2,c3,c4,c5] -> (B,channels,h5,w5)

    Joins the mean of c5 with a 1x1 and dilated 3x3 convolutions of it. The dilations suit a c5 at 1/8 of the image.
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


class UPerHead(nn.Module):
    """Pyramid pooling, then a feature pyramid (UPerNet, Xiao et al., ECCV 2018). [c2,c3,c4,c5] -> (B,channels,h2,w2)

    Joins all four maps at the size of the finest.
    """

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
