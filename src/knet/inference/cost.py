"""What a model costs: parameters and arithmetic, counted without weights and without computing anything."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from knet.data.categories import load_table
from knet.models.zoo import create, entry
from knet.preprocess import network_size
from knet.weights.released import RELEASED


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network costs. Convolutions, matrix products and attention are counted, a multiply-add as two operations.

    Attributes:
        parameters: their number.
        flops: for one image of `size`.
        size: (height, width) at which the network sees it, without padding.
    """

    parameters: int
    flops: int
    size: tuple[int, int]


def cost(model: str) -> Cost:
    """The cost of a model as published, at its published test size for a usual image of its data set."""
    row = entry(model)
    height, width = usual_size(model)
    # Not torch's "meta" device, on which autocast cannot be switched off.
    with FakeTensorMode():
        net = create(model).eval()
        flops = _count(net, row.preprocessing.divisor, (height, width))
    return Cost(sum(p.numel() for p in net.parameters()), flops, (height, width))


def table_row(model: str) -> dict[str, Any]:
    """What `knet models` says about a model, from the zoo and `cost`; the package holds it for all of them."""
    row, counted = entry(model), cost(model)
    published = "fetched" if model in RELEASED and RELEASED[model].url else "by hand"
    return {
        "name": model,
        "task": row.task,
        "categories": row.categories,
        "weights": "bundled" if row.bundled else published if row.official else "your own",
        "published": row.published,
        "parameters": counted.parameters,
        "gflops": counted.flops / 1e9,
        "size": list(counted.size),
        "about": row.about,
    }


def count_flops(net: nn.Module, divisor: int, size: tuple[int, int]) -> int:
    """The arithmetic of a network, as `Cost.flops`, for an image of a height and width; nothing is computed."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        return _count(net, divisor, size)


def usual_size(model: str) -> tuple[int, int]:
    """Height and width that a model sees of a usual image of its data set, at its published test size."""
    row = entry(model)
    shape = load_table(row.categories).image_size
    assert shape is not None  # every table of the package has one
    return network_size(shape, "model", row.preprocessing)


def _count(net: nn.Module, divisor: int, size: tuple[int, int]) -> int:
    height, width = (-(-side // divisor) * divisor for side in size)
    image = torch.empty(1, 3, height, width, device=next(net.parameters()).device)

    def deformable(x: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
        return conv_flop_count(x, weight, out_shape)

    import torchvision  # noqa: F401  # slow to import; torch.ops.torchvision

    unknown = {torch.ops.torchvision.deform_conv2d: deformable}  # to torch's counter
    with FlopCounterMode(display=False, custom_mapping=unknown) as counted, torch.inference_mode():
        net(image)
    return counted.get_total_flops()
