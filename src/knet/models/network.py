"""What every network tells of itself, so that what runs, trains or exports it need not know which one it is."""

from collections.abc import Sequence

from torch import Tensor, nn


class Network(nn.Module):
    """A network that segments images: `forward(images)` gives one `Output` a stage, of which the last is the result.

    Attributes:
        stride: pixels of the image that a cell of the masks stands for.
        size_divisor: image sides are padded to multiples of this.
        stuff: labels of the classes that have kernels of their own, which come last; empty where there are none.
        kernel_layers: names of the layers whose weights are used as kernels, too.
        embeds: whether it is made for video: `forward(images, previous)` links it to the frame before, and `embed`
            tells its objects apart.
        embedding: of networks that embed, the layers that do it.
    """

    stride: int
    size_divisor: int
    stuff: Sequence[int] = ()
    kernel_layers: Sequence[str] = ()
    embeds: bool = False
    embedding: nn.Module

    def embed(self, kernels: Tensor) -> Tensor:
        """Linked kernels to the embeddings of their objects, where it `embeds`. (...,C) -> (...,C) float32"""
        embeddings: Tensor = self.embedding(kernels.float())
        return embeddings
