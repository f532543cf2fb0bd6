"""Swin Transformer (Liu et al., ICCV 2021): attention inside windows of 7 x 7 cells, which every second block moves by
half a window so that neighbours meet.

It is written here because the official K-Net weights were trained with the OpenMMLab variant, which libraries lack:
maps are padded with zeros after the layer norm and before the shift, every block of odd number shifts (even on maps
smaller than a window), and patch merging orders its inputs by channel. Maps are (B,H,W,C) inside.
"""

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary

from knet.models.backbones.stochastic_depth import StochasticDepth


def split_windows(x: Tensor, window: int) -> Tensor:
    """Cuts a map into M windows, row by row. (B,H,W,C), H and W multiples of their side w -> (B*M,w*w,C)"""
    x = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))  # (B, rows, w, columns, w, C)
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def join_windows(windows: Tensor, window: int, size: tuple[int, int]) -> Tensor:
    """The inverse of `split_windows` for a map of `size`. (B*M,w*w,C) -> (B,H,W,C)"""
    height, width = size
    x = windows.unflatten(0, (-1, height // window, width // window)).unflatten(3, (window, window))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


# The next three, like torch's own functions, can be watched by a `TorchFunctionMode`.
def fill_up(images: Tensor, divisor: int) -> Tensor:
    """As `pad_to_multiple`, with colours first. (B,3,H,W) -> (B,3,H',W')"""
    if has_torch_function_unary(images):
        return handle_torch_function(fill_up, (images,), images, divisor)
    height, width = images.shape[2:]
    return F.pad(images, (0, rounded_up(width, divisor) - width, 0, rounded_up(height, divisor) - height))


def pad_to_multiple(x: Tensor, divisor: int) -> Tensor:
    """Pads with zeros at the right and the bottom to multiples of the divisor. (B,H,W,C) -> (B,H',W',C)"""
    if has_torch_function_unary(x):
        return handle_torch_function(pad_to_multiple, (x,), x, divisor)
    height, width = x.shape[1:3]
    return F.pad(x, (0, 0, 0, rounded_up(width, divisor) - width, 0, rounded_up(height, divisor) - height))


def rounded_up(side: int, divisor: int) -> int:
    """The next multiple of the divisor, in a form that torch's exporter understands for symbolic sides."""
    return (side + divisor - 1) // divisor * divisor


def shift_mask(x: Tensor, window: int, shift: int, sides: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """To be added to attention scores: 0, -100 between cells that only shifted windows make neighbours.

    (B,H,W,C), before it is padded -> (M,w*w,w*w). `sides`: numbers of rows and columns that are looked at, all others
    are apart from them.
    """
    if has_torch_function_unary(x):
        return handle_torch_function(shift_mask, (x,), x, window, shift)

    def parts_of(axis: int) -> Tensor:
        side = rounded_up(x.shape[1 + axis], window)
        place = torch.arange(side, device=x.device)
        part = (place >= side - window).long() + (place >= side - shift)
        return part if sides is None else part + 3 * ((place + shift) % side >= sides[axis])

    rows, columns = parts_of(0), parts_of(1)
    parts = split_windows((6 * rows[:, None] + columns)[None, :, :, None], window)[..., 0]  # (M,w*w)
    return (parts[:, None] != parts[:, :, None]) * -100.0


class WindowAttention(nn.Module):
    """Multi-head attention in windows, a bias for every offset, mask of `shift_mask`. (B*M,w*w,C) -> (B*M,w*w,C)"""

    offsets: Tensor

    def __init__(self, channels: int, heads: int, window: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.position_bias = nn.Parameter(0.02 * torch.randn((2 * window - 1) ** 2, heads))
        y, x = (part.flatten() for part in torch.meshgrid(*[torch.arange(window)] * 2, indexing="ij"))
        offset_y, offset_x = (part[:, None] - part + window - 1 for part in (y, x))
        self.register_buffer("offsets", offset_y * (2 * window - 1) + offset_x, persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        queries, keys, values = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scores = queries * queries.shape[-1] ** -0.5 @ keys.transpose(2, 3)
        scores = scores + self.position_bias[self.offsets].permute(2, 0, 1)
        if mask is not None:
            scores = (scores.unflatten(0, (-1, mask.shape[0])) + mask[:, None]).flatten(0, 1)
        seen = scores.softmax(dim=-1) @ values
        return self.out(seen.transpose(1, 2).flatten(2))


class SwinBlock(nn.Module):
    """Window attention, then a feed-forward network, both residual. (B,H,W,C), mask of `shift_mask` -> (B,H,W,C)"""

    def __init__(self, channels: int, heads: int, window: int, shift: int, drop_path: float):
        super().__init__()
        self.window, self.shift = window, shift
        self.attention_norm = nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, heads, window)
        self.ffn_norm = nn.LayerNorm(channels)
        self.expand, self.contract = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        _, height, width, _ = x.shape
        padded = pad_to_multiple(self.attention_norm(x), self.window)
        shifted = padded.roll((-self.shift, -self.shift), (1, 2))
        windows = self.attention(split_windows(shifted, self.window), mask if self.shift else None)
        seen = join_windows(windows, self.window, (padded.shape[1], padded.shape[2]))
        seen = seen.roll((self.shift, self.shift), (1, 2))[:, :height, :width]
        x = x + self.drop_path(seen)
        return x + self.drop_path(self.contract(F.gelu(self.expand(self.ffn_norm(x)))))


class PatchMerging(nn.Module):
    """Four neighbours become one cell of twice the channels. (B,H,W,C) -> (B,ceil(H/2),ceil(W/2),2C)

    Its 4C inputs are ordered by channel, then by row and column: the OpenMMLab order. The original Swin code has
    another, see `knet.weights.swin`.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduce = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = pad_to_multiple(x, 2).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (B,h,2,w,2,C)
        return self.reduce(self.norm(x.permute(0, 1, 3, 5, 2, 4).flatten(3)))


class SwinStage(nn.Module):
    """Blocks on one scale, every second one with shifted windows. (B,H,W,C) -> (B,H,W,C)"""

    def __init__(self, channels: int, heads: int, window: int, drop_paths: Sequence[float]):
        super().__init__()
        self.window, self.shift = window, window // 2
        self.blocks = nn.ModuleList(
            SwinBlock(channels, heads, window, self.shift * (number % 2), drop_path)
            for number, drop_path in enumerate(drop_paths)
        )

    def forward(self, x: Tensor) -> Tensor:
        mask = shift_mask(x, self.window, self.shift).to(x)
        for block in self.blocks:
            x = block(x, mask)
        return x


class Swin(nn.Module):
    """The backbone. (B,3,H,W) of any size -> four maps (B,C,h,w) at 1/4, 1/8, 1/16, 1/32 (rounded up)

    Each map has a layer norm of its own; the next stage gets the map before that norm.

    Args:
        embed_dim: channels of the first stage; each stage doubles them.
        depths, heads: blocks and attention heads of each stage.
        window: side of a window, in cells.
        drop_path: probability of skipping a residual branch of the last block in training; it grows linearly from 0.
    """

    output_stride = 32

    def __init__(
        self,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        window: int = 7,
        drop_path: float = 0.2,
    ):
        super().__init__()
        self.channels = tuple(embed_dim * 2**stage for stage in range(len(depths)))
        self.patches = nn.Conv2d(3, embed_dim, 4, 4)
        self.patches_norm = nn.LayerNorm(embed_dim)
        rates = iter([drop_path * block / (sum(depths) - 1) for block in range(sum(depths))])
        self.stages = nn.ModuleList(
            SwinStage(channels, count, window, list(islice(rates, depth)))
            for channels, count, depth in zip(self.channels, heads, depths, strict=True)
        )
        self.merges = nn.ModuleList(PatchMerging(channels) for channels in self.channels[:-1])
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for channels in self.channels)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.patches(fill_up(images, 4)).permute(0, 2, 3, 1)
        x = self.patches_norm(x)
        maps = []
        for number, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            x = stage(x if number == 0 else self.merges[number - 1](x))
            maps.append(norm(x).permute(0, 3, 1, 2))
        return maps


def _initialise(module: nn.Module) -> None:
    """Initialises as the original, whose normal distribution is cut off at 100 standard deviations."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
