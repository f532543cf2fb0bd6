"""Context from the whole image, in four resolutions (pyramid pooling: PSPNet, Zhao et al., CVPR 2017)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from knet.models.backbones.rtformer import resize_like
from knet.models.necks.fcn import conv_bn_relu


class PSPHead(nn.Module):
    """Joins c5 and its means over grids of 1, 2, 3 and 6 cells a side. [c2,c3,c4,c5] -> (B,channels,h5,w5)"""

    def __init__(self, inputs: Sequence[int], channels: int = 512, cells: Sequence[int] = (1, 2, 3, 6)):
        super().__init__()
        self.pools = nn.ModuleList(nn.AdaptiveAvgPool2d(count) for count in cells)
        self.scales = nn.ModuleList(conv_bn_relu(inputs[-1], channels) for _ in cells)
        self.fuse = conv_bn_relu(inputs[-1] + len(cells) * channels, channels, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        x = maps[-1]
        context = [scale(pool(x)) for pool, scale in zip(self.pools, self.scales, strict=True)]
        return self.fuse(torch.cat([x, *(resize_like(part, x) for part in context)], dim=1))
