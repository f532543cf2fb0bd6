"""K-Net for semantic segmentation (Zhang et al., NeurIPS 2021, section 4.3): one kernel a class."""

from torch import Tensor, nn

from knet.errors import ConfigError
from knet.models.backbones.named import named_backbone
from knet.models.decoder import refine
from knet.models.kernels import Stage
from knet.models.necks.semantic_heads import ASPPHead, FCNHead, PSPHead, UPerHead, classifier, conv_bn_relu
from knet.models.network import Network
from knet.structures import Output

_HEADS = {"fcn": FCNHead, "pspnet": PSPHead, "deeplabv3": ASPPHead, "upernet": UPerHead}


class KNetSemantic(Network):
    """A backbone, the head of a known semantic network, and that network's class weights as kernels to be refined.

    Args:
        classes: K, and the number of kernels.
        head: "fcn", "pspnet", "deeplabv3" or "upernet".
        backbone: see `named_backbone`; the first three heads need one with c5 at 1/8 of the image.
        drop_path: of a Swin backbone; None for its default.
        channels: C, of kernels and features.
        update_channels: width of the adaptive update; C is a multiple of it.
        stages: number of kernel updates.
        hidden: width of the stages' feed-forward network.

    Raises:
        ConfigError: unknown head or backbone.
    """

    size_divisor = 1  # images need no padding
    kernel_layers = ("kernels",)

    def __init__(
        self,
        classes: int,
        head: str = "upernet",
        backbone: str = "r50-deep",
        drop_path: float | None = None,
        channels: int = 512,
        update_channels: int = 256,
        stages: int = 3,
        hidden: int = 2048,
    ):
        super().__init__()
        if head not in _HEADS:
            raise ConfigError(f"There is no semantic head '{head}'; it is one of: {', '.join(_HEADS)}.")
        self.backbone = named_backbone(backbone, **({} if drop_path is None else {"drop_path": drop_path}))
        inputs = self.backbone.channels
        self.neck = _HEADS[head](inputs, channels)
        self.stride = 4 if head == "upernet" else self.backbone.output_stride  # UPerNet answers on c2, the others on c5
        self.kernels = classifier(channels, classes)
        self.stages = nn.ModuleList(
            Stage(channels, None, "softmax", transform=True, hidden=hidden, update_channels=update_channels)
            for _ in range(stages)
        )
        self.stages.apply(_reset)
        # Only helps to train the backbone: not run in evaluation, but part of official checkpoints.
        self.auxiliary = nn.Sequential(conv_bn_relu(inputs[2], 256, 3), classifier(256, classes))

    def forward(self, images: Tensor) -> list[Output]:
        """Classifies the pixels of a batch of images. (B,3,H,W) normalised RGB of any size -> [Output, ...]

        First the initial output (in training with the auxiliary semantic logits (B,K,H/16,W/16), at 1/8 with a dilated
        backbone), then one Output an update. The last one is the result. Kernel k means class k, so there are no class
        logits: the mask logits are those of the classes, to be compared by softmax.
        """
        maps = self.backbone(images)
        features = self.neck(maps)
        # The kernels are the class weights without bias. The initial logits see features with dropout, the stages not.
        kernels = self.kernels[-1].weight.flatten(1).expand(len(images), -1, -1)  # type: ignore[operator]
        first = Output(kernels, self.kernels(features), None, features)
        if self.training:
            first.semantic_logits = self.auxiliary(maps[2])
        return [first, *refine(self.stages, features, kernels, first.mask_logits)]


def _reset(module: nn.Module) -> None:
    """Initialises the stages as PyTorch would: the official code never calls its own initialisation of them here."""
    if isinstance(module, nn.Linear):
        module.reset_parameters()
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    elif isinstance(module, nn.MultiheadAttention):  # after its output layer, which `apply` visits first
        nn.init.xavier_uniform_(module.in_proj_weight)
        nn.init.zeros_(module.out_proj.bias)
