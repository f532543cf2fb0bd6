"""Official weights of Video K-Net for clips: every tensor has its place, and nothing is left over."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import knet
from knet.errors import CheckpointError
from knet.weights.load import read_checkpoint
from knet.weights.openmmlab import translate_image

MODEL = "video-knet-r50-youtube-vis"


def shapes(name: str) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {key: tensor.shape for key, tensor in knet.create(name).state_dict().items()}


def test_every_official_tensor_has_its_place(goldens: Any) -> None:
    keys = json.loads((goldens / "video_knet" / "manifest_vis_r50.json").read_text())
    ours = translate_image({key: torch.empty(shape, device="meta") for key, shape in keys.items()})
    assert len(ours) == len(keys) == 629
    assert {key: tensor.shape for key, tensor in ours.items()} == shapes(MODEL)


def test_the_swin_model_differs_in_its_backbone_alone(goldens: Any) -> None:
    """No list of its official names is at hand: the backbone's are those of the Swin-B model for KITTI-STEP."""
    folder = goldens / "video_knet"
    swin = json.loads((folder / "manifest_swinb.json").read_text())
    clip = json.loads((folder / "manifest_vis_r50.json").read_text())
    keys = {key: shape for key, shape in clip.items() if not key.startswith("backbone.")}
    keys |= {key: shape for key, shape in swin.items() if key.startswith(("backbone.", "neck."))}
    expected = shapes("video-knet-swinb-youtube-vis")
    ours = translate_image({key: torch.empty(shape, device="meta") for key, shape in keys.items()})
    assert {key: tensor.shape for key, tensor in ours.items()} == expected


def test_converted_weights_are_the_same_model(official_checkpoint: Any, tmp_path: Path) -> None:
    official = official_checkpoint("manifest_vis_r50.json", 81, "video_knet")
    card = knet.convert(official, tmp_path / "clip.safetensors", MODEL)
    assert (card.task, len(card.categories)) == ("clip", 40)
    assert (card.preprocessing.short_edge, card.preprocessing.max_edge) == (360, 640)
    segmenter = knet.load(tmp_path / "clip.safetensors", device="cpu")
    assert (segmenter.name, segmenter.task) == (MODEL, "clip")
    state = read_checkpoint(official).state
    assert all(torch.equal(tensor, state[key]) for key, tensor in segmenter.net.state_dict().items())


def test_weights_without_the_clip_stages_are_refused(official_checkpoint: Any, tmp_path: Path) -> None:
    official = official_checkpoint("manifest_vis_r50.json", 81, "video_knet")
    content = torch.load(official, weights_only=True)
    lacking = {key: tensor for key, tensor in content["state_dict"].items() if not key.startswith("tracker.")}
    path = tmp_path / "image.pth"
    torch.save({"state_dict": lacking}, path)
    missing = len(content["state_dict"]) - len(lacking)
    with pytest.raises(CheckpointError, match=f"{missing} tensors missing, 0 unexpected") as error:
        knet.load(MODEL, weights=path)
    assert "missing: clip_stages.2.to_mask.3.bias" in str(error.value)
