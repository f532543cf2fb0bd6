"""Around a fault of oneDNN, by which torch computes convolutions on CPUs."""

from functools import partial

from torch import Tensor, nn

_BLOCK = 16  # channels


def skip_pixels_first(net: nn.Module) -> None:
    """Has convolutions of single pixels that skip some, of few channels, see only the others.

    Their gradient by oneDNN writes past its memory where the channels of a pixel lie side by side (uxlfoundation/oneDNN
    issue 6035, in torch 2.14), which ends the process or harms other tensors. No published model has such layers, but
    narrow networks of one's own do. The results are those of the definition.
    """
    for layer in net.modules():
        if not isinstance(layer, nn.Conv2d) or layer.kernel_size != (1, 1) or layer.padding not in ((0, 0), "valid"):
            continue
        if max(layer.stride) > 1 and layer.in_channels // layer.groups < _BLOCK:
            layer.register_forward_pre_hook(partial(_take_every, layer.stride))
            layer.stride = (1, 1)


def _take_every(stride: tuple[int, ...], layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0][:, :, :: stride[0], :: stride[1]],)
