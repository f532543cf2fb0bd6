"""Hides the padding of a fixed size from a network: at the image's edge its layers behave as at the edge of a map.

Convolutions and pools read zeros beyond the image, resizing repeats its last cells, and means, norms and attention
leave the rest out. So a file for a fixed size gives for a smaller image what the network gives without the padding. The
network itself knows nothing of it: `Inside` watches the functions that it calls, and works on any that keeps to maps
(B,...,H,W) and to the functions below; `knet.export.hides.hides_padding` tells whether it does.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torchvision  # noqa: F401  # torch.ops.torchvision
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from knet.export.cells import cell_maxima, cell_means
from knet.models.backbones.swin import fill_up, pad_to_multiple, shift_mask
from knet.models.necks.semantic_fpn import sine_positions


class Extent(NamedTuple):
    """How much of a map the image covers: numbers of rows and columns, int64 without dimensions."""

    rows: Tensor
    columns: Tensor


class LostError(Exception):
    """A function that looks at neighbours got a map of which nobody knows how much the image covers."""


class Inside(TorchFunctionMode):
    """While it is active, what networks compute does not depend on the padding.

    Args:
        images: (B,3,H,W), which the image fills from the top left.
        seen: (2,) int64, the image's height and width, with the padding that the network itself asks for.
    """

    def __init__(self, images: Tensor, seen: Tensor):
        super().__init__()
        # Maps and how much of them is covered, by their ids, which stay theirs as they are kept; and height and width
        # of those whose pixels lie in one axis.
        self._maps: dict[int, tuple[Tensor, Extent, tuple[int, int] | None]] = {}
        self._sizes: dict[tuple[int, int], Extent] = {}  # of all maps of a size
        self._clean: set[int] = set()  # ids of maps that are zeros beyond the image
        self._made: dict[Any, Any] = {}  # what was computed of extents, once for all maps
        self._mark(images, Extent(seen[0], seen[1]))
        self._clean.add(id(images))

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        rule = _RULES.get(func) or _RULES.get(getattr(func, "__name__", ""))
        if rule is not None:
            return rule(self, func, *args, **kwargs)
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and result.ndim >= 4:
            alike = (x for x in _tensors(args) if x.shape[-2:] == result.shape[-2:])
            like = next((x for x in alike if self._extent(x)), None)
            if like is not None:
                self._mark(result, self._extent(like), self._flat(like))
        return result

    def resized(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Bilinear resize (align_corners=False) of what the image covers to what it covers of a map of this size."""
        extent, after = self._extent(x), self._of_size(size)

        def weights(axis: int) -> Tensor:
            cells = x.shape[axis - 2]
            covered = cells if extent is None else extent[axis]  # of the cells of a pool, all
            key = axis, size[axis], cells, None if extent is None else id(covered), id(after[axis]), x.dtype
            return self._once(key, lambda: _taps(size[axis], cells, covered, after[axis]).to(x.dtype))

        return self._mark(weights(0) @ x @ weights(1).T, after)

    def _mark(self, x: Tensor, extent: Extent | None, flat: tuple[int, int] | None = None) -> Tensor:
        """The tensor, of which the image covers so much."""
        if extent is not None:
            self._maps[id(x)] = x, extent, flat
            if flat is None:
                self._sizes.setdefault((x.shape[-2], x.shape[-1]), extent)
        return x

    def _extent(self, x: Tensor) -> Extent | None:
        return self._maps[id(x)][1] if id(x) in self._maps else None

    def _flat(self, x: Tensor) -> tuple[int, int] | None:
        return self._maps[id(x)][2] if id(x) in self._maps else None

    def _known(self, x: Tensor) -> Extent:
        extent = self._extent(x)
        if extent is None:
            raise LostError
        return extent

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _covered(self, extent: Extent, size: Sequence[int]) -> Tensor:
        """Which cells of a map the image covers. -> (H,W) bool"""

        def make() -> Tensor:
            rows, columns = (torch.arange(n) < end for n, end in zip(size, extent, strict=True))
            return rows[:, None] & columns

        return self._once((id(extent.rows), id(extent.columns), *size), make)

    def _cleared(self, x: Tensor, extent: Extent) -> Tensor:
        """The map with zeros beyond the image: a product, which runtimes compute faster than a choice."""
        if id(x) in self._clean:
            return x
        covered = self._covered(extent, x.shape[-2:])
        return x * self._once((id(covered), x.dtype), lambda: covered.to(x.dtype))

    def _after(self, extent: Extent, window: Sequence[tuple[int, int, int]]) -> Extent:
        """What the image covers after windows of this length, stride and margin (before and behind together)."""
        if all(step == (1, 1, 0) for step in window):
            return extent

        def one(axis: int) -> Tensor:
            length, stride, margin = window[axis]
            key = id(extent[axis]), length, stride, margin
            return self._once(key, lambda: (extent[axis] + margin - length) // stride + 1)

        return Extent(one(0), one(1))

    def _convolution(self, func: Any, x: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        names = ("bias", "stride", "padding", "dilation", "groups")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        return self._convolved(lambda x: func(x, weight, *args, **kwargs), x, weight, given)

    def _deformable(self, func: Any, x: Tensor, weight: Tensor, offset: Tensor, *args: Any) -> Tensor:
        stride, padding, dilation = args[2:4], args[4:6], args[6:8]  # after the mask and the bias
        given = {"stride": stride, "padding": padding, "dilation": dilation}
        return self._convolved(lambda x: func(x, weight, offset, *args), x, weight, given)

    def _convolved(self, run: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor, given: dict[str, Any]) -> Tensor:
        kernel = weight.shape[2:]
        if tuple(kernel) == (1, 1) and self._extent(x) is None:
            return run(x)  # of cells of a pool, which have no edge
        extent = self._known(x)
        stride, padding, dilation = (
            _pair(given.get(n, d)) for n, d in (("stride", 1), ("padding", 0), ("dilation", 1))
        )
        windows = [(dilation[a] * (kernel[a] - 1) + 1, stride[a], 2 * padding[a]) for a in (0, 1)]
        result = run(x if tuple(kernel) == (1, 1) else self._cleared(x, extent))
        size = result.shape[-2], result.shape[-1]
        return self._mark(result, self._sizes.get(size) or self._after(extent, windows))

    def _pad(self, func: Any, x: Tensor, pad: Sequence[int], *args: Any, **kwargs: Any) -> Tensor:
        given = {**dict(zip(("mode", "value"), args, strict=False)), **kwargs}
        if len(pad) > 4 or given.get("mode", "constant") != "constant" or given.get("value"):
            raise LostError
        left, right, above, below = (*pad, 0, 0)[:4]
        extent = self._known(x)
        padded = func(self._cleared(x, extent), pad, *args, **kwargs)
        self._clean.add(id(padded))
        return self._mark(padded, self._after(extent, [(1, 1, above + below), (1, 1, left + right)]))

    def _pool(self, func: Any, x: Tensor, kernel_size: Any, stride: Any = None, *args: Any, **kwargs: Any) -> Tensor:
        maximum = func is F.max_pool2d
        names = ("padding", "dilation", "ceil_mode") if maximum else ("padding", "ceil_mode", "count_include_pad")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        kernel, step, margin = _pair(kernel_size), _pair(stride or kernel_size), _pair(given.get("padding", 0))
        dilation, rounding = _pair(given.get("dilation", 1)), given.get("ceil_mode", False)
        extent = self._known(x)
        lengths = [dilation[a] * (kernel[a] - 1) + 1 for a in (0, 1)]
        up = [step[a] - 1 if rounding else 0 for a in (0, 1)]
        after = self._after(extent, [(lengths[a], step[a], 2 * margin[a] + up[a]) for a in (0, 1)])
        if maximum:
            low = torch.where(self._covered(extent, x.shape[-2:]), x, -torch.inf)
            most = func(low, kernel_size, stride, *args, **kwargs)
            return self._mark(torch.where(self._covered(after, most.shape[-2:]), most, 0.0), after)
        sums = func(self._cleared(x, extent), kernel_size, stride, *args, **kwargs)
        if not given.get("count_include_pad", True):  # the mean of those that there are
            ones = torch.ones(1, 1, *x.shape[-2:], dtype=x.dtype)
            share = func(self._cleared(ones, extent), kernel_size, stride, *args, **kwargs)
            sums = sums / share.clamp(min=1 / (4 * kernel[0] * kernel[1]))  # 0 only beyond the image
        return self._mark(sums, after)

    def _means_of_cells(self, func: Any, x: Tensor, output_size: Any) -> Tensor:
        rows, columns = _pair(output_size)
        if rows != columns:
            raise LostError
        extent = self._known(x)
        if rows == 1:
            return self._reduced(Tensor.mean, x, (2, 3), keepdim=True)
        return cell_means(x, rows, *extent)

    def _maxima_of_cells(self, func: Any, x: Tensor, output_size: Any, return_indices: bool = False) -> Tensor:
        rows, columns = _pair(output_size)
        if rows != columns:
            raise LostError
        return cell_maxima(x, rows, *self._known(x))

    def _interpolated(
        self,
        func: Any,
        x: Tensor,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        *_: Any,
        **__: Any,
    ) -> Tensor:
        if align_corners or mode not in ("nearest", "bilinear"):
            raise LostError
        if size is None:
            size = [int(side * factor) for side, factor in zip(x.shape[-2:], _pair(scale_factor), strict=True)]
        height, width = size
        if mode == "bilinear":
            return self.resized(x, (height, width))
        before, after = self._known(x), self._of_size((height, width))
        for axis, side in ((-2, height), (-1, width)):
            places = torch.arange(side) * before[axis] // after[axis]
            x = x.index_select(axis, torch.minimum(places, before[axis] - 1))
        return self._mark(x, after)

    def _group_norm(
        self, func: Any, x: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
    ) -> Tensor:
        extent = self._known(x)
        groups = x.unflatten(1, (num_groups, -1))
        count = extent.rows * extent.columns * groups.shape[2]
        covered = self._covered(extent, x.shape[-2:])

        def mean(values: Tensor) -> Tensor:
            return torch.where(covered, values, 0.0).sum((2, 3, 4), keepdim=True) / count

        centered = groups - mean(groups)
        normal = (centered * (mean(centered.square()) + eps).rsqrt()).flatten(1, 2)
        if weight is not None:
            normal = normal * weight[:, None, None] + bias[:, None, None]
        return self._mark(normal, extent)

    def _reduced(self, func: Any, x: Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Tensor:
        """A sum or a mean."""
        if dim is None:
            dim = tuple(range(x.ndim))
        extent, dims = self._extent(x), dim if isinstance(dim, tuple | list) else (dim,)
        axes = {x.ndim - 1} if self._flat(x) else {x.ndim - 2, x.ndim - 1}
        over = axes & {axis % x.ndim for axis in dims}
        if extent is None or not over:
            return self._mark(func(x, dim, keepdim=keepdim, **kwargs), extent, self._flat(x))
        if over != axes or self._flat(x):
            raise LostError
        total = self._cleared(x, extent).sum(dim, keepdim=keepdim)
        others = math.prod(x.shape[axis] for axis in dims if axis % x.ndim not in axes)
        return total if func is Tensor.sum else total / (extent.rows * extent.columns * others)

    def _flattened(self, func: Any, x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Axes become one. Where it is the pixels, those beyond the image are zeros."""
        extent, last = self._extent(x), end_dim % x.ndim
        if extent is None or self._flat(x) or last == x.ndim - 2 or start_dim % x.ndim == x.ndim - 1:
            return func(x, start_dim, end_dim)
        if last < x.ndim - 2:
            return self._mark(func(x, start_dim, end_dim), extent)
        return self._mark(func(self._cleared(x, extent), start_dim, end_dim), extent, (x.shape[-2], x.shape[-1]))

    def _reshaped(self, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """A map again, or pixels whose channels are told apart."""
        result = func(x, *args, **kwargs)
        flat = self._flat(x)
        if flat is not None and result.shape[-1] == x.shape[-1]:
            return self._mark(result, self._extent(x), flat)
        if result.shape[-2:] == x.shape[-2:]:
            return self._mark(result, self._extent(x))
        again = result.ndim >= 4 and (flat is not None or func is not Tensor.unflatten)
        return self._mark(result, self._sizes.get((result.shape[-2], result.shape[-1])) if again else None)

    def _product(self, func: Any, a: Tensor, b: Tensor) -> Tensor:
        """A matrix times the pixels."""
        result = func(a, b)
        return self._mark(result, self._extent(b), self._flat(b)) if self._flat(b) else result

    def _softmax(self, func: Any, x: Tensor, dim: int, *args: Any, **kwargs: Any) -> Tensor:
        extent, flat = self._extent(x), self._flat(x)
        if extent is not None and flat is not None and dim % x.ndim == x.ndim - 1:  # over the pixels
            x = torch.where(self._covered(extent, flat).flatten(), x, -torch.inf)
        elif extent is not None and flat is None and dim % x.ndim >= x.ndim - 2:
            raise LostError
        return self._mark(func(x, dim, *args, **kwargs), extent, flat)

    def _filled_up(self, func: Any, images: Tensor, divisor: int) -> Tensor:
        rows, columns = ((side + divisor - 1) // divisor * divisor for side in self._known(images))
        return self._mark(func(self._cleared(images, self._known(images)), divisor), Extent(rows, columns))

    # Swin's maps (B,H,W,C) are known by their size.
    def _padded(self, func: Any, x: Tensor, divisor: int) -> Tensor:
        extent = self._of_size(x.shape[1:3])
        padded = func(torch.where(self._covered(extent, x.shape[1:3])[..., None], x, 0.0), divisor)
        if divisor == 2:  # four cells become one
            rows, columns = ((side + 1) // 2 for side in extent)
            self._sizes.setdefault((padded.shape[1] // 2, padded.shape[2] // 2), Extent(rows, columns))
        return padded

    def _shift_mask(self, func: Any, x: Tensor, window: int, shift: int) -> Tensor:
        rows, columns = ((side + window - 1) // window * window for side in self._of_size(x.shape[1:3]))
        return func(x, window, shift, (rows, columns))

    def _permuted(self, func: Any, x: Tensor, *dims: int) -> Tensor:
        result = func(x, *dims)
        return self._mark(result, self._sizes.get((result.shape[2], result.shape[3])) if dims == (0, 3, 1, 2) else None)

    def _of_size(self, size: Sequence[int]) -> Extent:
        if tuple(size) not in self._sizes:
            raise LostError
        return self._sizes[size[0], size[1]]

    def _positions(self, func: Any, like: Tensor) -> Tensor:
        return func(like, self._known(like))


def _taps(side: int, before: int, covered: Tensor | int, wanted: Tensor) -> Tensor:
    """The weights of `before` cells, of which so many are covered, in each of `side`, of which so many are wanted."""
    place = ((torch.arange(side) + 0.5) * (covered / wanted) - 0.5).clamp(min=0)
    first = torch.minimum(place.floor().long(), torch.as_tensor(covered) - 1)
    second = torch.minimum(first + 1, torch.as_tensor(covered) - 1)
    share, cells = (place - first).clamp(max=1)[:, None], torch.arange(before)
    return (cells == first[:, None]) * (1 - share) + (cells == second[:, None]) * share


def _pair(value: Any) -> tuple[Any, Any]:
    return (value[0], value[-1]) if isinstance(value, tuple | list) else (value, value)


def _tensors(args: Any) -> list[Tensor]:
    """The maps among the arguments of a function, also those in a list."""
    flat = [x for arg in args for x in (arg if isinstance(arg, tuple | list) else (arg,))]
    return [x for x in flat if isinstance(x, Tensor) and x.ndim >= 4]


_RULES: dict[Any, Callable[..., Tensor]] = {
    torch.conv2d: Inside._convolution,
    "deform_conv2d": Inside._deformable,  # by its name, as torchvision may not be imported
    F.pad: Inside._pad,
    F.max_pool2d: Inside._pool,
    F.avg_pool2d: Inside._pool,
    F.adaptive_avg_pool2d: Inside._means_of_cells,
    F.adaptive_max_pool2d: Inside._maxima_of_cells,
    F.interpolate: Inside._interpolated,
    F.group_norm: Inside._group_norm,
    Tensor.mean: Inside._reduced,
    Tensor.sum: Inside._reduced,
    Tensor.flatten: Inside._flattened,
    Tensor.unflatten: Inside._reshaped,
    Tensor.view: Inside._reshaped,
    Tensor.reshape: Inside._reshaped,
    Tensor.matmul: Inside._product,
    Tensor.softmax: Inside._softmax,
    Tensor.permute: Inside._permuted,
    sine_positions: Inside._positions,
    fill_up: Inside._filled_up,
    pad_to_multiple: Inside._padded,
    shift_mask: Inside._shift_mask,
}
