"""Feature pyramid network (Lin et al., CVPR 2017): coarse maps, which know what, help fine ones, which know where."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class FPN(nn.Module):
    """Four maps of any depth to four of one depth. (B,inputs[i],h,w) each -> (B,channels,h,w) each, finest first

    No norm, no activation; coarse maps are enlarged by repeating pixels.
    """

    def __init__(self, inputs: Sequence[int], channels: int = 256):
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(depth, channels, 1) for depth in inputs)
        self.outputs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in inputs)
        for conv in (*self.laterals, *self.outputs):
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        sums = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]
        for fine in range(len(sums) - 2, -1, -1):
            sums[fine] = sums[fine] + F.interpolate(sums[fine + 1], sums[fine].shape[-2:], mode="nearest")
        return [output(x) for output, x in zip(self.outputs, sums, strict=True)]
