"""Our EfficientNet-Lite0 is timm's, also in training."""

from __future__ import annotations

import pytest
import timm
import torch

from knet.models.backbones.efficientnet_lite import EfficientNetLite
from knet.models.backbones.timm_padding import with_constant_padding


def test_it_computes_and_learns_as_that_of_timm() -> None:
    ours = EfficientNetLite(drop_path=0.5)
    theirs = timm.create_model("tf_efficientnet_lite0", features_only=True, drop_path_rate=0.5)
    theirs = with_constant_padding(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for start, wanted in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert float(start.std()) == pytest.approx(float(wanted.std()), rel=0.5)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 96)
    for training in (True, False):
        found = []
        for net in (ours, theirs):
            torch.manual_seed(4)
            maps = net.train(training)(images)[-4:]
            sum(x.square().mean() for x in maps).backward()
            found.append([*maps, *(parameter.grad for parameter in net.parameters())])
        assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert [x.shape[1] for x in maps] == list(ours.channels)
