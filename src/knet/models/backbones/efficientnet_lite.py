"""EfficientNet-Lite0 (Tan and Le, ICML 2019; Google, 2020), the backbone of the weights that come with the package.

It is timm's `tf_efficientnet_lite0`, tensor by tensor and under the same names: importing timm, and torchvision with
it, takes longer than a prediction.
"""

import math

from torch import Tensor, nn

from knet.models.backbones.stochastic_depth import StochasticDepth
from knet.models.backbones.timm_padding import ConstantPadding

_STAGES = (  # blocks, kernel size, stride, channels
    *((1, 3, 1, 16), (2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80)),
    *((3, 5, 1, 112), (4, 5, 2, 192), (1, 3, 1, 320)),
)
_STEM, _WIDER = 32, 6  # channels of the stem; times the channels that a block has inside
_GIVEN = (1, 2, 4, 6)  # stages whose maps are the last of their size


class _Norm(nn.BatchNorm2d):
    """Batch norm and the activation after it, if there is one."""

    def __init__(self, channels: int, act: bool = True):
        super().__init__(channels, eps=1e-3)
        self.act: nn.Module = nn.ReLU6(inplace=True) if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


def _conv(channels: int, out: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out, size, stride, size // 2, groups=groups, bias=False)


class _Block(nn.Module):
    """Widens, looks around in each channel alone, and narrows; the first block of all is as wide as it comes."""

    def __init__(self, channels: int, out: int, size: int, stride: int, drop_path: float):
        super().__init__()
        wide, self.has_skip = channels * _WIDER, stride == 1 and channels == out
        self.conv_pw, self.bn1 = _conv(channels, wide, 1), _Norm(wide)
        self.conv_dw, self.bn2 = _conv(wide, wide, size, stride, wide), _Norm(wide)
        self.conv_pwl, self.bn3 = _conv(wide, out, 1), _Norm(out, act=False)
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        new = self.bn2(self.conv_dw(self.bn1(self.conv_pw(x))))
        new = self.bn3(self.conv_pwl(new))
        return self.drop_path(new) + x if self.has_skip else new


class _FirstBlock(nn.Module):
    def __init__(self, channels: int, out: int, size: int):
        super().__init__()
        self.conv_dw, self.bn1 = _conv(channels, channels, size, 1, channels), _Norm(channels)
        self.conv_pw, self.bn2 = _conv(channels, out, 1), _Norm(out, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv_pw(self.bn1(self.conv_dw(x))))


class EfficientNetLite(nn.Module):
    """The network without its head. (B,3,H,W) -> four maps (B,C,h,w) at 1/4, 1/8, 1/16 and 1/32 of the image

    Args:
        drop_path: probability of skipping a residual branch in training, of the last block; it grows linearly.
    """

    channels = tuple(_STAGES[stage][3] for stage in _GIVEN)

    def __init__(self, drop_path: float = 0.0):
        super().__init__()
        self.conv_stem, self.bn1 = _conv(3, _STEM, 3, stride=2), _Norm(_STEM)
        stages, channels, number, count = [], _STEM, 0, sum(stage[0] for stage in _STAGES)
        for blocks, size, stride, out in _STAGES:
            stage: list[nn.Module] = []
            for block in range(blocks):
                rate = drop_path * number / count
                first = _FirstBlock(channels, out, size) if number == 0 else None
                stage.append(first or _Block(channels, out, size, 1 if block else stride, rate))
                channels, number = out, number + 1
            stages.append(nn.Sequential(*stage))
        self.blocks = nn.Sequential(*stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
                nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))
        for module in list(self.modules()):  # those that shrink a map pad it as TensorFlow does
            for name, child in module.named_children():
                if isinstance(child, nn.Conv2d) and child.stride == (2, 2):
                    setattr(module, name, ConstantPadding(child))

    def forward(self, images: Tensor) -> list[Tensor]:
        x, maps = self.bn1(self.conv_stem(images)), []
        for number, stage in enumerate(self.blocks):
            x = stage(x)
            if number in _GIVEN:
                maps.append(x)
        return maps
