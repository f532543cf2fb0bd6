"""Every image model of the zoo trains with the losses and the optimiser of its published run."""

from __future__ import annotations

import pytest
import torch

import knet
from knet.config import RunConfig, config_names, load_config
from knet.data.batches import Batch
from knet.models.image import KNet
from knet.models.realtime import RTKNet
from knet.models.semantic import KNetSemantic
from knet.models.zoo import ZOO
from knet.structures import Target
from knet.training.build import build_criterion
from knet.training.optimizer import adamw
from knet.training.step import train_step

LARGE = ("r101", "swin", "fcn", "pspnet", "deeplabv3")
ROWS = [
    pytest.param(name, marks=[pytest.mark.large] if any(word in name for word in LARGE) else [])
    for name, row in ZOO.items()
    if row.build in (RTKNet, KNet, KNetSemantic) and "step" not in name  # those for video start from other weights
]


def published(model: str) -> RunConfig:
    return next(config for config in map(load_config, config_names()) if config.model == model)


@pytest.mark.parametrize("name", ROWS)
def test_two_iterations(name: str) -> None:
    config = published(name)
    torch.manual_seed(0)
    net = knet.create(name)
    o, classes = config.optimizer, ZOO[name].arguments["classes"]
    optimizer = adamw(net, o.learning_rate, o.weight_decay, o.backbone_multiplier, o.undecayed)
    ids = torch.ones(2, 64, 64, dtype=torch.int32)
    ids[:, 32:, :40] = 2
    targets = [Target(ids[0], torch.tensor([0, classes - 1])), Target(ids[1], torch.tensor([classes - 1, 1]))]
    images = list(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    criterion, scaler = build_criterion(config, net, {}), torch.amp.GradScaler("cpu", enabled=False)
    before = {key: value.clone() for key, value in net.named_parameters()}
    for iteration in range(2):
        step = train_step(net, criterion, optimizer, scaler, Batch(images, targets, [0, 1], {}), seed=(0, iteration))
        assert step.taken and step.losses and step.gradient_norm > 0
    still = {key for key, value in net.named_parameters() if torch.equal(value, before[key])}
    assert still <= {key for key, value in net.named_parameters() if not value.requires_grad}
