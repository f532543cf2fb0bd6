"""What networks tell of themselves is so."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from knet.models.network import Network
from knet.models.zoo import create
from tiny_models import ARGUMENTS

_RTKNET = {"width": 8, "head_width": 16, "channels": 16, "kernels": 5, "stages": 1}
SMALL: list[tuple[str, dict[str, Any]]] = [
    ("rtknet-cityscapes", _RTKNET),
    ("rtknet-cityscapes", {**_RTKNET, "stuff": (0, 1, 2)}),
    ("rt-video-knet-slim-kitti-step", _RTKNET),
    *((name, arguments) for task, (name, _, arguments) in ARGUMENTS.items() if task != "clip"),
]


@pytest.mark.parametrize(("name", "arguments"), SMALL)
@torch.inference_mode()
def test_networks_are_what_they_say(name: str, arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net = create(name, **arguments).eval()
    assert isinstance(net, Network)
    assert set(net.kernel_layers) <= {child for child, _ in net.named_children()}
    images = torch.randn(1, 3, 64, 96)
    assert all(side % net.size_divisor == 0 for side in images.shape[2:])
    first, *_, last = net(images)
    assert last.mask_logits.shape[2:] == (64 // net.stride, 96 // net.stride)
    assert last.kernels.shape[1] - first.kernels.shape[1] == len(net.stuff)
    if net.embeds:
        assert net.embed(net(images, last.kernels)[-1].linked).shape == last.kernels.shape
