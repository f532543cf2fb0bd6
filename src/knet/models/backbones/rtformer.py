"""RTFormer (Wang et al., NeurIPS 2022) as RT-K-Net uses it: a fine and a coarse stream that exchange features, with
attention whose cost is linear in the number of pixels.

    image --stem--> 1/4 --stage1--> 1/4 --stage2--> 1/8 ---------------> high 1/8  --stage4,5--> high 1/8  (2 x width)
                                                     `--stage3--> low 1/16 ---------stage4,5--> low 1/32   (8 x width)

Every bilinear resize has align_corners=False. Streams are passed on before their ReLU, which their reader applies.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from knet.models.backbones.stochastic_depth import StochasticDepth


def norm_relu_conv(inputs: int, outputs: int, size: int = 1, stride: int = 1, bias: bool = False) -> nn.Sequential:
    """Pre-activation unit: batch norm, ReLU, convolution with "same" padding."""
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=bias)
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), conv)


def resize_like(x: Tensor, other: Tensor) -> Tensor:
    """Bilinear resize to the height and width of another map."""
    return F.interpolate(x, other.shape[-2:], mode="bilinear", align_corners=False)


class BasicBlock(nn.Module):
    """Residual block of two 3x3 convolutions. `final_relu` is False in the last block of a longer stage."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, final_relu: bool = True):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.final_relu = final_relu

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + self.shortcut(x)
        return y.relu() if self.final_relu else y


class ExternalAttention(nn.Module):
    """The low stream's attention to learned keys and values. (B,inputs,H,W) -> (B,outputs,H/stride,W/stride)

    The paper's GPU-friendly attention: each key is a 1x1 filter, whose response is normalised over the pixels, then
    over the keys of its group (double normalisation), and mixed by the values.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, groups: int = 8):
        super().__init__()
        self.stride, self.groups = stride, groups
        self.norm = nn.BatchNorm2d(inputs)
        self.keys = nn.Parameter(torch.randn(outputs, inputs, 1, 1) * 0.001)
        self.values = nn.Parameter(torch.randn(outputs, outputs, 1, 1) * 0.001)

    def forward(self, x: Tensor) -> Tensor:
        scores = F.conv2d(self.norm(x), self.keys, stride=self.stride)
        attention = scores.flatten(2).unflatten(1, (self.groups, -1)).softmax(dim=-1)
        attention = attention / (attention.sum(dim=2, keepdim=True) + 1e-6)
        return F.conv2d(attention.reshape(scores.shape), self.values)


class CrossAttention(nn.Module):
    """The high stream attends to a 12 x 12 summary of the low one, with one head. (B,C,H,W), (B,L,h,w) -> (B,C,H,W)

    Scores are scaled by the number of summary cells (144), not of channels, as in the original.
    """

    def __init__(self, high: int, low: int, cells: int = 12):
        super().__init__()
        self.norm = nn.BatchNorm2d(high)
        self.memory = nn.Sequential(
            nn.BatchNorm2d(low), nn.AdaptiveMaxPool2d(cells), nn.Conv2d(low, 2 * high, 1, bias=False)
        )
        self.scale = (cells * cells) ** -0.5

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        keys, values = self.memory(low).flatten(2).chunk(2, dim=1)  # (B,C,144) each
        queries = self.norm(high).flatten(2)
        scores = keys.transpose(1, 2) @ queries * self.scale  # (B,144,HW): softmax over the cells, for each pixel
        return (values @ scores.softmax(dim=1)).reshape(high.shape)


class ConvMLP(nn.Module):
    """Batch norm (eps 1e-6), 3x3 convolution, exact GELU, 3x3 convolution. (B,C,H,W) -> (B,C,H,W)"""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=1e-6)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.gelu(self.conv1(self.norm(x))))


class DualBlock(nn.Module):
    """One attention round of both streams. (B,high,H,W), (B,low_in,h,w) -> (B,high,H,W), (B,low,h/stride,w/stride)

    With `injection` the high stream's result is added to the low stream at the end. `drop_path` is the probability of
    skipping a branch for a sample in training.
    """

    def __init__(self, high: int, low_in: int, low: int, stride: int, injection: bool, drop_path: float):
        super().__init__()
        self.low_shortcut: nn.Module = nn.Identity()
        if stride != 1:
            self.low_shortcut = nn.Sequential(nn.BatchNorm2d(low_in), nn.Conv2d(low_in, low, 1, stride, bias=False))
        self.low_attention = ExternalAttention(low_in, low, stride)
        self.low_mlp = ConvMLP(low)
        self.to_high = norm_relu_conv(low, high)
        self.high_attention = CrossAttention(high, low)
        self.high_mlp = ConvMLP(high)
        self.to_low: nn.Module | None = None
        if injection:
            self.to_low = nn.Sequential(*norm_relu_conv(high, low // 2, 3, 2), *norm_relu_conv(low // 2, low, 3, 2))
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, high: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        low = self.low_shortcut(low) + self.drop_path(self.low_attention(low))
        low = low + self.drop_path(self.low_mlp(low))
        high = high + resize_like(self.to_high(low), high)
        high = high + self.drop_path(self.high_attention(high, low))
        high = high + self.drop_path(self.high_mlp(high))
        if self.to_low is not None:
            low = low + self.to_low(high)
        return high, low


class RTFormer(nn.Module):
    """The backbone. (B,3,H,W), H and W multiples of 32 -> high (B,2w,H/8,W/8), low (B,8w,H/32,W/32), before ReLU

    Args:
        width: w; 64 is the base variant, 32 the slim one.
        injection: whether stages 4 and 5 add their high stream to the low one: (True, False) base, (True, True) slim.
        drop_path: 0.2 in RT-K-Net for both variants.
    """

    def __init__(self, width: int = 64, injection: tuple[bool, bool] = (True, False), drop_path: float = 0.2):
        super().__init__()
        w = width
        self.stem = nn.Sequential(
            *(nn.Conv2d(3, w, 3, 2, 1), nn.BatchNorm2d(w), nn.ReLU()),
            *(nn.Conv2d(w, w, 3, 2, 1), nn.BatchNorm2d(w), nn.ReLU()),
        )
        self.stage1 = self._two_blocks(w, w, 1)
        self.stage2 = self._two_blocks(w, 2 * w, 2)
        self.stage3_low = self._two_blocks(2 * w, 4 * w, 2)
        self.stage3_to_high = norm_relu_conv(4 * w, 2 * w)
        self.stage3_high = BasicBlock(2 * w, 2 * w)
        self.stage4 = DualBlock(2 * w, 4 * w, 8 * w, 2, injection[0], drop_path)
        self.stage5 = DualBlock(2 * w, 8 * w, 8 * w, 1, injection[1], drop_path)

    @staticmethod
    def _two_blocks(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, final_relu=False))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stage1(self.stem(images))
        high = self.stage2(x.relu())
        low = self.stage3_low(high.relu())
        high = high + resize_like(self.stage3_to_high(low), high)
        high = self.stage3_high(high.relu())
        high, low = self.stage4(high.relu(), low.relu())
        return self.stage5(high.relu(), low.relu())
