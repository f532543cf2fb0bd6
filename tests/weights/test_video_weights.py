"""Official checkpoints of Video K-Net: read from their files, kept in ours, and refused where they do not fit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import knet
from knet.errors import CheckpointError
from knet.models.zoo import entry
from knet.weights.load import read_checkpoint

MODEL = "video-knet-r50-kitti-step"


@pytest.fixture
def official(official_checkpoint: Any) -> Path:
    return official_checkpoint("manifest_r50.json", 26, "video_knet")


def test_converting_keeps_every_tensor_and_says_what_it_is(official: Path, tmp_path: Path, street: Path) -> None:
    target = tmp_path / "video.safetensors"
    card = knet.convert(official, target, MODEL)
    assert (card.task, card.merge, card.score, card.overlap) == ("panoptic", "sorted", 0.25, 0.6)
    assert [category.name for category in card.categories][:3] == ["person", "car", "road"]
    direct, converted = read_checkpoint(official), read_checkpoint(target)
    assert direct.state.keys() == converted.state.keys() == knet.create(MODEL).state_dict().keys()
    assert all(torch.equal(tensor, direct.state[key]) for key, tensor in converted.state.items())
    segmenter = knet.load(target, device="cpu")
    assert segmenter.preprocessing == entry(MODEL).preprocessing
    assert segmenter(street, size=64).id_map.shape == (64, 96)


def test_more_levels_of_the_pyramid_change_nothing(official: Path, goldens: Any, tmp_path: Path) -> None:
    """The checkpoints with an FPN of eight levels, of which four are read."""
    extra = json.loads((goldens / "video_knet" / "manifest_r50_fpn8.json").read_text())
    content = torch.load(official, weights_only=True)
    added = extra.keys() - content["state_dict"].keys()
    assert len(added) == 8
    content["state_dict"] |= {key: torch.ones(extra[key]) for key in added}
    torch.save(content, tmp_path / "fpn8.pth")
    plain, eight = read_checkpoint(official).state, read_checkpoint(tmp_path / "fpn8.pth").state
    assert plain.keys() == eight.keys()
    assert all(torch.equal(tensor, plain[key]) for key, tensor in eight.items())


def test_weights_of_another_video_model_are_refused(official: Path) -> None:
    with pytest.raises(CheckpointError, match=r"shape: semantic\.bias is 19, the model needs 124"):
        knet.load("video-knet-r50-vipseg", weights=official)


def test_an_official_image_model_lacks_nothing_but_what_links_frames(official_checkpoint: Any) -> None:
    image = official_checkpoint("manifest_knet_citystep_r50.json", 112, "video_knet")
    assert knet.load("knet-r50-cityscapes-step", weights=image, device="cpu").score == 0.3
    missing = knet.create(MODEL).state_dict().keys() - read_checkpoint(image).state.keys()
    assert {key.split(".")[0] for key in missing} == {"decoder", "embedding"}
    assert all(key.startswith(("decoder.stages.2.link.", "embedding.")) for key in missing)
