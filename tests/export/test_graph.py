"""The graph that is exported says what the network says, in operations that every backend knows."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from knet.errors import ConfigError
from knet.export.graph import CellMaxima, CellMeans, Graph, Merging, check_size, merge_inside
from knet.merge.panoptic import best_class, merge_panoptic
from knet.models.zoo import create
from tiny_models import ARGUMENTS

REAL_TIME = {"width": 8, "head_width": 16, "channels": 16, "kernels": 6, "stages": 2}
LINKED = {
    "video": (ARGUMENTS["video"][0], ARGUMENTS["video"][2]),
    "video, with fusion": (ARGUMENTS["video"][0], {**ARGUMENTS["video"][2], "link": "update", "fusion": True}),
    "real time": ("rt-video-knet-slim-kitti-step", REAL_TIME),
    "real time, carried": ("rt-video-knet-slim-kitti-step", {**REAL_TIME, "link": "linear"}),
}


@given(cells=st.integers(1, 12), height=st.integers(1, 40), width=st.integers(1, 40))
@settings(max_examples=60)
def test_pooling_over_cells_is_adaptive_pooling(cells: int, height: int, width: int) -> None:
    x = torch.randn(1, 2, height, width)
    assert torch.equal(CellMaxima(cells)(x), nn.AdaptiveMaxPool2d(cells)(x))
    torch.testing.assert_close(CellMeans(cells)(x), nn.AdaptiveAvgPool2d(cells)(x))


@given(
    kernels=st.integers(1, 9),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    padding=st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9)),
    score=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    overlap=st.sampled_from([0.0, 0.5, 0.8, 1.0]),
    seed=st.integers(0, 999),
)
@settings(max_examples=60)
def test_the_merge_inside_is_the_plain_one(
    kernels: int, size: tuple[int, int], padding: tuple[int, int] | None, score: float, overlap: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = 4 * torch.randn(1, kernels, 5, 7, generator=generator)
    classes = 3 * torch.randn(1, kernels, 4, generator=generator)
    padded = None if padding is None else (size[0] + padding[0], size[1] + padding[1])
    found = merge_inside(
        masks, classes, padded or size, size, Merging(score, overlap, stretches_padding=padding is None)
    )
    expected = merge_panoptic(masks[0], *best_class(classes[0]), size, score, overlap, padded)
    owner = torch.cat((expected.kernels, torch.tensor([-1])))[expected.owner.long()]
    # The plain merge computes in float64: where two masks are equal in float32, another one may win.
    assert (found["owner"][0] != owner).sum() <= 1
    assert found["owner"].dtype == torch.int32


@pytest.mark.parametrize("name", LINKED)
def test_a_first_frame_has_zeros_for_previous_kernels(name: str) -> None:
    torch.manual_seed(0)
    model, arguments = LINKED[name]
    net = create(model, **arguments).eval()
    with torch.no_grad():  # links start closed
        for parameter in net.decoder.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        graph = Graph(net)
        first = net(images)
        second = net(images.flip(3), first[-1].kernels)
        assert (second[-1].linked - net(images.flip(3))[-1].linked).abs().max() > 1e-3  # the link counts
        compare(net, graph(images, torch.zeros_like(first[-1].kernels)), first)
        compare(net, graph(images.flip(3), first[-1].kernels), second)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def compare(net: Any, found: dict[str, torch.Tensor], outputs: Any) -> None:
    last = outputs[-1]
    expected = {
        "mask_logits": last.mask_logits,
        "class_logits": last.class_logits,
        "kernels": last.kernels,
        "embeddings": net.embed(last.linked),
    }
    if outputs[0].semantic_logits is not None:
        expected["semantic_logits"] = outputs[0].semantic_logits
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("task", ["rtknet", "panoptic", "semantic"])
def test_half_precision_stays_near(task: str) -> None:
    torch.manual_seed(0)
    model, arguments = ("rtknet-slim-camvid", REAL_TIME) if task == "rtknet" else ARGUMENTS[task][::2]
    net = create(model, **arguments).eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected, found = net(images)[-1], Graph(net, half=True)(images)
    assert all(value.dtype == torch.float32 for value in found.values())
    difference = (found["mask_logits"] - expected.mask_logits).abs().mean()
    assert 0 < difference < 0.05 * expected.mask_logits.abs().mean()


def test_sizes_that_a_network_takes() -> None:
    check_size((64, 96), 32)
    check_size((33, 47), 1)
    with pytest.raises(ConfigError, match=r"multiples of 32, not 60x100; give --size 64x128"):
        check_size((60, 100), 32)
    with pytest.raises(ConfigError, match=r"32 or more, not 20x100; give --size 32x100"):
        check_size((20, 100), 1)
    with pytest.raises(ConfigError, match=r"give --size 32x32"):
        check_size((0, -5), 32)
