"""Weights from ImageNet by the backbone's name, as torchvision and timm publish them."""

from pathlib import Path

from torch import nn

from knet.errors import ConfigError
from knet.models.backbones.named import TimmBackbone
from knet.models.backbones.resnet import ResNet
from knet.models.backbones.swin import Swin
from knet.weights.fetch import fetch, local

_SWINS = {96: "swin_tiny", 128: "swin_base", 192: "swin_large"}  # by the channels of the first stage


def imagenet_file(backbone: nn.Module) -> Path:
    """The file of a backbone's weights, fetched once. The addresses are those that torchvision and timm name.

    Raises:
        ConfigError: neither publishes weights of this backbone.
        DownloadError: they cannot be fetched.
    """
    if isinstance(backbone, ResNet) and isinstance(backbone.conv1, nn.Conv2d):
        from torchvision.models import get_model_weights

        depth = 50 if len(backbone.layer3) == 6 else 101
        url = get_model_weights(f"resnet{depth}")["IMAGENET1K_V1"].url
        return fetch(url, Path(url).stem.rpartition("-")[2])  # the names end in the first digits of the SHA-256
    name = None
    if isinstance(backbone, Swin):
        name = f"{_SWINS.get(backbone.channels[0], 'swin')}_patch4_window7_224"
    elif isinstance(backbone, TimmBackbone):
        name = backbone.name
    if name is None:
        raise ConfigError(
            "There are no weights from ImageNet by name for this backbone; give their file, backbone_weights=FILE, or "
            "leave it out."
        )
    from timm.models import get_pretrained_cfg

    known = get_pretrained_cfg(name, allow_unregistered=False)
    if known is None or not known.hf_hub_id:
        raise ConfigError(f"timm publishes no weights of '{name}'; leave backbone_weights out, or give a file.")
    return local(f"hf:{known.hf_hub_id}/model.safetensors")
