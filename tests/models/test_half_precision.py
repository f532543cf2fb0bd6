"""Networks in half precision where group features are sums over an image, which exceed its largest number, 65504."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from knet.export.graph import Graph
from knet.inference.engines.network import TorchEngine, in_half
from knet.models.decoder import KernelDecoder, PriorLink
from knet.models.kernels import LinkedStage, Stage, exact_modules
from knet.models.zoo import create

C, N = 32, 5
FEATURES = torch.full((1, C, 64, 64), 40.0)  # 4096 of them are 163840
KERNELS, MASKS = torch.full((1, N, C), 0.1), torch.full((1, N, 64, 64), 9.0)


def halved(module: nn.Module) -> nn.Module:
    return in_half(module.eval(), torch.float16)


def run(module: nn.Module, *inputs: Tensor) -> list[Tensor]:
    with torch.autocast("cpu", torch.float16, cache_enabled=False):
        result = module(*inputs)
    return [part for part in result if isinstance(part, Tensor)]


@pytest.mark.parametrize("stored", ["float32", "half"])
@pytest.mark.parametrize("stage", ["sum", "softmax", "attention", "update"])
def test_the_update_of_sums_is_exact(stage: str, stored: str) -> None:
    torch.manual_seed(0)
    if stage in ("sum", "softmax"):
        made: nn.Module = Stage(C, 3, stage, True, hidden=64)  # type: ignore[arg-type]
        inputs: tuple[Tensor, ...] = (FEATURES, KERNELS, MASKS)
    else:
        made = LinkedStage(C, 3, "sum", True, hidden=64, link=stage, fusion=True)  # type: ignore[arg-type]
        inputs = (FEATURES, KERNELS, MASKS, KERNELS)
    exact = [part.detach() for part in made(*inputs) if isinstance(part, Tensor)]
    for part, expected in zip(run(halved(made) if stored == "half" else made, *inputs), exact, strict=True):
        assert part.isfinite().all()
        torch.testing.assert_close(part.detach().float(), expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))


def test_kernels_of_sums_reach_the_frame_before_exactly() -> None:
    decoder = KernelDecoder(C, N, 3, 1, "sum", hidden=64)
    decoder.link = PriorLink(C, hidden=64, exact=True)
    nn.init.ones_(decoder.link.gate)
    nn.init.constant_(decoder.kernels, 0.1)
    with torch.autocast("cpu", torch.float16, cache_enabled=False):
        last = halved(decoder)(FEATURES, previous=KERNELS)[-1]
    assert last.mask_logits.isfinite().all()


def test_gradients_of_the_update_are_finite_in_training() -> None:
    stage = Stage(C, 3, "sum", True, hidden=64)
    kernels = KERNELS.clone().requires_grad_()
    sum(part.float().mean() for part in run(stage, FEATURES, kernels, MASKS)).backward()  # type: ignore[union-attr]
    assert kernels.grad is not None and kernels.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in stage.parameters() if p.grad is not None)


MODELS: list[tuple[str, dict[str, Any]]] = [
    ("knet-r50-coco-panoptic", {"classes": 11, "stuff": list(range(8))}),
    ("video-knet-r50-kitti-step", {"link": "update", "fusion": True}),
    ("rt-video-knet-slim-kitti-step", {"width": 8, "head_width": 16, "kernels": 6, "pooling": "sum", "hidden": 64}),
]


@pytest.mark.parametrize(("name", "arguments"), MODELS)
def test_whole_networks_in_fp16_and_exported_in_it(name: str, arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    if name.startswith(("knet", "video")):
        arguments = {**arguments, "backbone": "timm/resnet10t", "kernels": 6, "stages": 1}
    net = create(name, **arguments, channels=C).eval()
    with torch.no_grad():  # features whose sums are too large
        for module in net.modules():
            if isinstance(module, nn.GroupNorm) or module is getattr(net, "feature_transform", [None])[-1]:
                module.bias.fill_(300.0)  # type: ignore[union-attr,operator]
        net.decoder.kernels.fill_(0.01)  # type: ignore[union-attr,operator]
    images = torch.randn(1, 3, 128, 192)
    graph = Graph(net, half=True)
    for engine in (TorchEngine(net, precision="fp16"), TorchEngine(net, precision="fp16", frozen=True)):
        assert exact_modules(engine._ready)
        outputs = engine(images)
        outputs = engine(images, outputs[-1].kernels) if net.embeds else outputs
        assert all(output.mask_logits.isfinite().all() for output in outputs)
    named = graph(images, *([torch.ones_like(outputs[-1].kernels)] if net.embeds else []))
    assert all(value.isfinite().all() for value in named.values())
