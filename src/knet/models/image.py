"""K-Net for images (Zhang et al., NeurIPS 2021): panoptic and instance segmentation with one set of kernels."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from knet.errors import ConfigError
from knet.models.backbones.named import named_backbone
from knet.models.decoder import KernelDecoder
from knet.models.kernels import Pooling
from knet.models.necks.fpn import FPN
from knet.models.necks.semantic_fpn import SemanticFPN, conv_norm_relu
from knet.structures import Output


class KNet(nn.Module):
    """A backbone, two pyramids, and kernels that are refined on the feature map at 1/8 of the image.

    Learned kernels look for things. For stuff there is one kernel a class: the semantic branch's weights of that class,
    which join before the first stage. After it all kernels are treated alike, but stuff kernel i means stuff[i].

    Args:
        classes: K, things and stuff.
        stuff: labels of the stuff classes, in ascending order. None at all: instance segmentation.
        backbone: see `named_backbone`.
        kernels: N, the largest number of things in an image.
        stages: number of kernel updates.
        channels: C, of kernels and features; a multiple of 32.
        pooling: "mean" is RT-K-Net's mask normalisation (its Eq. 8), with which half precision keeps in range.

    Raises:
        ConfigError: unknown backbone, or stuff labels that are not among the classes.
    """

    stride = 8  # pixels of the image a cell of the feature map stands for
    size_divisor = 32  # image sides are padded to multiples of this
    kernel_layers = ("semantic",)  # layers whose weights are used as kernels, too

    def __init__(
        self,
        classes: int,
        stuff: Sequence[int] = (),
        backbone: str = "r50",
        kernels: int = 100,
        stages: int = 3,
        channels: int = 256,
        pooling: Pooling = "sum",
    ):
        super().__init__()
        if not set(stuff) <= set(range(classes)):
            raise ConfigError(
                f"The stuff labels {list(stuff)} are not all among the {classes} classes; give stuff= the labels "
                f"(0 to {classes - 1}) of the classes that are not countable, () for none."
            )
        self.stuff = list(stuff)
        self.backbone = named_backbone(backbone)
        self.neck = FPN(self.backbone.channels, channels)  # type: ignore[arg-type]
        self.pyramid = SemanticFPN(channels)
        self.to_localization, self.to_semantics = conv_norm_relu(channels), conv_norm_relu(channels)
        self.semantic = nn.Conv2d(channels, classes, 1)
        self.decoder = KernelDecoder(channels, kernels, classes, stages, pooling, transform=True)
        nn.init.normal_(self.semantic.weight, std=0.01)
        nn.init.constant_(self.semantic.bias, -math.log(99))  # type: ignore[arg-type] # a probability of 0.01
        nn.init.normal_(self.decoder.kernels)

    def forward(self, images: Tensor) -> list[Output]:
        """Segments an image batch.

        (B,3,H,W) normalised RGB, H and W multiples of 32 -> the initial output (things alone, no classes; in training
        with the semantic logits (B,K,H/8,W/8)), then one Output an update: N kernels for things, then one for each
        stuff class. The last one is the result.
        """
        localization, semantics = self.pyramid(self.neck(self.backbone(images)))
        localization, semantics = self.to_localization(localization), self.to_semantics(semantics)
        semantic_logits = self.semantic(semantics)
        fixed = None
        if self.stuff:
            kernels = self.semantic.weight.flatten(1)[self.stuff].expand(len(images), -1, -1)
            fixed = kernels, semantic_logits[:, self.stuff]
        outputs = self.decoder(localization + semantics, localization, fixed)
        if self.training:
            outputs[0].semantic_logits = semantic_logits
        return outputs
