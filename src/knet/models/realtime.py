"""RT-K-Net (Schoen et al., IV 2023): real-time panoptic segmentation with one set of kernels for things and stuff."""

from torch import Tensor, nn

from knet.models.backbones.rtformer import RTFormer, norm_relu_conv
from knet.models.decoder import KernelDecoder
from knet.models.kernels import Pooling
from knet.models.necks.dappm import FeatureHead
from knet.structures import Output


class RTKNet(nn.Module):
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
        pooling: "mean" is the paper's mask normalisation (Eq. 8), "sum" goes without, as K-Net does.
        auxiliary: whether a semantic head helps to train the feature map.
    """

    stride = 8  # pixels of the image a cell of the feature map stands for
    size_divisor = 32  # image sides are padded to multiples of this

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
    ):
        super().__init__()
        self.backbone = RTFormer(width, injection, drop_path)
        self.neck = FeatureHead(2 * width, 8 * width, head_width, channels)
        self.feature_transform = nn.Sequential(
            *norm_relu_conv(channels, channels),
            *norm_relu_conv(channels, channels, bias=True),
            nn.BatchNorm2d(channels),
        )
        self.decoder = KernelDecoder(channels, kernels, classes, stages, pooling=pooling)
        self.semantic: nn.Module | None = None
        if auxiliary:  # trains the feature map, answers nothing: left out in evaluation, but in official checkpoints
            self.semantic = nn.Sequential(*norm_relu_conv(channels, channels), *norm_relu_conv(channels, classes))
            self.semantic.apply(_kaiming)
        for module in (self.neck, self.feature_transform):
            module.apply(_kaiming)

    def forward(self, images: Tensor) -> list[Output]:
        """Segments an image batch.

        (B,3,H,W) normalised RGB, H and W multiples of 32 -> the initial output (no classes; in training with the
        auxiliary semantic logits (B,K,H/8,W/8)), then one Output an update. The last one is the result.
        """
        neck = self.neck(*self.backbone(images))
        outputs = self.decoder(self.feature_transform(neck))
        if self.training and self.semantic is not None:
            outputs[0].semantic_logits = self.semantic(neck)
        return outputs


def _kaiming(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
