"""The padding of TensorFlow, in a form that all exporters of graphs take."""

from torch import Tensor, nn
from torch.nn import functional as F


class ConstantPadding(nn.Conv2d):
    """A convolution that pads as TensorFlow does ("SAME"), for maps whose sides its stride divides.

    timm computes this padding from the size of each map, in which exporters of graphs for any size get lost. Sides of
    images are multiples of 32 here, so it is always the same.
    """

    def __init__(self, conv: nn.Conv2d):
        sizes = conv.in_channels, conv.out_channels, conv.kernel_size
        super().__init__(*sizes, conv.stride, 0, conv.dilation, conv.groups, conv.bias is not None)  # type: ignore[arg-type]
        self.weight, self.bias = conv.weight, conv.bias
        axes = zip(self.kernel_size, self.stride, self.dilation, strict=True)
        totals = [max(dilation * (size - 1) + 1 - stride, 0) for size, stride, dilation in axes]
        self.margins = [edge for total in totals[::-1] for edge in (total // 2, total - total // 2)]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.margins))


def with_constant_padding(net: nn.Module) -> nn.Module:
    """The network, in which `ConstantPadding` takes the place of timm's computed padding; changed in place."""
    from timm.layers import Conv2dSame

    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, Conv2dSame):
                setattr(module, name, ConstantPadding(child))
    return net
