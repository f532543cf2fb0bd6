"""RT-K-Net on light backbones: what timm computes, at any size, with weights from ImageNet, and in exported files."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from onnxruntime import InferenceSession

import knet
from knet.errors import ConfigError
from knet.export.write import export
from knet.inference.load import describe_official
from knet.models.backbones.named import TimmBackbone
from knet.weights.load import save_weights

LITE0 = "tf_efficientnet_lite0"


def test_constant_padding_is_what_timm_computes() -> None:
    torch.manual_seed(0)
    theirs = timm.create_model(LITE0, features_only=True).eval()
    ours = TimmBackbone(LITE0).eval()
    ours.net.load_state_dict(theirs.state_dict())
    for size in ((64, 96), (32, 160)):
        images = torch.randn(2, 3, *size)
        with torch.no_grad():
            for map_, other in zip(ours(images), theirs(images)[-4:], strict=True):
                torch.testing.assert_close(map_, other, rtol=0, atol=0)


@pytest.mark.parametrize("stride", [4, 8])
@torch.no_grad()
def test_the_last_masks_have_the_stride(stride: int) -> None:
    net = knet.create("rtknet-lite-street", stride=stride).eval()
    outputs = net(torch.randn(1, 3, 64, 96))
    assert net.stride == stride
    sides = [tuple(output.mask_logits.shape[2:]) for output in outputs]
    assert sides == [(8, 12)] * 3 + [(64 // stride, 96 // stride)]


def test_detail_is_nothing_at_first_and_learns() -> None:
    torch.manual_seed(0)
    fine, coarse = (knet.create("rtknet-lite-street", stride=stride).eval() for stride in (4, 8))
    missing = fine.load_state_dict(coarse.state_dict(), strict=False).missing_keys
    assert missing and all(key.startswith("detail.") for key in missing)
    images = torch.randn(1, 3, 64, 96)
    found, expected = fine(images)[-1], coarse(images)[-1]
    enlarged = torch.nn.functional.interpolate(expected.mask_logits, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(found.mask_logits, enlarged, rtol=0, atol=0)
    assert torch.equal(found.class_logits, expected.class_logits)
    found.mask_logits.square().sum().backward()
    last = fine.detail.to_mask[-1].weight
    assert last.grad.abs().sum() > 0
    with torch.no_grad():
        last -= last.grad
        assert not torch.equal(fine(images)[-1].mask_logits, enlarged)
        torch.testing.assert_close(fine(images)[-1].class_logits, expected.class_logits)


def test_weights_in_the_order_of_the_first_code(tmp_path: Path) -> None:
    """Of which the keys are `_conv_stem.weight`, `_bn0.weight`, ... for the same tensors in the same order."""
    classifier = timm.create_model(LITE0)
    state = {f"_{number}.weight": tensor for number, tensor in enumerate(classifier.state_dict().values())}
    first, *others = state.values()
    state = {"_conv_stem.weight": first} | {f"_{number}": tensor for number, tensor in enumerate(others)}
    net = knet.create("rtknet-lite-street")
    sentence = knet.weights.backbone.load_backbone(net, state, "lite0.pth")
    assert sentence.startswith("288 of the 288 tensors")
    ours = {key.removeprefix("net."): tensor for key, tensor in net.backbone.state_dict().items()}
    assert all(torch.equal(tensor, classifier.state_dict()[key]) for key, tensor in ours.items())


@pytest.mark.large
def test_an_export_for_any_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {"backbone": "timm/tf_efficientnet_lite0", "kernels": 8, "stages": 1, "channels": 16}
    net = knet.create("rtknet-lite-street", **arguments).eval()
    save_weights(tmp_path / "lite.safetensors", net.state_dict(), describe_official("rtknet-lite-street", arguments))
    export(tmp_path / "lite.safetensors", output=tmp_path / "lite.onnx")
    session = InferenceSession(tmp_path / "lite.onnx")
    for size in ((64, 96), (160, 32)):
        images = torch.randn(1, 3, *size)
        with torch.no_grad():
            expected = net(images)[-1]
        (classes,) = session.run(["class_logits"], {"images": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(classes), expected.class_logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"stride": 16}, "There is no stride 16 with the backbone timm/tf_efficientnet_lite0"),
        ({"stride": 4, "backbone": "rtformer"}, "There is no stride 4 with the backbone rtformer"),
        ({"backbone": "timm/nothing"}, "timm has no such model"),
    ],
)
def test_what_there_is_not(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        knet.create("rtknet-lite-street", **arguments)
