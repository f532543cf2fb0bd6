"""The optimiser's groups and schedule: the original's numbers, and their laws."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from knet.models.realtime import RTKNet
from knet.training.optimizer import adamw, learning_rate, parameter_groups
from knet.weights.rtknet import rename


@pytest.mark.parametrize(
    ("case", "base", "multiplier"),
    [("cityscapes", 2e-4, 1.0), ("mapillary", 1e-4, 1.0), ("backbone_multiplier_0.1", 2e-4, 0.1)],
)
def test_groups_are_the_originals(goldens: Path, case: str, base: float, multiplier: float) -> None:
    with torch.device("meta"):
        model = RTKNet(65 if case == "mapillary" else 19)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    official = json.loads(str(np.load(goldens / "rtknet" / "solver.npz")[f"{case}/param_groups"]))
    expected = {rename(key): (g["lr"], g["weight_decay"]) for g in official for key in g["params"]}
    optimizer = adamw(model, base, backbone_multiplier=multiplier)
    ours = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert len(ours) == 340 and ours.keys() == expected.keys()
    assert all(ours[name] == pytest.approx(expected[name]) for name in ours)
    for group in optimizer.param_groups:
        assert list(group["betas"]) == official[0]["betas"] and group["eps"] == official[0]["eps"]


@pytest.mark.parametrize("case", ["cityscapes", "mapillary"])
def test_learning_rates_are_the_originals(goldens: Path, case: str) -> None:
    data = np.load(goldens / "rtknet" / "solver.npz")
    config = json.loads(str(data[f"{case}/solver"]))
    ours = [
        learning_rate(int(i), config["MAX_ITER"], config["BASE_LR"], config["WARMUP_ITERS"])
        for i in data[f"{case}/lr_iters"]
    ]
    np.testing.assert_allclose(ours, data[f"{case}/lr"], rtol=1e-6)


def test_only_norm_layers_escape_weight_decay() -> None:
    norms = [
        nn.BatchNorm2d(4),
        nn.SyncBatchNorm(4),
        nn.LayerNorm(4),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4, affine=True),
    ]
    model = nn.Sequential(*norms, nn.Conv2d(4, 4, 1), nn.Linear(4, 4), nn.MultiheadAttention(4, 2))
    free, decayed = sorted(parameter_groups(model), key=lambda group: group["weight_decay"])
    assert free["weight_decay"] == 0 and {id(p) for p in free["params"]} == {
        id(p) for n in norms for p in n.parameters()
    }
    assert decayed["weight_decay"] == 0.05 and len(decayed["params"]) == 8


def test_frozen_parameters_are_left_out_and_shared_ones_come_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    assert sorted(p.ndim for group in parameter_groups(model) for p in group["params"]) == [1, 1, 2]


def test_the_multiplier_applies_to_the_backbone_only() -> None:
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))})
    groups = parameter_groups(model, base=1e-3, backbone_multiplier=0.1)
    assert [(g["lr"], g["weight_decay"]) for g in groups] == [(1e-4, 0.05), (1e-3, 0.05), (1e-3, 0.0)]


def test_the_rate_rises_then_falls_to_zero_and_stays_there() -> None:
    rates = [learning_rate(i, iterations=100, base=1.0, warmup=10) for i in range(120)]
    assert rates[0] == pytest.approx(1e-3) and rates.index(max(rates)) == 10 and rates[99] > 0
    assert all(a < b for a, b in pairwise(rates[:11]))
    assert all(a > b for a, b in pairwise(rates[10:101])) and set(rates[100:]) == {0.0}
    assert learning_rate(0, 100, 1.0, warmup=0) == 1.0
