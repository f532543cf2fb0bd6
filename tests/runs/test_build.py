"""Every config that comes with the package: its parts can be made, and fit each other."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from torch import nn

from knet.config import config_names, load_config
from knet.data.categories import load_categories
from knet.inference.load import describe_official
from knet.models.zoo import ZOO, create, entry
from knet.runs.build import build_criterion, run_card
from knet.runs.optimizer import adamw, learning_rate
from knet.runs.samples import augmentation_of
from knet.runs.strided import skip_pixels_first

# Rows of K-Net's tables (README of its repository, mmsegmentation's) that differ from another in the schedule alone.
LONG = [
    *(f"knet-{backbone}-coco-panoptic" for backbone in ("r50", "r101", "r101dcn", "swinl")),
    *(f"knet-{backbone}-coco-instance" for backbone in ("r50", "r101", "r101dcn")),
]


def test_every_row_of_k_nets_tables_has_a_config() -> None:
    short = {"knet-r50-coco-panoptic", "knet-r50-coco-instance", "knet-r50-cityscapes-panoptic"}
    semantic = {name for name in ZOO if name.startswith("knet-") and name.endswith("-ade20k")}
    assert len(semantic) == 7
    assert short | semantic | {f"{name}-3x" for name in LONG} <= set(config_names())


@pytest.mark.parametrize("name", [name for name in config_names() if name != "custom"])
def test_every_config_builds(name: str) -> None:
    config = load_config(name)
    row = entry(config.model)
    categories = load_categories(config.data.categories or row.categories)
    card = run_card(config, categories)
    with torch.device("meta"):
        net = create(config.model, **card.arguments)
    if "arguments" not in config.model_fields_set and "classes" in row.arguments:
        assert row.arguments["classes"] == len(categories)
        if "stuff" in row.arguments:
            assert card.arguments["stuff"] == list(row.arguments["stuff"])
    o = config.optimizer
    optimizer = adamw(net, o.learning_rate, o.weight_decay, o.backbone_multiplier, o.undecayed)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == sum(
        parameter.requires_grad for parameter in net.parameters()
    )
    assert learning_rate(config.iterations - 1, config.iterations, 1.0, o.warmup, o.warmup_start, o.power, o.steps) < 1
    assert augmentation_of(config).short_edges
    assert build_criterion(config, net, card).invalid_costs == 0
    assert all(step < config.iterations for step in o.steps)
    assert config.output.name == name


def test_the_losses_of_tracks_have_the_weights_of_the_config() -> None:
    config = load_config("rt-video-knet-slim-kitti-step", ["losses.track=2", "losses.similarity=3"])
    with torch.device("meta"):
        net = create(config.model)
    tracks = build_criterion(config, net, describe_official(config.model)).criterion  # type: ignore[attr-defined]
    assert (tracks.track_weight, tracks.similarity_weight) == (2, 3)


@pytest.mark.parametrize(
    ("name", "across"), [("rt-video-knet-slim-kitti-step", True), ("video-knet-r50-kitti-step", False)]
)
def test_only_rt_video_knet_learns_from_objects_of_other_clips(name: str, across: bool) -> None:
    config = load_config(name)
    with torch.device("meta"):
        net = create(config.model)
    assert build_criterion(config, net, describe_official(config.model)).criterion.across is across  # type: ignore[attr-defined]


@pytest.mark.parametrize(("link", "steady"), [("linear", True), ("attention", False)])
def test_kernels_that_are_linked_to_themselves_keep_their_objects(link: str, steady: bool) -> None:
    config = load_config("rt-video-knet-slim-kitti-step")
    with torch.device("meta"):
        net = create(config.model, link=link)
    assert build_criterion(config, net, describe_official(config.model)).criterion.steady is steady  # type: ignore[attr-defined]


def test_the_criterion_of_stuff_knows_the_networks_labels() -> None:
    config = load_config("knet-r50-coco-panoptic")
    with torch.device("meta"):
        net = create(config.model)
    criterion = build_criterion(config, net, describe_official(config.model))
    assert criterion.stuff == tuple(range(80, 133))  # type: ignore[attr-defined]
    with torch.device("meta"):
        net = create("knet-fcn-r50-ade20k"), create("knet-upernet-swint-ade20k")
    config = load_config("knet-fcn-r50-ade20k")
    strides = [build_criterion(config, one, describe_official(config.model)).stride for one in net]  # type: ignore[attr-defined]
    assert strides == [8, 4]


NARROW = """
import sys, torch
from knet.models.zoo import create
from knet.runs.strided import skip_pixels_first
torch.set_num_threads(2)
net = create("rtknet-slim-camvid", width=8, head_width=16, channels=16, kernels=6, stages=1).train()
net = net.to(memory_format=torch.channels_last)
skip_pixels_first(net)
for _ in range(8):
    images = torch.randn(3, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    net(images)[-1].mask_logits.mean().backward()
"""


def test_narrow_networks_train_on_several_cores() -> None:
    """In a process of its own, as torch's convolutions would end it."""
    subprocess.run([sys.executable, "-c", NARROW], check=True, timeout=600)


def test_skipping_pixels_first_changes_nothing_but_the_order() -> None:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(8, 4, 1, (2, 3)),
        nn.Conv2d(8, 8, 1, 2, groups=4),
        nn.Conv2d(16, 4, 1, 2),
        nn.Conv2d(8, 4, 3, 2),
    ]
    before = [layer.stride for layer in layers]
    for height, width in ((1, 1), (7, 6), (8, 9)):
        images = torch.randn(2, 16, height + 2, width + 2)
        expected = [layer(images[:, : layer.in_channels]) for layer in map(deepcopy, layers)]
        changed = deepcopy(nn.ModuleList(layers))
        skip_pixels_first(changed)
        for layer, value in zip(changed, expected, strict=True):
            torch.testing.assert_close(layer(images[:, : layer.in_channels]), value)
    assert [layer.stride == old for layer, old in zip(changed, before, strict=True)] == [False, False, True, True]
