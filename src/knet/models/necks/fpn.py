"""Feature pyramid network (Lin et al., CVPR 2017): the meaning in coarse maps is added to the detail of fine ones."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class FPN(nn.Module):
    """Turns maps of several depths into maps of one depth, finest first. (B,inputs[i],h,w) -> (B,channels,h,w) each

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
