"""Runs that start from the weights of a backbone alone, in the forms in which others publish them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet50

import knet
from knet.config import RunConfig
from knet.data.categories import load_categories
from knet.errors import CheckpointError, ConfigError
from knet.models.backbones.named import named_backbone
from knet.models.backbones.swin import Swin
from knet.runs.build import load_first, run_card
from knet.weights.backbone import load_backbone
from knet.weights.load import read_checkpoint

DATA = {"val": {"images": "a", "json": "b", "masks": "c"}}
MODEL = "rtknet-slim-camvid"
CARD = run_card(RunConfig.model_validate({"model": MODEL, "data": DATA}), load_categories("camvid"))


class Whole(nn.Module):
    """A network of which nothing matters but its backbone."""

    def __init__(self, backbone: str | nn.Module):
        super().__init__()
        self.backbone = named_backbone(backbone) if isinstance(backbone, str) else backbone
        self.rest = nn.Linear(2, 2)


def started(net: nn.Module, path: Path) -> str:
    return load_first(net, RunConfig.model_validate({"model": MODEL, "backbone_weights": path, "data": DATA}), CARD)


def random_like(state: dict[str, Tensor]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        key: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
        for key, value in state.items()
    }


def test_torchvisions_resnet(tmp_path: Path) -> None:
    state = random_like(resnet50().state_dict())
    torch.save(state, tmp_path / "resnet50.pth")
    net = Whole("r50")
    rest = net.rest.weight.clone()
    said = started(net, tmp_path / "resnet50.pth")
    assert said == (
        f"318 of the 318 tensors of the backbone are from '{tmp_path / 'resnet50.pth'}'; the rest of the network's 320 "
        "starts from random numbers"
    )
    assert all(torch.equal(value, state[key]) for key, value in net.backbone.state_dict().items())
    assert torch.equal(net.rest.weight, rest)


def test_deformable_convolutions_begin_as_plain_ones_and_old_files_count_no_batches(tmp_path: Path) -> None:
    state = random_like(Whole("r101dcn").backbone.state_dict())
    plain = {k: v for k, v in state.items() if ".offset." not in k and "num_batches" not in k}
    plain["fc.weight"] = torch.zeros(1000, 2048)
    save_file(plain, tmp_path / "resnet101.safetensors")
    net = Whole("r101dcn")
    assert started(net, tmp_path / "resnet101.safetensors").startswith(f"{len(plain) - 1} of the {len(state)} tensors")
    block = net.backbone.layer2[0].conv2
    assert not block.offset.weight.any() and torch.equal(block.weight, state["layer2.0.conv2.weight"])


def test_openmmlabs_deep_stem(tmp_path: Path) -> None:
    net = Whole("r50-deep")
    state = random_like(net.backbone.state_dict())
    theirs = {k.replace("conv1.", "stem.", 1) if k.startswith("conv1.") else k: v for k, v in state.items()}
    theirs = {k.replace("bn1.", "stem.7.", 1) if k.startswith("bn1.") else k: v for k, v in theirs.items()}
    torch.save({"state_dict": theirs, "meta": {}}, tmp_path / "resnet50_v1c.pth")
    started(net, tmp_path / "resnet50_v1c.pth")
    assert all(torch.equal(value, state[key]) for key, value in net.backbone.state_dict().items())


@pytest.mark.parametrize("form", ["timm", "first"])
def test_swins_of_timm_and_of_the_first_code_see_what_they_saw(form: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = {"depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8), "embed_dim": 16, "img_size": 224}
    classifier = timm.create_model("swin_tiny_patch4_window7_224", **small)
    for parameter in classifier.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    state = classifier.state_dict()
    if form == "first":  # where a merging ends the stage before, and tables are stored
        for number in (1, 2, 3):
            for key in [key for key in state if key.startswith(f"layers.{number}.downsample.")]:
                state[key.replace(str(number), str(number - 1), 1)] = state.pop(key)
        state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49)
    torch.save({"model": state}, tmp_path / "swin.pth")
    net = Whole(Swin(16, depths=(2, 2, 2, 2), heads=(1, 2, 4, 8))).eval()
    assert "tensors of the backbone are from" in started(net, tmp_path / "swin.pth")
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        ours = net.backbone(image)
        theirs = classifier.eval().forward_intermediates(image, intermediates_only=True)
    for map_, other in list(zip(ours, theirs, strict=True))[:3]:  # timm shifts no windows on the last, of 7 x 7 cells
        other = F.layer_norm(other.permute(0, 2, 3, 1), other.shape[1:2]).permute(0, 3, 1, 2)
        torch.testing.assert_close(map_, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "mobilenetv3_small_050"])
def test_any_of_timm_with_its_own_names(name: str, tmp_path: Path) -> None:
    classifier = timm.create_model(name)
    state = random_like(classifier.state_dict())
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    net = Whole(f"timm/{name}").eval()
    started(net, tmp_path / "model.safetensors")
    values = {key.replace(".", "_"): value for key, value in state.items()}
    ours = net.backbone.net.state_dict()
    assert ours and all(torch.equal(value, values[key.replace(".", "_")]) for key, value in ours.items())


def test_the_backbone_of_a_whole_network(tmp_path: Path, official_checkpoint: Any) -> None:
    official = official_checkpoint("manifest_cityscapes_slim.json", 3)
    net = knet.create("rtknet-slim-camvid")
    started(net, official)
    state = read_checkpoint(official).state
    assert all(torch.equal(value, state[f"backbone.{key}"]) for key, value in net.backbone.state_dict().items())
    # And under the official names, without the rest of the network.
    alone = {k: v for k, v in torch.load(official, weights_only=True)["model"].items() if k.startswith("backbone.")}
    torch.save({k.removeprefix("backbone."): v for k, v in alone.items()}, tmp_path / "rtformer.pth")
    again = knet.create("rtknet-slim-camvid")
    started(again, tmp_path / "rtformer.pth")
    assert all(torch.equal(x, y) for x, y in zip(again.backbone.parameters(), net.backbone.parameters(), strict=True))


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    net, state = Whole("r50"), resnet50().state_dict()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    wrong = dict(state)
    del wrong["layer1.0.conv1.weight"]
    wrong["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    wrong["layer3.6.conv1.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as error:
        load_backbone(net, wrong, "w.pth")
    assert str(error.value) == (
        "The weights in 'w.pth' do not fit the backbone of this model, which has 318 tensors: 1 missing "
        "(layer1.0.conv1.weight), 1 too many (layer3.6.conv1.weight), 1 of another shape (conv1.weight); give weights "
        "of the same backbone, or choose another with arguments.backbone=NAME."
    )
    with pytest.raises(CheckpointError, match=r": 265 missing \(conv1.weight, bn1.weight, bn1.bias ...\); give"):
        load_backbone(net, {"a": torch.zeros(1)}, "w.pth")
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_backbone_weights_where_all_are_asked_for_and_both(tmp_path: Path) -> None:
    torch.save(resnet50().state_dict(), tmp_path / "resnet50.pth")
    both = {"model": MODEL, "data": DATA, "weights": "w.pth", "backbone_weights": "b.pth"}
    with pytest.raises(ConfigError, match="starts from weights or from backbone_weights; leave one of them out"):
        load_first(Whole("r50"), RunConfig.model_validate(both), CARD)
    whole = RunConfig.model_validate({"model": MODEL, "data": DATA, "weights": tmp_path / "resnet50.pth"})
    with pytest.raises(CheckpointError, match="Weights of a backbone alone are given as backbone_weights=FILE"):
        load_first(Whole("r50"), whole, CARD)
