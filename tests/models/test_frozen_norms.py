"""Backbones that stay as they were learned, on one GPU and on several."""

import pytest
import torch
from torch import nn

from knet import distributed
from knet.models.backbones.resnet import ResNet


def test_frozen_batch_norms_stay_frozen_in_training_on_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the converter that training uses, which needs no GPU itself."""
    monkeypatch.setattr(distributed, "world", lambda: 2)
    net = nn.Sequential(ResNet(frozen=True), nn.BatchNorm2d(3))
    before = {name: parameter.requires_grad for name, parameter in net.named_parameters()}
    net = distributed.synchronize_norms(net, torch.device("cuda"))
    net.train()
    norms = [module for module in net.modules() if isinstance(module, nn.SyncBatchNorm)]
    assert len(norms) == 54
    assert [norm.training for norm in norms] == [False] * 53 + [True]  # the last one is not the backbone's
    assert {name: parameter.requires_grad for name, parameter in net.named_parameters()} == before
    assert not net[0].bn1.weight.requires_grad and net[0].layer2[0].bn1.weight.requires_grad
