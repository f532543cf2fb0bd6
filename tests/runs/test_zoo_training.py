"""Every model of the zoo trains with the losses and the optimiser of its published run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import knet
from knet.config import RunConfig, config_names, load_config
from knet.data.readers.open import open_data
from knet.data.samples.batches import Batch, BatchPlan, load_batches
from knet.data.synthetic.clip_layouts import synthesize_clips
from knet.inference.load import describe_official
from knet.models.clip import ClipKNet
from knet.models.image import KNet
from knet.models.realtime import RTKNet
from knet.models.semantic import KNetSemantic
from knet.models.video import RTVideoKNet, VideoKNet
from knet.models.zoo import ZOO
from knet.runs.build import build_criterion, on_frames, run_card
from knet.runs.optimizer import adamw
from knet.runs.samples import training_set
from knet.runs.step import train_step
from knet.structures import Target

LARGE = ("r101", "swin", "fcn", "pspnet", "deeplabv3", "upernet", "coco-instance", "r50-cityscapes")
ROWS = [
    pytest.param(name, marks=[pytest.mark.large] if any(word in name for word in LARGE) else [])
    for name, row in ZOO.items()
    if row.build in (RTKNet, KNet, KNetSemantic) and "step" not in name
]
VIDEO_ROWS = [
    pytest.param(name, marks=[] if name == "rt-video-knet-slim-kitti-step" else [pytest.mark.large])
    for name, row in ZOO.items()
    if (row.build in (RTVideoKNet, VideoKNet, ClipKNet) or "step" in name)
    and not (row.build is RTVideoKNet and "cityscapes" in name)  # the networks for KITTI-STEP once more
]
LAYOUTS = {"kitti_step": "step", "vipseg": "vipseg", "youtube_vis": "youtube-vis"}  # of a class table


def published(model: str) -> RunConfig:
    return next(config for config in map(load_config, config_names()) if config.model == model)


@pytest.mark.parametrize("name", ROWS)
def test_two_iterations(name: str) -> None:
    config = published(name)
    torch.manual_seed(0)
    net = knet.create(name)
    classes = ZOO[name].arguments["classes"]
    ids = torch.ones(2, 64, 64, dtype=torch.int32)
    ids[:, 32:, :40] = 2
    targets = [Target(ids[0], torch.tensor([0, classes - 1])), Target(ids[1], torch.tensor([classes - 1, 1]))]
    images = list(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    batch = Batch(images, targets, [0, 1], {})
    take_steps(config, net, build_criterion(config, net, describe_official(config.model)), [batch, batch])


def take_steps(config: RunConfig, net: torch.nn.Module, criterion: Any, batches: list[Any]) -> None:
    """A step with each batch: all of them are taken, and no weight that learns stays as it was."""
    o, scaler = config.optimizer, torch.amp.GradScaler("cpu", enabled=False)
    optimizer = adamw(net, o.learning_rate, o.weight_decay, o.backbone_multiplier, o.undecayed)
    before = {key: value.clone() for key, value in net.named_parameters()}
    for iteration, batch in enumerate(batches):
        step = train_step(on_frames(net), criterion, optimizer, scaler, batch, seed=(0, iteration))
        assert step.taken and step.losses and step.gradient_norm > 0
    still = {key for key, value in net.named_parameters() if torch.equal(value, before[key])}
    assert still <= {key for key, value in net.named_parameters() if not value.requires_grad}


@pytest.mark.parametrize("name", VIDEO_ROWS)
def test_two_iterations_on_clips(name: str, tmp_path: Path) -> None:
    config, layout = published(name), LAYOUTS[ZOO[name].categories]
    root = synthesize_clips(layout, tmp_path / "clips", 2, 6, (64, 128), seed=3).root
    assert config.data.train is not None and config.augment is not None
    train = config.data.train.model_copy(update={"format": layout})
    small = {"short_edges": [64], "max_edge": 128, "crop": config.augment.crop and (64, 96), "pad": None}
    config = config.model_copy(
        update={
            "data": config.data.model_copy(update={"root": root, "train": train}),
            "augment": config.augment.model_copy(update=small),
        }
    )
    reader = open_data(config.data, train)
    card = run_card(config, reader.categories)
    torch.manual_seed(0)
    net = knet.create(name, **card.arguments)
    samples = training_set(config, reader, net)
    batches = load_batches(samples, BatchPlan(len(samples), 2, 0))
    take_steps(config, net, build_criterion(config, net, card), [next(batches), next(batches)])
