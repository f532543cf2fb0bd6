"""Joins RTFormer's two streams into one feature map: deep aggregation pyramid pooling (DAPPM, Hong et al., 2021) on the
low stream, then a small head."""

import torch
from torch import Tensor, nn

from knet.models.backbones.rtformer import norm_relu_conv, resize_like


class DAPPM(nn.Module):
    """Context at five scales, each added to the one before. (B,inputs,H,W) -> (B,outputs,H,W)

    Average pooling counts the zero padding in its means.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        pools = [nn.AvgPool2d(5, 2, 2), nn.AvgPool2d(9, 4, 4), nn.AvgPool2d(17, 8, 8), nn.AdaptiveAvgPool2d(1)]
        self.pools = nn.ModuleList([nn.Identity(), *pools])
        self.scales = nn.ModuleList(norm_relu_conv(inputs, hidden) for _ in self.pools)
        self.merges = nn.ModuleList(norm_relu_conv(hidden, hidden, 3) for _ in pools)
        self.compress = norm_relu_conv(hidden * len(self.pools), outputs)
        self.shortcut = norm_relu_conv(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        scaled = [scale(pool(x)) for pool, scale in zip(self.pools, self.scales, strict=True)]
        context = scaled[:1]
        for merge, coarse in zip(self.merges, scaled[1:], strict=True):
            context.append(merge(resize_like(coarse, x) + context[-1]))
        return self.compress(torch.cat(context, dim=1)) + self.shortcut(x)


class FeatureHead(nn.Module):
    """Joins the high stream and the DAPPM of the low one. (B,high,H,W), (B,low,h,w) -> (B,outputs,H,W)"""

    def __init__(self, high: int, low: int, hidden: int, outputs: int, pyramid: int = 128):
        super().__init__()
        self.context = DAPPM(low, pyramid, high)
        self.fuse = nn.Sequential(*norm_relu_conv(2 * high, hidden, 3), *norm_relu_conv(hidden, outputs, bias=True))

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        return self.fuse(torch.cat([high, resize_like(self.context(low), high)], dim=1))
