"""What a CUDA graph may hold: no network copies anything from the host in `forward`, or waits for the device.

Seen on the CPU with tensors that say that they lie on a GPU and hold no numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from knet.models.decoder import class_kernels
from knet.models.zoo import ZOO, create

_WAITS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
_FROM_NUMBERS = torch.ops.aten.lift_fresh.default  # torch.tensor([...])


class Watch(TorchDispatchMode):
    """Notes the operations that a recorded graph cannot hold."""

    def __init__(self) -> None:
        super().__init__()
        self.forbidden: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given, made = ([x for x in tree_leaves(tree) if isinstance(x, Tensor)] for tree in ((args, kwargs), result))
        from_host = any(x.device.type == "cpu" and x.ndim for x in given)  # single numbers travel with the launch
        on_device = any(x.device.type == "cuda" for x in [*given, *made])
        if func in _WAITS or (on_device and (from_host or func is _FROM_NUMBERS)):
            self.forbidden.append(str(func))
        return result


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything is made on a GPU that there is not."""
    monkeypatch.setattr(fake_tensor, "CONSTANT_NUMEL_LIMIT", 0)  # else single numbers would be sent to a true GPU
    with FakeTensorMode(), torch.device("cuda"), torch.inference_mode():
        yield


@pytest.mark.parametrize("name", list(ZOO))
def test_every_model_can_be_recorded(name: str, pretended: None) -> None:
    net, images = create(name).eval(), torch.empty(1, 3, 64, 96)
    with Watch() as watch:
        last = net(images)[-1]
        if net.embeds:
            net.embed(net(images, torch.empty_like(last.kernels))[-1].linked)
    assert last.mask_logits.device.type == "cuda"
    assert not watch.forbidden


@pytest.mark.parametrize("copies", ["list", "tensor", "map"])
def test_what_cannot_be_recorded_is_seen(copies: str, pretended: None) -> None:
    x = torch.empty(4, 4)
    with Watch() as watch:
        if copies == "list":
            x[[0, 2]]
        elif copies == "tensor":
            x + torch.tensor([1.0, 2.0, 3.0, 4.0], device="cuda")
        else:
            torch.empty(4, 4, device="cpu").to(x)
    assert watch.forbidden


@pytest.mark.parametrize("labels", [[0], [2, 3, 4], [4, 0, 1, 3], [0, 1, 2, 3, 4], [3, 2, 1]])
def test_kernels_of_classes_in_any_order(labels: list[int]) -> None:
    classifier, logits = nn.Conv2d(6, 5, 1), torch.randn(2, 5, 3, 4)
    kernels, masks = class_kernels(classifier, logits, labels)
    assert torch.equal(kernels, classifier.weight.flatten(1)[labels].expand(2, -1, -1))
    assert torch.equal(masks, logits[:, labels])
