"""Every config that comes with the package: its parts can be made, and fit each other."""

from __future__ import annotations

import pytest
import torch

from knet.config import config_names, load_config
from knet.data.categories import load_categories
from knet.inference.load import describe_official
from knet.models.zoo import ZOO, create, entry
from knet.runs.build import build_criterion, run_card
from knet.runs.optimizer import adamw, learning_rate
from knet.runs.samples import augmentation_of

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
