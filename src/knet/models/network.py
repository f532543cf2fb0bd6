"""What all networks have in common, so that whoever runs, trains or exports one need not know which it is."""

from collections.abc import Sequence

from torch import Tensor, nn


class Network(nn.Module):
    """A network that segments images: `forward(images)` gives one `Output` a stage, of which the last is the result.

    One that `embeds` is made for video: `forward(images, previous)` is linked to the frame before, and `embed` gives
    the embeddings by which objects are recognised.
    """

    stride: int  # image pixels to a cell of the masks
    size_divisor: int  # image sides are padded to multiples of this
    stuff: Sequence[int] = ()  # labels of the classes with kernels of their own, which come last
    kernel_layers: Sequence[str] = ()  # names of the layers whose weights are also used as kernels
    embeds: bool = False
    embedding: nn.Module  # the layers of `embed`

    def embed(self, kernels: Tensor) -> Tensor:
        """The embeddings of objects from their linked kernels, if it `embeds`. (...,C) -> (...,C) float32"""
        embeddings: Tensor = self.embedding(kernels.float())
        return embeddings
