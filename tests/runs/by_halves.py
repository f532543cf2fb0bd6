"""One process that goes through a whole batch in the order in which two processes add up.

What sums over a batch (statistics of batch norms, gradients of weights) rounds differently when each of two processes
sums its half first. Under this mode a network in one process does so as well: the results of two processes, given to
the last bit, are those of one, unless something else than rounding differs.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

# What has weights, or rounds some numbers otherwise in a batch of another size (the last few of a loop are not computed
# with vectors); and where its batch lies.
_BATCH_AT = {
    torch.Tensor.sigmoid: 0,
    torch.Tensor.__pow__: 0,
    F.binary_cross_entropy_with_logits: 0,
    torch.conv2d: 0,
    F.linear: 0,
    F.layer_norm: 0,
    torch.Tensor.matmul: 0,
    torch.Tensor.__matmul__: 0,
    F.multi_head_attention_forward: 1,
}


class ByHalves(TorchFunctionMode):
    """Whatever sums over the `images` of a batch sums over each half first."""

    def __init__(self, images: int):
        super().__init__()
        self.images = images

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm and kwargs.get("training", args[5] if len(args) > 5 else False):
            return _batch_norm(*args, **kwargs)
        if func is torch.Tensor.expand and args[1] == self.images:
            return torch.cat([args[0].expand(self.images // 2, *args[2:]) for _ in range(2)])
        dim = _BATCH_AT.get(func)
        if dim is None or not any(self._is_batch(value, dim) for value in args):
            return func(*args, **kwargs)
        # Attention of kernels to themselves is recognised by its three inputs being one: so they have to stay.
        split = {id(value): _Split.apply(value, dim) for value in args if self._is_batch(value, dim)}
        halves = [split.get(id(value), (value, value)) for value in args]
        first, second = (func(*values, **kwargs) for values in zip(*halves, strict=True))
        if isinstance(first, Tensor):
            return _Join.apply(first, second, dim)
        return _Join.apply(first[0], second[0], dim), None  # attention and its weights, which nobody wants

    def _is_batch(self, value: Any, dim: int) -> bool:
        return isinstance(value, Tensor) and value.ndim > 2 and value.shape[dim] == self.images


class _Split(torch.autograd.Function):
    """A batch into its halves. They and their gradients are memory of their own: products may round differently where
    a matrix begins in the middle of another.
    """

    @staticmethod
    def forward(ctx: Any, batch: Tensor, dim: int) -> tuple[Tensor, ...]:
        ctx.dim = dim
        return tuple(half.clone() for half in batch.chunk(2, dim))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return torch.cat(gradients, ctx.dim), None


class _Join(torch.autograd.Function):
    """The other way."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, dim: int) -> Tensor:
        ctx.dim = dim
        return torch.cat((first, second), dim)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        first, second = (half.clone() for half in gradient.chunk(2, ctx.dim))
        return first, second, None


def _batch_norm(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor,
    bias: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """Batch norm of the whole batch, whose moments are the means of those of its halves."""
    mean = sum(half.mean((0, 2, 3)) for half in _Split.apply(x, 0)) / 2
    # Split anew: the two gradients of x have to join others that x gets elsewhere one by one, as theirs do.
    centered = [half - mean[:, None, None] for half in _Split.apply(x, 0)]
    variance = sum(half.square().mean((0, 2, 3)) for half in centered) / 2
    with torch.no_grad():
        count = x.numel() / x.shape[1]
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance * count / (count - 1), momentum)
    scales = [weight * (variance + eps).rsqrt() for _ in centered]
    return _Join.apply(*(c * s[:, None, None] + bias[:, None, None] for c, s in zip(centered, scales, strict=True)), 0)
