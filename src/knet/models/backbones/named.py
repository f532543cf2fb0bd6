"""Backbones by name: those of the published K-Nets, and any of timm's with maps at 1/4 to 1/32 of the image."""

from typing import Any

from torch import Tensor, nn

from knet.errors import ConfigError
from knet.models.backbones.efficientnet_lite import EfficientNetLite
from knet.models.backbones.resnet import ResNet
from knet.models.backbones.swin import Swin
from knet.models.backbones.timm_padding import with_constant_padding

# Frozen ResNets are for things and stuff; those with a deep stem ("v1c"), trained in all layers, for semantics.
_PUBLISHED: dict[str, tuple[type[ResNet | Swin], dict[str, Any]]] = {
    "r50": (ResNet, {"depth": 50, "frozen": True}),
    "r101": (ResNet, {"depth": 101, "frozen": True}),
    "r101dcn": (ResNet, {"depth": 101, "deformable": True, "frozen": True}),
    "r50-deep": (ResNet, {"depth": 50, "deep_stem": True}),
    "r50-dilated": (ResNet, {"depth": 50, "deep_stem": True, "output_stride": 8}),
    "swint": (Swin, {"embed_dim": 96, "depths": (2, 2, 6, 2), "heads": (3, 6, 12, 24)}),
    "swinb": (Swin, {"embed_dim": 128, "depths": (2, 2, 18, 2), "heads": (4, 8, 16, 32)}),
    "swinl": (Swin, {"embed_dim": 192, "depths": (2, 2, 18, 2), "heads": (6, 12, 24, 48)}),
}


class TimmBackbone(nn.Module):
    """A backbone of timm. (B,3,H,W) -> four maps (B,C,h,w) at 1/4, 1/8, 1/16, 1/32; `channels` has the C of each"""

    output_stride = 32

    def __init__(self, name: str, drop_path: float = 0.0):
        super().__init__()
        self.name = name
        if name == "tf_efficientnet_lite0":
            self.net: Any = EfficientNetLite(drop_path)
            self.channels, self.picks, self.channels_last = self.net.channels, [0, 1, 2, 3], False
            return
        import timm  # slow to import, so only where one of its backbones is used

        try:
            if not timm.is_model(name):  # timm would ask other computers for names of models that are there
                raise ValueError("timm has no such model")
            dropped: dict[str, Any] = (
                {"drop_path_rate": drop_path} if drop_path else {}
            )  # not all of timm's models take it
            self.net = with_constant_padding(timm.create_model(name, features_only=True, **dropped))
            info: Any = self.net.feature_info
            strides = info.reduction()
            self.picks = [len(strides) - 1 - strides[::-1].index(stride) for stride in (4, 8, 16, 32)]
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(
                f"timm's '{name}' cannot be a backbone here ({reason}); it must exist and give maps at 1/4, 1/8, 1/16 "
                "and 1/32 of the image, as convnext_tiny or resnet18 do."
            ) from error
        depths = info.channels()
        self.channels = tuple(depths[pick] for pick in self.picks)
        self.channels_last = getattr(self.net, "output_fmt", "NCHW") == "NHWC"  # as transformers give them

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.net(images)
        return [maps[pick].permute(0, 3, 1, 2) if self.channels_last else maps[pick] for pick in self.picks]


def named_backbone(name: str, **arguments: Any) -> ResNet | Swin | TimmBackbone:
    """A backbone with random weights. (B,3,H,W) -> c2..c5

    Its attribute `channels` has their depths, `output_stride` the image pixels to a cell of c5.

    Args:
        name: "r50", "r101", "r101dcn", "r50-deep", "r50-dilated", "swint", "swinb", "swinl", or "timm/" and the name of
            a model of timm.
        arguments: further constructor arguments, such as `drop_path` of Swin.

    Raises:
        ConfigError: there is no such backbone.
    """
    if name.startswith("timm/"):
        return TimmBackbone(name.removeprefix("timm/"), **arguments)
    if name not in _PUBLISHED:
        names = ", ".join(_PUBLISHED)
        raise ConfigError(
            f"There is no backbone '{name}'; it is one of: {names}, or timm/ and a model of timm (timm/convnext_tiny)."
        )
    build, own = _PUBLISHED[name]
    return build(**own, **arguments)
