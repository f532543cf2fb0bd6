"""What all networks have in common, so that whoever runs, trains or exports one need not know which it is."""

from collections.abc import Sequence

from torch import Tensor, nn


class Network(nn.Module):
    """A network that segments images: `forward(images)` gives one `Output` a stage, of which the last is the result.

    Attributes:
        stride: image pixels to a cell of the masks.
        size_divisor: image sides are padded to multiples of this.
        stuff: labels of the classes with kernels of their own, which come last; may be empty.
        kernel_layers: names of the layers whose weights are also used as kernels.
        embeds: whether it is made for video: `forward(images, previous)` is linked to the frame before, and `embed`
            gives the embeddings by which objects are recognised.
        embedding: the layers of `embed`.
    """

    stride: int
    size_divisor: int
    stuff: Sequence[int] = ()
    kernel_layers: Sequence[str] = ()
    embeds: bool = False
    embedding: nn.Module

    def embed(self, kernels: Tensor) -> Tensor:
        """The embeddings of objects from their linked kernels, if it `embeds`. (...,C) -> (...,C) float32"""
        embeddings: Tensor = self.embedding(kernels.float())
        return embeddings
