"""A network as a graph that other programs can run: tensors in, tensors out, no Python in between.

The graph takes one image, `images` (1,3,H,W) float32, normalised RGB, and of a network that is linked to the frame
before also `previous` (1,N,C) float32, the graph's kernels for that frame, or zeros for a first frame. Its outputs, as
far as the network has them, are float32:

    mask_logits (1,N,h,w)   class_logits (1,N,K)   kernels (1,N,C)   embeddings (1,N,C)   semantic_logits (1,K,h,w)

Of a fixed size it has the input `seen` (2,) int64, the height and width of the image in it with the padding that the
network itself asks for: what lies beyond is hidden from the network, see `knet.export.inside`.

With the merge inside there is a further input, `like` (1,y,x) uint8, of which only the size matters: that of the image
without its padding. `owner` (1,y,x) int32, `scores` (1,N) and `labels` (1,N) int32 then replace the first two outputs,
see `knet.merge.panoptic.MergedMasks`.

A model for clips takes all T frames of a clip as `images` (T,3,H,W), and its outputs are those of the clip:

    mask_logits (1,N,T,h,w)   class_logits (1,N,K)
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from knet.errors import ConfigError, shown
from knet.export.cells import cell_maxima, cell_means
from knet.export.inside import Inside
from knet.merge.panoptic import best_class
from knet.merge.sorted import panoptic_classes
from knet.models.backbones.swin import Swin
from knet.models.clip import ClipKNet, clip_result
from knet.models.decoder import PriorLink
from knet.models.kernels import Link, exact_modules
from knet.models.network import Network
from knet.structures import Output


@dataclass(frozen=True)
class Merging:
    """Settings of Algorithm 1 inside the graph, see `knet.models.zoo.ZooEntry`."""

    score: float
    overlap: float
    stuff: Sequence[int] = ()  # labels with kernels of their own
    thing_candidates: int | None = None
    # Of a graph for a fixed size: the divisor of the network's own padding, and how many cells of the masks cover so
    # many pixels. Smaller images are padded to that size, and their masks cut to what the network would have seen.
    cut: tuple[int, int] | None = None
    stretches_padding: bool = False


class Graph(nn.Module):
    """A copy of a network in the form that is exported. Its inputs and outputs are described at the top of this file.

    Args:
        half: whether it computes in float16, except norms, and group features, whose sums need the range of float32.
        merging: puts the merge of a panoptic network inside; without it the outputs are masks and classes.
        seen: whether it is told how much of a fixed size the image covers.
    """

    def __init__(
        self,
        net: Network,
        half: bool = False,
        merging: Merging | None = None,
        batch: int = 1,
        seen: bool = False,
    ):
        super().__init__()
        self.net = copy.deepcopy(net).cpu().float().eval().requires_grad_(False)
        self.batch, self.merging, self.seen = batch, merging, seen
        self.dtype = torch.float16 if half else torch.float32
        self.divisor, self.linked, self.clips = net.size_divisor, net.embeds, isinstance(net, ClipKNet)
        # Whether images may have sides of any length, which are rounded up to Swin's windows.
        self.windows = self.divisor == 1 and any(isinstance(module, Swin) for module in net.modules())
        _exchange(self.net, pools=not seen)
        if half:
            _halve(self.net)

    def forward(
        self,
        images: Tensor,
        previous: Tensor | None = None,
        like: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> dict[str, Tensor]:
        images = images.to(self.dtype)
        inside = None if seen is None else Inside(images, seen)
        with inside or nullcontext():
            outputs = self.net(images) if previous is None else self.net(images, previous)
        if self.clips:
            classes, masks = clip_result(outputs)
            return {"mask_logits": masks.float(), "class_logits": classes.float()}
        last: Output = outputs[-1]
        named = {"mask_logits": last.mask_logits}
        if last.class_logits is not None:
            named["class_logits"] = last.class_logits
            if self.merging is not None and like is not None:
                sizes = (images.shape[2], images.shape[3]), (like.shape[1], like.shape[2])
                resize = enlarged if inside is None else inside.resized
                named = merge_inside(last.mask_logits, last.class_logits, *sizes, self.merging, resize)
        if last.class_logits is not None:  # otherwise each kernel is a class
            named["kernels"] = last.kernels
        if self.linked:
            named["embeddings"] = self.net.embedding(last.linked)
            if outputs[0].semantic_logits is not None:
                named["semantic_logits"] = outputs[0].semantic_logits
        return {name: value.float() if value.is_floating_point() else value for name, value in named.items()}

    def inputs(self, size: tuple[int, int]) -> dict[str, Tensor]:
        """Inputs of this size, to trace the graph with."""
        (height, width), count = size, 3 if self.clips else self.batch
        inputs = {"images": torch.linspace(-2, 2, count * 3 * height * width).view(count, 3, height, width)}
        if self.linked:
            decoder: Any = self.net.decoder
            count = decoder.kernels.shape[0] + len(self.net.stuff)
            inputs["previous"] = torch.ones(self.batch, count, decoder.kernels.shape[1])
        if self.merging is not None:
            inputs["like"] = torch.zeros(1, height - 5, width - 7, dtype=torch.uint8)
        if self.seen:
            inputs["seen"] = torch.tensor(size)
        return inputs


def enlarged(mask_logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Mask logits at another size, as the networks' originals do it. (B,N,h,w) -> (B,N,H,W)"""
    return F.interpolate(mask_logits, size, mode="bilinear", align_corners=False)


def merge_inside(
    mask_logits: Tensor,
    class_logits: Tensor,
    padded: tuple[int, int],
    resized: tuple[int, int],
    merging: Merging,
    enlarged: Callable[[Tensor, tuple[int, int]], Tensor] = enlarged,
) -> dict[str, Tensor]:
    """`knet.merge.panoptic.merge_panoptic` in operations whose shapes do not depend on values.

    (1,N,h,w), (1,N,K) logits -> owner (1,H,W) int32, scores (1,N), labels (1,N) int32. Masks below the score threshold
    take part with a score of -1, so that they win no pixel.
    """
    logits = class_logits[0]
    if merging.stuff:
        scores, labels = panoptic_classes(logits, merging.stuff, merging.thing_candidates)
    else:
        scores, labels = best_class(logits)
    if not merging.stretches_padding:
        masks = enlarged(mask_logits, padded).float()
        return _algorithm_1(masks[0, :, : resized[0], : resized[1]].sigmoid(), scores, labels, merging)
    if merging.cut is not None:  # off goes the padding of the fixed size at the right and the bottom
        rows, columns = ((side + merging.cut[0] - 1) // merging.cut[0] * merging.cut[1] for side in resized)
        mask_logits = mask_logits[:, :, :rows, :columns]
    masks = F.interpolate(mask_logits.float(), resized, mode="bilinear", align_corners=False)
    return _algorithm_1(masks[0].sigmoid(), scores, labels, merging)


def _algorithm_1(masks: Tensor, scores: Tensor, labels: Tensor, merging: Merging) -> dict[str, Tensor]:
    """(N,H,W) probabilities, (N,), (N,) -> as `merge_inside`"""
    keep = scores >= scores.max().clamp(max=merging.score)
    owner = torch.where(keep[:, None, None], scores[:, None, None] * masks, -1.0).argmax(dim=0)
    number = torch.arange(len(scores))
    won = (owner == number[:, None, None]).sum((1, 2))
    limit = merging.overlap * (masks >= 0.5).sum((1, 2)).float()
    survives = (won > 0) & (limit > 0) & (won.float() >= limit)
    owner = torch.where(survives[owner], owner, -1)
    return {"owner": owner[None].int(), "scores": scores[None], "labels": labels[None].int()}


class CellMaxima(nn.Module):
    """`nn.AdaptiveMaxPool2d` in standard operations. (B,C,H,W) -> (B,C,n,n)"""

    def __init__(self, cells: int):
        super().__init__()
        self.cells = cells

    def forward(self, x: Tensor) -> Tensor:
        return cell_maxima(x, self.cells, *x.shape[2:])


class CellMeans(CellMaxima):
    """`nn.AdaptiveAvgPool2d` in standard operations. (B,C,H,W) -> (B,C,n,n)"""

    def forward(self, x: Tensor) -> Tensor:
        return cell_means(x, self.cells, *x.shape[2:])


class _IfLinked(nn.Module):
    """A link that returns the kernels unchanged in a first frame, whose previous kernels are zeros."""

    def __init__(self, link: nn.Module):
        super().__init__()
        self.link = link

    def forward(self, kernels: Tensor, previous: Tensor, *group: Tensor) -> Tensor:
        return torch.where(_any(previous), self.link(kernels, previous, *group), kernels)


class _IfCarried(nn.Module):
    """What the previous kernels add: nothing in a first frame."""

    def __init__(self, carry: nn.Module):
        super().__init__()
        self.carry = carry

    def forward(self, previous: Tensor) -> Tensor:
        return torch.where(_any(previous), self.carry(previous), 0.0)


def _any(previous: Tensor) -> Tensor:
    """Whether there was a frame before. (1,N,C) -> (1,1,1) bool. A layer norm leaves no kernel all zeros."""
    return previous.abs().amax((1, 2), keepdim=True) > 0


def _exchange(net: nn.Module, pools: bool) -> None:
    """Replaces modules that cannot be exported by such that can; `pools` over cells, unless `Inside` does."""
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if pools and isinstance(child, nn.AdaptiveMaxPool2d):
                setattr(parent, name, CellMaxima(child.output_size))  # type: ignore[arg-type]
            elif pools and isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size != 1:
                setattr(parent, name, CellMeans(child.output_size))  # type: ignore[arg-type]
            elif isinstance(child, Link | PriorLink):
                setattr(parent, name, _IfLinked(child))
            elif name == "carry":
                setattr(parent, name, _IfCarried(child))


def _halve(net: nn.Module) -> None:
    """Converts to float16, except layer and group norms and `exact_modules`.

    Each layer casts its input to its own type, as by autocast.
    """
    exact = exact_modules(net)
    net.half()
    for module in net.modules():
        if module in exact:
            module.float()
        elif isinstance(module, nn.LayerNorm | nn.GroupNorm):
            module.float().register_forward_hook(lambda _module, _args, result: result.half())
        if next(module.parameters(recurse=False), None) is not None:
            module.register_forward_pre_hook(_in_own_type)


def _in_own_type(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    dtype = next(module.parameters()).dtype
    return tuple(x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in args)


def check_size(size: tuple[int, int], divisor: int) -> None:
    """Checks the height and width of images for a graph. Raises `ConfigError` for impossible ones."""
    if len(size) != 2 or not all(isinstance(side, int) and side <= 2**16 for side in size):
        raise ConfigError(f"The size {shown(size)} is no height and width in pixels, such as 512 and 1024.")
    fitting = tuple(max(-(-side // divisor), -(-32 // divisor)) * divisor for side in size)
    if size != fitting:
        what = f"multiples of {divisor}" if divisor > 1 else "32 or more"
        raise ConfigError(
            f"This model takes images whose height and width are {what}, not {size[0]}x{size[1]}; give "
            f"--size {fitting[0]}x{fitting[1]}."
        )
