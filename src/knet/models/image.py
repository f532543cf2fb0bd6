"""K-Net for images (Zhang et al., NeurIPS 2021): panoptic and instance segmentation with one set of kernels."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from knet.models.backbones.named import named_backbone
from knet.models.decoder import KernelDecoder, class_kernels, stuff_labels
from knet.models.kernels import Pooling
from knet.models.necks.fpn import FPN
from knet.models.necks.semantic_fpn import SemanticFPN, conv_norm_relu
from knet.models.network import Network
from knet.structures import Output


class KNet(Network):
    """A backbone, two pyramids, and kernels that are refined on the feature map at 1/8 of the image.

    Learned kernels find things. Each stuff class has one kernel, its weights in the semantic branch, which joins before
    the first stage. From there on all kernels are treated alike, except that stuff kernel i means the class stuff[i].

    Args:
        classes: K, things and stuff.
        stuff: labels of the stuff classes, in ascending order; none for instance segmentation.
        backbone: see `named_backbone`.
        kernels: N, the largest number of things in an image.
        stages: number of kernel updates.
        channels: C, of kernels and features; a multiple of 32.
        pooling: "mean" is RT-K-Net's mask normalisation (its Eq. 8), which stays in the range of half precision.
        drop_path: of a Swin backbone; None for its default.

    Raises:
        ConfigError: unknown backbone, or stuff labels that are not among the classes.
    """

    stride = 8
    size_divisor = 32
    kernel_layers = ("semantic",)
    tells_semantics = False  # whether the first output has the semantic logits outside of training, too

    def __init__(
        self,
        classes: int,
        stuff: Sequence[int] = (),
        backbone: str = "r50",
        kernels: int = 100,
        stages: int = 3,
        channels: int = 256,
        pooling: Pooling = "sum",
        drop_path: float | None = None,
    ):
        super().__init__()
        self.stuff = stuff_labels(stuff, classes)
        self.backbone = named_backbone(backbone, **({} if drop_path is None else {"drop_path": drop_path}))
        self.neck = FPN(self.backbone.channels, channels)
        self.pyramid = SemanticFPN(channels)
        self.to_localization, self.to_semantics = conv_norm_relu(channels), conv_norm_relu(channels)
        self.semantic = nn.Conv2d(channels, classes, 1)
        self.decoder = KernelDecoder(channels, kernels, classes, stages, pooling, transform=True)
        nn.init.normal_(self.semantic.weight, std=0.01)
        nn.init.constant_(self.semantic.bias, -math.log(99))  # type: ignore[arg-type] # a probability of 0.01
        nn.init.normal_(self.decoder.kernels)

    def forward(self, images: Tensor) -> list[Output]:
        """Segments a batch of images. (B,3,H,W) normalised RGB, H and W multiples of 32 -> [Output, ...]

        First the initial output (things only, no classes; in training with the semantic logits (B,K,H/8,W/8)), then one
        Output an update: N kernels for things, then one for each stuff class. The last one is the result.
        """
        return self.decode(*self.features(images))

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The two feature maps of an image. (B,3,H,W) -> localisation and semantics, (B,C,H/8,W/8) each"""
        localization, semantics = self.pyramid(self.neck(self.backbone(images)))
        return self.to_localization(localization), self.to_semantics(semantics)

    def decode(self, localization: Tensor, semantics: Tensor, previous: Tensor | None = None) -> list[Output]:
        """From `features` to the outputs of `forward`; `previous` is for networks linked to the frame before."""
        semantic_logits = self.semantic(semantics)
        fixed = class_kernels(self.semantic, semantic_logits, self.stuff) if self.stuff else None
        outputs = self.decoder(localization + semantics, localization, fixed, previous)
        if self.training or self.tells_semantics:
            outputs[0].semantic_logits = semantic_logits
        return outputs
