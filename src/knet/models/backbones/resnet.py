"""ResNet (He et al., CVPR 2016) as K-Net uses it: torchvision's layers without the classifier, giving a list of maps.

torchvision's layers fit all official weights: a stage has its stride in the 3x3 convolution of its first block, and
where it trades the stride for dilation, its first block keeps the dilation of the stage before.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def _deep_stem() -> nn.Sequential:
    """Three 3x3 convolutions in place of the 7x7 one ("v1c"). (B,3,H,W) -> (B,64,H/2,W/2), before batch norm"""
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        nn.Conv2d(32, 64, 3, 1, 1, bias=False),
    )


class ResNet(nn.Module):
    """The backbone. (B,3,H,W) -> c2 (B,256,H/4,W/4), c3 (B,512,..), c4 (B,1024,..), c5 (B,2048,..)

    c3, c4 and c5 have 1/8, 1/16 and 1/32 of the image's sides, or all of them 1/8 with an output stride of 8. The names
    of parameters are torchvision's, so ImageNet weights fit once their classifier is left out.

    Args:
        depth: number of layers.
        deformable: whether the 3x3 convolutions of c3 to c5 are deformable.
        deep_stem: whether the stem is three small convolutions.
        output_stride: 8 keeps the size from c3 on and dilates the convolutions instead.
        frozen: for fine-tuning with small batches (detection): stem and c2 are not trained, and batch norms always use
            their running statistics, although their weights and biases in c3 to c5 are trained.
    """

    channels = (256, 512, 1024, 2048)

    def __init__(
        self,
        depth: Literal[50, 101] = 50,
        deformable: bool = False,
        deep_stem: bool = False,
        output_stride: Literal[8, 32] = 32,
        frozen: bool = False,
    ):
        super().__init__()
        from torchvision.models.resnet import resnet50, resnet101  # slow to import

        build = {50: resnet50, 101: resnet101}[depth]
        dilated = output_stride == 8
        net = build(replace_stride_with_dilation=[False, dilated, dilated])
        self.conv1 = _deep_stem() if deep_stem else net.conv1
        self.bn1, self.relu, self.maxpool = net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        if deformable:
            from knet.models.backbones.deformable import OffsetConv

            for block in (*self.layer2, *self.layer3, *self.layer4):
                block.conv2 = OffsetConv(block.conv2.in_channels, block.conv2.stride[0])
        self.output_stride, self.frozen = output_stride, frozen
        for module in (self.conv1, self.bn1, self.layer1):
            module.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> "ResNet":
        """As in every module, but the batch norms of a frozen backbone stay in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if self.frozen and isinstance(module, _BatchNorm):  # which SyncBatchNorm is as well
                module.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)
        return maps
