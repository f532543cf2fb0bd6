"""Whether the padding of a fixed size can be hidden from a network."""

import copy

import torch
from torch.nn import functional as F

from knet.export.inside import Inside, LostError
from knet.models.network import Network

_TRIED = 192  # pixels of a side that are enough to see whether the padding has an effect


def hides_padding(net: Network, size: tuple[int, int]) -> bool:
    """Whether `Inside` can hide the padding of this size from a network: tried on a small image that leaves some."""
    net = copy.deepcopy(net).cpu().float().eval()
    divisor = net.size_divisor
    most = max(_TRIED // divisor, 1) * divisor
    height, width = (min(side, most) for side in size)
    inner = [max(side * 2 // 3 // divisor, 1) * divisor for side in (height, width)]
    image = torch.linspace(-2, 2, 3 * inner[0] * inner[1]).sin().view(1, 3, *inner)
    padded = F.pad(image, (0, width - inner[1], 0, height - inner[0]))
    try:
        with torch.no_grad():
            with Inside(padded, torch.tensor(inner)):
                found = net(padded)[0].mask_logits
            expected = net(image)[0].mask_logits  # the first, before any threshold that rounding could cross
    except (LostError, AssertionError, RuntimeError, ValueError):  # the latter of networks that take one size alone
        return False
    found = found[..., : expected.shape[-2], : expected.shape[-1]]
    return bool((found - expected).abs().max() <= 1e-3 * expected.abs().max())
