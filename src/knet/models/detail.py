"""Sharper masks than the map that kernels are refined on."""

from torch import Tensor, nn

from knet.models.backbones.rtformer import resize_like
from knet.models.kernels import mlp, predict_masks
from knet.models.necks.light import conv_bn
from knet.structures import Output


class Detail(nn.Module):
    """Adds to the last masks what only a map at 1/4 of the image shows: poles, signs, people far away.

    A kernel gets a second, smaller vector, whose dot product with a thin fine map is added to its enlarged mask. That
    costs a small part of refining the kernels on a fine map. The vectors are 0 at first, so that a trained network with
    new detail starts as what it was. Not in any of the papers.

    Args:
        inputs: channels of the backbone's map at 1/4.
        channels: C, of kernels and features.
        width: of the fine map.
    """

    def __init__(self, inputs: int, channels: int, width: int = 32):
        super().__init__()
        self.lateral, self.coarse = conv_bn(inputs, width), conv_bn(channels, width)
        self.smooth = nn.Sequential(*conv_bn(width, width, 5, width), *conv_bn(width, width))
        self.to_mask = mlp(channels, width)
        for parameter in self.to_mask[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, output: Output, fine: Tensor) -> Tensor:
        """The output's masks on the fine map's grid. (B,N,h,w) of `output`, (B,inputs,H,W) -> (B,N,H,W) logits"""
        x = self.lateral(fine) + resize_like(self.coarse(output.features), fine)
        x = x.relu()
        x = (x + self.smooth(x)).relu()
        return resize_like(output.mask_logits, fine) + predict_masks(self.to_mask(output.kernels), x)
