"""A neck for light backbones: context on the coarsest map, passed down through lateral connections."""

from collections.abc import Sequence

from torch import Tensor, nn

from knet.models.backbones.rtformer import resize_like
from knet.models.necks.dappm import DAPPM


def conv_bn(inputs: int, outputs: int, size: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution with "same" padding, then a batch norm."""
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class LightNeck(nn.Module):
    """Joins the maps of a backbone into one of the size of the finest. [(B,C,h,w), ...] -> (B,channels,h,w)

    DAPPM looks around on the coarsest map, and each finer one adds its lateral and is smoothed, which costs a depthwise
    and a 1x1 convolution.

    Args:
        inputs: channels of the maps that are joined, the finest first; maps before these are left out.
        channels: of the result.
        pyramid: channels of DAPPM at each of its scales.
    """

    def __init__(self, inputs: Sequence[int], channels: int, pyramid: int = 96):
        super().__init__()
        self.count = len(inputs)
        self.context = DAPPM(inputs[-1], pyramid, channels)
        self.laterals = nn.ModuleList(conv_bn(count, channels) for count in inputs[:-1])
        self.smooth = nn.ModuleList(
            nn.Sequential(*conv_bn(channels, channels, 5, channels), *conv_bn(channels, channels)) for _ in inputs[:-1]
        )

    def forward(self, *maps: Tensor) -> Tensor:
        *finer, coarsest = maps[-self.count :]
        x = self.context(coarsest)
        for lateral, smooth, map_ in zip(self.laterals[::-1], self.smooth[::-1], finer[::-1], strict=True):
            x = lateral(map_) + resize_like(x, map_)
            x = x + smooth(x.relu())
        return x
