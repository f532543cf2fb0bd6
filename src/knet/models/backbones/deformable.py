"""Deformable convolution. torchvision, which has the operator, is slow to import; most networks do without."""

import torch
from torch import Tensor, nn
from torchvision.ops import DeformConv2d


class OffsetConv(DeformConv2d):
    """Deformable 3x3 convolution (Dai et al., ICCV 2017). (B,C,H,W) -> (B,C,H/stride,W/stride)

    A plain convolution predicts an offset (dy, dx) for each tap, zero at first. Taps outside the map read zeros.
    """

    def __init__(self, channels: int, stride: int):
        super().__init__(channels, channels, 3, stride, padding=1, bias=False)
        self.offset = nn.Conv2d(channels, 2 * 9, 3, stride, padding=1)
        for parameter in self.offset.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        offsets = self.offset(x)
        dtype = self.weight.dtype
        with torch.autocast(x.device.type, enabled=False):  # the CPU's operator knows no half precision
            return super().forward(x.to(dtype), offsets.to(dtype))
