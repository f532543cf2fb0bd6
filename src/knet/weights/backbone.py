"""Loads weights of a backbone alone, as others trained it on ImageNet, into the backbone of a network.

It reads torchvision's and timm's ResNets, OpenMMLab's with a deep stem, Swin of timm and of the original code, RTFormer
of the official RT-K-Net, any backbone of timm for the same one, EfficientNets of their first PyTorch code, and the
backbone of a whole network's weights.
"""

import re
from collections.abc import Callable

from torch import Tensor, nn

from knet.errors import CheckpointError
from knet.models.backbones.named import TimmBackbone
from knet.models.backbones.resnet import ResNet
from knet.models.backbones.rtformer import RTFormer
from knet.models.backbones.swin import Swin
from knet.weights import openmmlab, rtknet, swin
from knet.weights.load import require_finite_weights

_PREFIX = "backbone."
# What classifiers' files cannot have: the norms of the maps, the offsets of deformable convolutions (which start at
# zero), and a counter that old versions of PyTorch did not keep.
_MAY_MISS = re.compile(r"norms\.|.*\.conv2\.offset\.|.*\.num_batches_tracked$")
_SHOWN = 3  # tensors that an error names


def load_backbone(net: nn.Module, state: dict[str, Tensor], origin: str) -> str:
    """Loads weights under their file's own names into a network's `backbone`. -> a sentence about what was loaded

    Tensors outside the backbone, such as a classifier's, are left out. All tensors of the backbone must fit, except
    those that no classifier has. `origin` is the file, for errors.

    Raises:
        CheckpointError: the file lacks tensors of the backbone, has too many, or some of another shape.
    """
    backbone: nn.Module = net.backbone  # type: ignore[assignment]
    expected = backbone.state_dict()
    inside = {key.removeprefix(_PREFIX): tensor for key, tensor in state.items() if key.startswith(_PREFIX)} or state
    ours = inside if expected.keys() <= inside.keys() else _translated(inside, backbone)
    parts = tuple(f"{_plain(name)}_" for name, _ in (getattr(backbone, "net", backbone)).named_children())
    missing = [key for key in expected if key not in ours and not _MAY_MISS.match(key)]
    unexpected = [key for key in ours if key not in expected and _plain(key).startswith(parts)]
    shapes = [key for key in expected if key in ours and ours[key].shape != expected[key].shape]
    faults = {"missing": missing, "too many": unexpected, "of another shape": shapes}
    if any(faults.values()):
        listed = ", ".join(f"{len(keys)} {fault} ({_some(keys)})" for fault, keys in faults.items() if keys)
        raise CheckpointError(
            f"The weights in '{origin}' do not fit the backbone of this model, which has {len(expected)} tensors: "
            f"{listed}; give weights of the same backbone, or choose another with arguments.backbone=NAME."
        )
    fitting = {key: tensor for key, tensor in ours.items() if key in expected}
    require_finite_weights(fitting, origin)
    backbone.load_state_dict(expected | fitting)
    return (
        f"{len(fitting)} of the {len(expected)} tensors of the backbone are from '{origin}'; the rest of the network's "
        f"{len(net.state_dict())} starts from random numbers"
    )


def _translated(state: dict[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    """The state dict under the names of our backbone; unknown keys pass unchanged."""
    if isinstance(backbone, Swin):
        return swin.translate(state)
    if isinstance(backbone, TimmBackbone) and "_conv_stem.weight" in state:
        # EfficientNets under the names of their first PyTorch code: the same tensors in the same order.
        return dict(zip(backbone.state_dict(), state.values(), strict=False))
    if isinstance(backbone, TimmBackbone):  # with `features_only`, timm joins the first names of a key by underscores
        names = {_plain(key.removeprefix("net.")): key for key in backbone.state_dict()}
        return {names.get(_plain(key), key): tensor for key, tensor in state.items()}
    rename: Callable[[str], str] = {ResNet: openmmlab.rename_image, RTFormer: rtknet.rename}[type(backbone)]
    return {rename(f"{_PREFIX}{key}").removeprefix(_PREFIX): tensor for key, tensor in state.items()}


def _plain(key: str) -> str:
    return key.replace(".", "_")


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (" ..." if len(keys) > _SHOWN else "")
