"""RT-K-Net (Schoen et al., IV 2023): real-time panoptic segmentation with one set of kernels for things and stuff."""

from collections.abc import Sequence

from torch import Tensor, nn

from knet.errors import ConfigError
from knet.models.backbones.named import named_backbone
from knet.models.backbones.rtformer import RTFormer, norm_relu_conv
from knet.models.decoder import KernelDecoder, class_kernels, stuff_labels
from knet.models.detail import Detail
from knet.models.kernels import Pooling
from knet.models.necks.dappm import FeatureHead
from knet.models.necks.light import LightNeck
from knet.models.network import Network
from knet.structures import Output


class RTKNet(Network):
    """RTFormer, a feature head at 1/8 of the image, and kernels that are refined on it.

    Or another backbone with a light neck: not in the paper, and for processors without a GPU.

    Args:
        classes: K; stuff first, then things.
        kernels: N, the largest number of segments in an image.
        stages: number of kernel updates.
        width: RTFormer's base width; 64 base, 32 slim.
        head_width: channels between the feature head's two convolutions; 128 base, 64 slim.
        injection: see `RTFormer`.
        channels: C, of kernels and features.
        drop_path: probability of skipping a residual branch in training.
        pooling: "mean" is the paper's mask normalisation (Eq. 8); "sum" does without it, like K-Net.
        auxiliary: whether a semantic head helps to train the feature map.
        stuff: labels of the classes with a kernel of their own, as in K-Net: the semantic head's weights of the class,
            which join before the first stage. Without any, learned kernels find stuff as well: the paper's merging of
            kernels (section III-B), whose Table I measures both.
        backbone: "rtformer", to which width, head_width and injection belong; or any of `named_backbone`, such as
            "timm/tf_efficientnet_lite0", then with a `LightNeck`.
        stride: image pixels to a cell of the last masks: 8, or 4 with a light backbone, of which the map at 1/4 then
            sharpens them, see `Detail`. The kernels are refined at 1/8 in any case.
        hidden: width of the feed-forward network in each update.

    Raises:
        ConfigError: stuff labels are not among the classes, or there is no semantic head for them; there is no such
            backbone, or it has no such stride.
    """

    size_divisor = 32

    def __init__(
        self,
        classes: int,
        kernels: int = 100,
        stages: int = 4,
        width: int = 64,
        head_width: int = 128,
        injection: tuple[bool, bool] = (True, False),
        channels: int = 256,
        drop_path: float = 0.2,
        pooling: Pooling = "mean",
        auxiliary: bool = True,
        stuff: Sequence[int] = (),
        backbone: str = "rtformer",
        stride: int = 8,
        hidden: int = 2048,
    ):
        super().__init__()
        if stuff and not auxiliary:
            raise ConfigError(
                "Kernels of stuff are weights of the auxiliary semantic head; set auxiliary to true or leave stuff out."
            )
        self.stuff = stuff_labels(stuff, classes)
        self.kernel_layers = ("semantic",) if stuff else ()
        if stride not in ((8,) if backbone == "rtformer" else (4, 8)):
            raise ConfigError(
                f"There is no stride {stride} with the backbone {backbone}; give 8, or 4 with a light one."
            )
        self.stride = stride
        if backbone == "rtformer":
            self.backbone: nn.Module = RTFormer(width, injection, drop_path)
            self.neck: nn.Module = FeatureHead(2 * width, 8 * width, head_width, channels)
        else:
            light = named_backbone(backbone, drop_path=drop_path)
            self.backbone, self.neck = light, LightNeck(light.channels[1:], channels)
        self.feature_transform = nn.Sequential(
            *norm_relu_conv(channels, channels),
            *norm_relu_conv(channels, channels, bias=True),
            nn.BatchNorm2d(channels),
        )
        self.decoder = KernelDecoder(channels, kernels, classes, stages, pooling=pooling, hidden=hidden)
        self.semantic: nn.Sequential | None = None
        if auxiliary:  # only helps to train the feature map: not run in evaluation, but part of official checkpoints
            self.semantic = nn.Sequential(*norm_relu_conv(channels, channels), *norm_relu_conv(channels, classes))
            self.semantic.apply(_kaiming)
        for module in (self.neck, self.feature_transform):
            module.apply(_kaiming)
        self.detail = Detail(light.channels[0], channels) if stride == 4 else None

    def forward(self, images: Tensor) -> list[Output]:
        """Segments a batch of images. (B,3,H,W) normalised RGB, H and W multiples of 32 -> [Output, ...]

        First the initial output (no classes; in training with the auxiliary semantic logits (B,K,h,w)), then one
        Output an update, in which the kernels of `stuff` come last. The last one is the result.
        """
        return self.decode(*self.backbone(images))

    def decode(self, *maps: Tensor, previous: Tensor | None = None) -> list[Output]:
        """From the backbone's maps to the outputs of `forward`; `previous` is for linked networks."""
        neck = self.neck(*maps)
        semantic_logits = self.semantic(neck) if self.semantic is not None and (self.training or self.stuff) else None
        fixed = None
        if self.stuff and self.semantic is not None and semantic_logits is not None:
            fixed = class_kernels(self.semantic[-1], semantic_logits, self.stuff)
        outputs = self.decoder(self.feature_transform(neck), fixed=fixed, previous=previous)
        if self.training:
            outputs[0].semantic_logits = semantic_logits
        if self.detail is not None:
            outputs[-1].mask_logits = self.detail(outputs[-1], maps[0])
        return outputs


def _kaiming(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
