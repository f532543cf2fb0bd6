"""RT-K-Net (Schoen et al., IV 2023): real-time panoptic segmentation with one set of kernels for things and stuff."""

from collections.abc import Sequence

from torch import Tensor, nn

from knet.errors import ConfigError
from knet.models.backbones.rtformer import RTFormer, norm_relu_conv
from knet.models.decoder import KernelDecoder, class_kernels, stuff_labels
from knet.models.kernels import Pooling
from knet.models.necks.dappm import FeatureHead
from knet.models.network import Network
from knet.structures import Output


class RTKNet(Network):
    """RTFormer, a feature head at 1/8 of the image, and kernels that are refined on it.

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

    Raises:
        ConfigError: stuff labels are not among the classes, or there is no semantic head for them.
    """

    stride = 8
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
    ):
        super().__init__()
        if stuff and not auxiliary:
            raise ConfigError(
                "Kernels of stuff are weights of the auxiliary semantic head; set auxiliary to true or leave stuff out."
            )
        self.stuff = stuff_labels(stuff, classes)
        self.kernel_layers = ("semantic",) if stuff else ()
        self.backbone = RTFormer(width, injection, drop_path)
        self.neck = FeatureHead(2 * width, 8 * width, head_width, channels)
        self.feature_transform = nn.Sequential(
            *norm_relu_conv(channels, channels),
            *norm_relu_conv(channels, channels, bias=True),
            nn.BatchNorm2d(channels),
        )
        self.decoder = KernelDecoder(channels, kernels, classes, stages, pooling=pooling)
        self.semantic: nn.Sequential | None = None
        if auxiliary:  # only helps to train the feature map: not run in evaluation, but part of official checkpoints
            self.semantic = nn.Sequential(*norm_relu_conv(channels, channels), *norm_relu_conv(channels, classes))
            self.semantic.apply(_kaiming)
        for module in (self.neck, self.feature_transform):
            module.apply(_kaiming)

    def forward(self, images: Tensor) -> list[Output]:
        """Segments a batch of images. (B,3,H,W) normalised RGB, H and W multiples of 32 -> [Output, ...]

        First the initial output (no classes; in training with the auxiliary semantic logits (B,K,H/8,W/8)), then one
        Output an update, in which the kernels of `stuff` come last. The last one is the result.
        """
        return self.decode(self.neck(*self.backbone(images)))

    def decode(self, neck: Tensor, previous: Tensor | None = None) -> list[Output]:
        """From the neck's map (B,C,H/8,W/8) to the outputs of `forward`; `previous` is for linked networks."""
        semantic_logits = self.semantic(neck) if self.semantic is not None and (self.training or self.stuff) else None
        fixed = None
        if self.stuff and self.semantic is not None and semantic_logits is not None:
            fixed = class_kernels(self.semantic[-1], semantic_logits, self.stuff)
        outputs = self.decoder(self.feature_transform(neck), fixed=fixed, previous=previous)
        if self.training:
            outputs[0].semantic_logits = semantic_logits
        return outputs


def _kaiming(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
