"""Video K-Net (Li et al., CVPR 2022) and its real-time form: an image model linked to the frame before, and embeddings
by which objects are recognised.

A video's state is a value that goes in and comes out: the kernels of the last frame's last output. `embed` turns the
last output's `linked` kernels into embeddings.
"""

from typing import Any, Literal, get_args

from torch import Tensor, nn

from knet.errors import ConfigError
from knet.models.decoder import PriorLink
from knet.models.image import KNet
from knet.models.kernels import LinkedStage, LinkKind, mlp, sums
from knet.models.realtime import RTKNet
from knet.structures import Output

PriorKind = Literal["attention", "linear"]


def track_embedding(channels: int) -> nn.Sequential:
    """The layers that turn kernels into embeddings, to be compared by dot products. (...,C) -> (...,C)

    Layer 0 is the official code's `embed_fcs` with its `fc_embed`; the others are its track head.
    """
    head, first, second, last = mlp(channels, channels), *(nn.Linear(channels, channels) for _ in range(3))
    for layer in (first, second):
        nn.init.xavier_uniform_(layer.weight)
    nn.init.normal_(last.weight, std=0.01)
    for layer in (first, second, last):
        nn.init.zeros_(layer.bias)
    return nn.Sequential(head, first, nn.ReLU(), second, nn.ReLU(), last)


class VideoKNet(KNet):
    """K-Net whose last stage is linked to the frame before.

    The link is one frame deep: a frame hands on the kernels of its last stage, not the linked ones.

    Args:
        classes: K, things and stuff.
        link: how kernels attend to the previous ones for embeddings: "attention" (official `ffn`) or "update" (official
            `update`), see `LinkedStage`.
        fusion: whether the previous kernels also change masks and classes (official `update_dynamic_cov`).
        image: the other arguments of `KNet`.

    Raises:
        ConfigError: as `KNet`, or an unknown link.
    """

    embeds = True
    tells_semantics = True  # by which the tracker cuts boxes

    def __init__(self, classes: int, link: LinkKind = "attention", fusion: bool = False, **image: Any):
        super().__init__(classes, **image)
        C, pooling = self.decoder.kernels.shape[1], self.decoder.pooling
        self.decoder.stages[-1] = LinkedStage(C, classes, pooling, transform=True, link=link, fusion=fusion)
        self.embedding = track_embedding(C)

    def forward(self, images: Tensor, previous: Tensor | None = None) -> list[Output]:
        """Segments a batch of frames. (B,3,H,W) as `KNet`, (B,N,C) or None -> [Output, ...]

        `previous` are the kernels of the last output for the frames before, None for first frames. The outputs are
        those of `KNet`, the last one with `linked` kernels (B,N,C).
        """
        return self.decode(*self.features(images), previous)


class RTVideoKNet(RTKNet):
    """RT-K-Net linked to the frame before in front of all its kernel updates, at next to no cost.

    What the kernels take from the previous frame passes all updates and reaches the next frame. A new link is closed:
    with the weights of an `RTKNet` the network starts as that `RTKNet`.

    Args:
        classes: K.
        link: "attention": kernels that have their group features attend to all previous ones, as in Video K-Net.
            "linear": a linear function of each previous kernel is added to the learned one, which is trained to follow
            its object from frame to frame.
        image: the other arguments of `RTKNet`.

    Raises:
        ConfigError: unknown link.
    """

    embeds = True

    def __init__(self, classes: int, link: PriorKind = "attention", **image: Any):
        if link not in get_args(PriorKind):
            raise ConfigError(f"There is no link '{link}'; it is one of: {', '.join(get_args(PriorKind))}.")
        super().__init__(classes, **image)
        C = self.decoder.kernels.shape[1]
        if link == "linear":
            carry = nn.Linear(C, C)
            nn.init.zeros_(carry.weight)
            nn.init.zeros_(carry.bias)
            self.decoder.carry = carry
        else:
            self.decoder.link = PriorLink(C, exact=sums(self.decoder.pooling))
        self.embedding = track_embedding(C)

    def forward(self, images: Tensor, previous: Tensor | None = None) -> list[Output]:
        """Segments a batch of frames. (B,3,H,W) as `RTKNet`, (B,N,C) or None -> [Output, ...]

        `previous` are the kernels of the last output for the frames before, None for first frames. The outputs are
        those of `RTKNet`; the `linked` kernels of the last one are its kernels, as the link came before.
        """
        outputs = self.decode(*self.backbone(images), previous=previous)
        outputs[-1].linked = outputs[-1].kernels
        return outputs
