"""The idea of K-Net, shared by every model of this package.

A segment is a kernel: a vector of C numbers. Its dot product with the feature map is the segment's mask (Eq. 1). The
features under that mask tell the kernel what it really found, and it adapts (Eqs. 2-4); the adapted kernel gives a
better mask and a class (Eq. 5). A few rounds of this replace a detector's boxes, anchors and suppression.

    kernels (B,N,C) --Eq.1--> masks (B,N,H,W) --Eq.2--> group features (B,N,C) --Eq.3,4--> kernels (B,N,C) ...

Equation numbers are those of RT-K-Net (Schoen et al., IV 2023, section III-A), which restates K-Net (Zhang et al.,
NeurIPS 2021, section 3). Shapes: B images, N kernels, C channels, H x W the feature map, K classes. Masks and classes
are logits throughout.
"""

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from knet.errors import ConfigError

Pooling = Literal["mean", "sum", "softmax"]
LinkKind = Literal["attention", "update"]


def predict_masks(kernels: Tensor, features: Tensor) -> Tensor:
    """Mask logits: the dot product of every kernel with every pixel (Eq. 1). (B,N,C), (B,C,H,W) -> (B,N,H,W)"""
    # A batched matmul leaves the masks contiguous; a 1x1 convolution would leave them channels-last, and the resize
    # that follows several times slower on a CPU.
    return (kernels @ features.flatten(2)).unflatten(2, features.shape[2:])


def group_features(mask_logits: Tensor, features: Tensor, pooling: Pooling) -> Tensor:
    """The features under each mask (Eq. 2). (B,N,H,W), (B,C,H,W) -> (B,N,C) float32

    Pooling "sum" adds up the pixels whose mask probability is above 0.5 (K-Net); "mean" divides by their number
    (RT-K-Net's mask normalisation, Eq. 8; an empty mask gives 0); "softmax" shares every pixel among the kernels (K-Net
    for semantic segmentation). Hard masks pass no gradient to the logits, as in the original. Always computed in
    float32: a sum over a whole image overflows half precision, and 1 / area falls below its range.
    """
    with torch.autocast(features.device.type, enabled=False):
        mask_logits, features = mask_logits.float(), features.float()
        if pooling == "softmax":
            return _pixel_sums(mask_logits.softmax(dim=1), features)
        masks = (mask_logits.sigmoid() > 0.5).float()
        sums = _pixel_sums(masks, features)
        return sums / masks.sum((2, 3)).clamp(min=1)[..., None] if pooling == "mean" else sums


def sums(pooling: Pooling) -> bool:
    """Whether group features are sums over pixels. Layers that see them need float32: half precision ends at 65504."""
    return pooling != "mean"


def _pixel_sums(weights: Tensor, features: Tensor) -> Tensor:
    """(B,N,H,W), (B,C,H,W) -> (B,N,C)"""
    return weights.flatten(2) @ features.flatten(2).transpose(1, 2)


def exact_modules(net: nn.Module) -> set[nn.Module]:
    """The layers of a network that stay in float32 where others are in half precision."""
    return {part for module in net.modules() if getattr(module, "exact", False) for part in module.modules()}


class AdaptiveUpdate(nn.Module):
    """Mixes each kernel with its group feature through two learned gates (Eq. 3). (B,N,C), (B,N,C) -> (B,N,C)

    Kernels wider than the update's own `channels` are split, and each part of that width is updated as if it were a
    kernel. No paper mentions it, but the official semantic models have kernels of 512 and an update of 256.

    With `exact` it is computed in float32 also where the rest is in half precision: see `sums`.
    """

    def __init__(self, channels: int = 256, exact: bool = False):
        super().__init__()
        self.channels, self.exact = channels, exact
        self.from_group = nn.Linear(channels, 2 * channels)  # psi_1 (for the gates), psi_3 (for the sum)
        self.from_kernel = nn.Linear(channels, 2 * channels)  # psi_2, psi_4
        self.group_gate, self.group_gate_norm = nn.Linear(channels, channels), nn.LayerNorm(channels)
        self.kernel_gate, self.kernel_gate_norm = nn.Linear(channels, channels), nn.LayerNorm(channels)
        self.group_norm, self.kernel_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.out, self.out_norm = nn.Linear(channels, channels), nn.LayerNorm(channels)

    def forward(self, group: Tensor, kernels: Tensor) -> Tensor:
        if not self.exact:
            return self.mix(group, kernels)
        with torch.autocast(group.device.type, enabled=False):
            return self.mix(group.float(), kernels.float())

    def mix(self, group: Tensor, kernels: Tensor) -> Tensor:
        """The update in the precision of its inputs. (B,N,C), (B,N,C) -> (B,N,C)"""
        group, kernels = (x.unflatten(-1, (-1, self.channels)) for x in (group, kernels))
        group_in, group_out = self.from_group(group).chunk(2, dim=-1)
        kernel_in, kernel_out = self.from_kernel(kernels).chunk(2, dim=-1)
        both = group_in * kernel_in
        group_gate = self.group_gate_norm(self.group_gate(both)).sigmoid()  # G^F
        kernel_gate = self.kernel_gate_norm(self.kernel_gate(both)).sigmoid()  # G^K
        mixed = group_gate * self.group_norm(group_out) + kernel_gate * self.kernel_norm(kernel_out)
        return self.out_norm(self.out(mixed)).relu().flatten(-2)


class Interaction(nn.Module):
    """Kernels attend to kernels, then pass a feed-forward network (Eq. 4). (B,N,C), (B,M,C) or None -> (B,N,C)

    With `memory` they attend to that instead of each other, which is how Video K-Net links a frame to the one before.
    """

    def __init__(self, channels: int = 256, heads: int = 8, hidden: int = 2048):
        super().__init__()
        if channels % heads:
            raise ConfigError(
                f"channels={channels} do not divide among {heads} attention heads; give a multiple of them."
            )
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.attention_norm = nn.LayerNorm(channels)
        self.expand, self.contract = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.ffn_norm = nn.LayerNorm(channels)

    def forward(self, kernels: Tensor, memory: Tensor | None = None) -> Tensor:
        memory = kernels if memory is None else memory
        seen, _ = self.attention(kernels, memory, memory, need_weights=False)
        kernels = self.attention_norm(kernels + seen)
        return self.ffn_norm(kernels + self.contract(self.expand(kernels).relu()))


def mlp(channels: int, out: int) -> nn.Sequential:
    """The small head that precedes masks and classes. (...,channels) -> (...,out)"""
    return nn.Sequential(
        nn.Linear(channels, channels, bias=False), nn.LayerNorm(channels), nn.ReLU(), nn.Linear(channels, out)
    )


class Stage(nn.Module):
    """One round: group features, update, interaction, new masks and classes (Eqs. 2-5).

    Args:
        channels: C, of kernels and features.
        classes: K; each class has its own sigmoid, so there is no "nothing" class. None: no classes.
        pooling: how pixels are gathered, see `group_features`.
        transform: whether the features first pass a 1x1 convolution of the stage's own (K-Net).
        hidden: width of the feed-forward network.
        update_channels: width of the adaptive update, a divisor of C; None is C itself.
    """

    def __init__(
        self,
        channels: int,
        classes: int | None,
        pooling: Pooling,
        transform: bool,
        hidden: int = 2048,
        update_channels: int | None = None,
    ):
        super().__init__()
        if pooling not in get_args(Pooling):
            raise ConfigError(f"There is no pooling '{pooling}'; it is one of: {', '.join(get_args(Pooling))}.")
        self.pooling: Pooling = pooling
        self.transform = nn.Conv2d(channels, channels, 1) if transform else nn.Identity()
        self.update = AdaptiveUpdate(update_channels or channels, exact=sums(pooling))
        self.interaction = Interaction(channels, hidden=hidden)
        self.to_mask = mlp(channels, channels)
        self.to_class = mlp(channels, classes) if classes is not None else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises as the originals: Xavier-uniform linear layers, and classes at a probability of 0.01."""
        ends = [module.out_proj for module in self.modules() if isinstance(module, nn.MultiheadAttention)]
        for module in self.modules():
            if isinstance(module, nn.Linear) and module not in ends:
                nn.init.xavier_uniform_(module.weight)
        if self.to_class is not None:
            last = self.to_class[-1]
            nn.init.constant_(last.bias, -math.log((1 - 0.01) / 0.01))  # type: ignore[arg-type]

    def forward(
        self, features: Tensor, kernels: Tensor, mask_logits: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """One refinement. (B,C,H,W), (B,N,C), (B,N,H,W) -> kernels (B,N,C), mask logits (B,N,H,W), class logits (B,N,K)
        or None, and the features (B,C,H,W) that the masks were predicted from.
        """
        features = self.transform(features)
        return self.renew(group_features(mask_logits, features, self.pooling), kernels, features)

    def renew(self, group: Tensor, kernels: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """The refinement from the group features on. (B,N,C), (B,N,C), (B,C,H,W) -> as `forward`"""
        kernels = self.interaction(self.update(group, kernels))
        mask_logits = predict_masks(self.to_mask(kernels), features)
        class_logits = None if self.to_class is None else self.to_class(kernels)
        return kernels, mask_logits, class_logits, features


class Link(nn.Module):
    """Kernels attend to those of the frame before (Video K-Net, Li et al., CVPR 2022). (B,N,C) three times -> (B,N,C)

    With `update` the previous kernels first adapt to this frame's group features; `exact` as in `AdaptiveUpdate`.
    """

    def __init__(self, channels: int, hidden: int = 2048, update: bool = False, exact: bool = False):
        super().__init__()
        self.exact = exact
        self.update = AdaptiveUpdate(channels, exact) if update else None
        self.interaction = Interaction(channels, hidden=hidden)

    def forward(self, kernels: Tensor, previous: Tensor, group: Tensor) -> Tensor:
        if not self.exact:
            return self.attend(kernels, previous, group)
        with torch.autocast(group.device.type, enabled=False):
            return self.attend(kernels.float(), previous.float(), group.float())

    def attend(self, kernels: Tensor, previous: Tensor, group: Tensor) -> Tensor:
        """The link in the precision of its inputs. (B,N,C) three times -> (B,N,C)"""
        return self.interaction(kernels, previous if self.update is None else self.update(group, previous))


class LinkedStage(Stage):
    """A stage that also gets the kernels of the frame before.

    Args:
        channels, classes, pooling, transform, hidden: see `Stage`.
        link: how the kernels that the stage makes attend to the previous ones, for the embeddings of tracks: directly
            ("attention"), or after these have adapted to the frame ("update").
        fusion: whether the kernels that enter the stage also attend to the previous ones, so that masks and classes
            depend on them.
    """

    def __init__(self, channels: int, *stage: Any, link: LinkKind = "attention", fusion: bool = False, **more: Any):
        super().__init__(channels, *stage, **more)
        hidden = self.interaction.expand.out_features
        if link not in get_args(LinkKind):
            raise ConfigError(f"There is no link '{link}'; it is one of: {', '.join(get_args(LinkKind))}.")
        exact = sums(self.pooling)
        self.link = Link(channels, hidden, update=link == "update", exact=exact)
        self.fusion = Link(channels, hidden, update=True, exact=exact) if fusion else None
        self.reset_parameters()

    def forward(  # type: ignore[override]
        self, features: Tensor, kernels: Tensor, mask_logits: Tensor, previous: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
        """As `Stage`, with the previous kernels (B,N,C), None in a first frame, and with the linked kernels (B,N,C) as
        fifth result: in a first frame those that the stage makes.
        """
        features = self.transform(features)
        group = group_features(mask_logits, features, self.pooling)
        if previous is not None and self.fusion is not None:
            kernels = self.fusion(kernels, previous, group)
        answer = self.renew(group, kernels, features)
        return *answer, answer[0] if previous is None else self.link(answer[0], previous, group)
