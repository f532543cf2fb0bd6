"""The localisation FPN of K-Net: all levels of a pyramid, summed at 1/8 of the image, give one map for where things are
and one for what they are (after the semantic branch of Panoptic FPN, Kirillov et al., CVPR 2019)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from knet.errors import ConfigError

_GROUPS = 32


def conv_norm_relu(channels: int, size: int = 1, stride: int = 1) -> nn.Sequential:
    """Convolution with "same" padding, group norm of 32 groups, ReLU. (B,channels,h,w) -> (B,channels,h',w')"""
    if channels % _GROUPS:
        raise ConfigError(f"channels={channels} do not divide into {_GROUPS} groups; give a multiple of {_GROUPS}.")
    conv = nn.Conv2d(channels, channels, size, stride, size // 2, bias=False)
    nn.init.normal_(conv.weight, std=0.01)
    return nn.Sequential(conv, nn.GroupNorm(_GROUPS, channels), nn.ReLU())


def sine_positions(like: Tensor, sides: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """DETR's encoding of a cell's place: half of the channels for its row, half for its column. (B,C,h,w) -> (C,h,w)

    Rows are counted from 1 to h and scaled to 2 pi; two channels each are the sine and the cosine of the row divided by
    one of C / 4 wavelengths from 1 to 10000. Cells of the padding count as well, unless `sides` says how many rows and
    columns are counted. Like torch's own functions it can be watched by a `TorchFunctionMode`.
    """
    if has_torch_function_unary(like):
        return handle_torch_function(sine_positions, (like,), like)
    channels, height, width = like.shape[1:]
    device, count = like.device, channels // 4
    wavelengths = 10_000 ** (torch.arange(count, device=device) / count)

    def encode(cells: int, counted: int | Tensor) -> Tensor:
        places = torch.arange(1, cells + 1, device=device) / (counted + 1e-6) * (2 * math.pi)
        angles = places / wavelengths[:, None]
        return torch.stack((angles.sin(), angles.cos()), dim=1).flatten(0, 1)  # (C / 2, cells)

    counted = sides or (height, width)
    rows, columns = encode(height, counted[0])[:, :, None], encode(width, counted[1])[:, None, :]
    return torch.cat((rows.expand(-1, -1, width), columns.expand(-1, height, -1)))


class SemanticFPN(nn.Module):
    """Sums a pyramid. p2..p5 at 1/4..1/32 of the image -> localisation and semantics, (B,channels,H/8,W/8) each

    A convolution with stride 2 brings p2 to 1/8; bilinear resizes (align_corners=False) between convolutions bring the
    coarse maps there. The encoding of positions is added to p5 first.
    """

    def __init__(self, channels: int = 256):
        super().__init__()

        def unit(stride: int = 1) -> nn.Sequential:
            return conv_norm_relu(channels, 3, stride)

        def twice() -> nn.Upsample:
            return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)

        levels = [unit(stride=2)], [unit()], [unit(), twice(), unit()], [unit(), twice(), unit(), twice(), unit()]
        self.levels = nn.ModuleList(nn.Sequential(*level) for level in levels)
        self.localization = conv_norm_relu(channels)
        self.semantic = conv_norm_relu(channels)

    def forward(self, pyramid: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        *fine, p5 = pyramid
        p5 = p5 + sine_positions(p5).to(p5.dtype)
        p2, *others = (level(x) for level, x in zip(self.levels, (*fine, p5), strict=True))
        total = sum(others, p2)
        return self.localization(total), self.semantic(total)
