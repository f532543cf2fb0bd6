"""What happens to images before a network sees them: sizes, resizing, normalisation and padding, in training and after.

Resizing equals that of the originals to the last bit, which networks notice: Pillow's (torch's own), or OpenCV's for
K-Net.
"""

import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral
from typing import Literal, NamedTuple, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from knet.errors import ConfigError, shown
from knet.structures import Preprocessing

Size = Literal["model", "image"] | int | tuple[int, int]
"""The size at which a network sees an image: "model" = the published test size, "image" = the image as it is, a number
= the short side in pixels, a pair = the largest (short, long) side."""

_LONGEST = 2**20  # pixels of a side that can be asked for
MOST_SEEN = 2**27  # pixels; a network of the usual kind needs some 30 GB for so many

_ONE = 2048  # OpenCV's weights are integers, multiples of 1 / 2048


@dataclass(frozen=True, slots=True)
class ImageSizes:
    """The sizes of an image on its way through a network, (height, width) each."""

    padded: tuple[int, int]  # with the padding of its batch
    resized: tuple[int, int]  # as the network sees it, without padding
    original: tuple[int, int]  # as it came in, and as its result will be


def network_size(
    shape: tuple[int, int], size: Size, preprocessing: Preprocessing, scale: float = 1.0, compatible: bool = False
) -> tuple[int, int]:
    """The (height, width) at which the network sees an image of this shape, without padding, times `scale`.

    `compatible`: K-Net's sizes are rounded as OpenMMLab does it, which for a few shapes gives a pixel more or less.

    Raises:
        ConfigError: what is no size, or one at which the image has more pixels than fit into a memory.
    """
    height, width = size_of(shape, size, preprocessing, scale, compatible)
    if height * width > MOST_SEEN:
        raise ConfigError(
            f"The image of {shape[0]}x{shape[1]} pixels has {height}x{width} at the size {shown(size)}"
            f"{'' if scale == 1 else f' times {scale:g}'} (--size), and a network sees {MOST_SEEN:,} at most; take "
            "a smaller size."
        )
    return height, width


def size_of(
    shape: tuple[int, int], size: Size, preprocessing: Preprocessing, scale: float = 1.0, compatible: bool = False
) -> tuple[int, int]:
    """As `network_size`, however large that is."""
    if isinstance(size, str) and (size == "image" or (size == "model" and not preprocessing.resize)):
        return max(int(shape[0] * scale + 0.5), 1), max(int(shape[1] * scale + 0.5), 1)
    if isinstance(size, str) and size == "model":
        short, long = preprocessing.short_edge, preprocessing.max_edge
    elif _is_side(size):
        size = int(size)  # numbers of NumPy's may be too small for what follows
        # The limit of the long side keeps the model's proportion, so that a panorama does not become enormous.
        short, long = size, size * preprocessing.max_edge // preprocessing.short_edge
    elif isinstance(size, tuple | list) and len(size) == 2 and all(map(_is_side, size)) and size[0] <= size[1]:
        short, long = map(int, size)
    else:
        raise ConfigError(f"The size {shown(size)} is not 'model', 'image', a positive number or a pair (short, long).")
    resized = _resized_as_openmmlab if compatible and not preprocessing.antialias else resized_size
    return resized(shape, max(int(short * scale), 1), max(int(long * scale), 1))


def fitting_size(shape: tuple[int, int], fixed: tuple[int, int], preprocessing: Preprocessing) -> Size:
    """ "model", or where that does not fit into a fixed (height, width), the largest size that does, as a pair."""
    resized = network_size(shape, "model", preprocessing)
    if resized[0] <= fixed[0] and resized[1] <= fixed[1]:
        return "model"
    scale = min(fixed[0] / shape[0], fixed[1] / shape[1])
    short, long = sorted(max(int(side * scale), 1) for side in shape)
    return short, long


def _is_side(value: object) -> TypeGuard[int]:
    return isinstance(value, Integral) and not isinstance(value, bool) and 0 < int(value) <= _LONGEST


def resized_size(size: tuple[int, int], short_edge: int, max_size: int) -> tuple[int, int]:
    """Height and width with a shorter edge of `short_edge`, or less where the longer one would exceed `max_size`."""
    height, width = size
    scale = short_edge / min(height, width)
    new_height, new_width = (
        (float(short_edge), scale * width) if height < width else (scale * height, float(short_edge))
    )
    if max(new_height, new_width) > max_size:
        scale = max_size / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return max(int(new_height + 0.5), 1), max(int(new_width + 0.5), 1)


def _resized_as_openmmlab(size: tuple[int, int], short_edge: int, max_size: int) -> tuple[int, int]:
    """As `resized_size`, by one factor for both sides."""
    scale = min(max_size / max(size), short_edge / min(size))
    return max(int(size[0] * scale + 0.5), 1), max(int(size[1] * scale + 0.5), 1)


class Window(NamedTuple):
    """A part of an image, in pixels; bottom and right are exclusive."""

    top: int
    left: int
    bottom: int
    right: int


def resize_image(image: Tensor, size: tuple[int, int], window: Window | None = None, antialias: bool = True) -> Tensor:
    """Resizes an image to (height, width) (bilinear) and crops it. (3,H,W) uint8 -> (3,h,w) uint8

    Only the part of the result in `window` is computed, with the same pixels as in the whole. `antialias` smooths
    shrunk images, as Pillow does.
    """
    window = window or Window(0, 0, *size)
    before = tuple(image.shape[-2:])
    if before == size:
        return image[:, window.top : window.bottom, window.left : window.right]
    rows = _needed(window.top, window.bottom, before[0], size[0])
    columns = _needed(window.left, window.right, before[1], size[1])
    part = image[:, rows.start : rows.stop, columns.start : columns.stop]
    # torch is twice as fast if it sees that colours lie side by side, for which the batch's stride has to fit as well:
    # so the batch's dimension is added in the layout of files.
    part = part.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
    # torch rounds the number of pixels down: a rounding error in the product must not cost a pixel.
    factors = [after / edge * (1 + 1e-12) for after, edge in zip(size, before, strict=True)]
    part = F.interpolate(part, scale_factor=factors, mode="bilinear", antialias=antialias)[0]
    top, left = window.top - rows.skipped, window.left - columns.skipped
    return part[:, top : top + window.bottom - window.top, left : left + window.right - window.left]


def resize_ids(id_map: Tensor, size: tuple[int, int], window: Window | None = None) -> Tensor:
    """As `resize_image`, for ids, to the nearest: pixel y takes row floor(y H / h). (...,H,W) -> (...,h,w)"""
    window = window or Window(0, 0, *size)
    if tuple(id_map.shape[-2:]) == size:
        return id_map[..., window.top : window.bottom, window.left : window.right]
    rows, columns = (nearest_places(before, after) for before, after in zip(id_map.shape[-2:], size, strict=True))
    rows, columns = rows[window.top : window.bottom], columns[window.left : window.right]
    first, last = int(rows[0]), int(rows[-1])
    # Rows last, because whole rows are copied in one piece.
    return id_map[..., first : last + 1, :].index_select(-1, columns).index_select(-2, rows - first)


def nearest_places(before: int, after: int) -> Tensor:
    """Which of `before` pixels each of `after` pixels takes, by torch's own rule, including its float32 rounding."""
    return F.interpolate(torch.arange(before).float()[None, None], size=after, mode="nearest")[0, 0].long()


class _Range(NamedTuple):
    """Source pixels start .. stop - 1, of which resizing makes the pixels from number `skipped` on."""

    start: int
    stop: int
    skipped: int


def _needed(start: int, stop: int, before: int, after: int) -> _Range:
    """Which of `before` pixels in a row must be resized to get the pixels start .. stop - 1 of `after`."""
    # torch aligns its first pixel with the edge of what it gets, so the part has to begin where an edge between pixels
    # of the result falls on one of the source. The triangle filter reaches one pixel of the coarser grid.
    reach = max(before, after) / before  # in pixels of the result
    common = math.gcd(before, after)
    steps = max(start - math.ceil(reach), 0) // (after // common)
    first, skipped = steps * (before // common), steps * (after // common)
    last = min(math.ceil((stop + reach) * before / after) + 1, before)
    if before != after and (last - first) * after // before == last - first:
        return _Range(0, before, 0)  # torch does not resize an axis whose number of pixels stays
    return _Range(first, last, skipped)


def resize_as_opencv(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes as cv2.resize with INTER_LINEAR does for 8-bit images. (3,H,W) uint8 -> (3,h,w) uint8

    The fixed-point arithmetic is OpenCV's: first along rows, then along columns, where each product loses its last
    bits. Shrunk images are not smoothed.
    """
    top, bottom, upper, lower = _taps(image.shape[1], size[0], image.device)
    left, right, near, far = _taps(image.shape[2], size[1], image.device)
    # Along rows OpenCV gives a pixel beyond the edge no weight, along columns that of the edge's pixel. The difference
    # is one of rounding, which only the shorter numbers of columns show.
    pixels = image.permute(1, 2, 0).int()  # colours side by side, as in files: whole pixels are copied
    rows = pixels.index_select(1, left).mul_(near[:, None])
    rows += pixels.index_select(1, right).mul_(far[:, None])
    rows >>= 4
    columns = rows.index_select(0, top).mul_(upper[:, None, None]).bitwise_right_shift_(16)
    columns += rows.index_select(0, bottom).mul_(lower[:, None, None]).bitwise_right_shift_(16)
    columns += 2
    columns >>= 2
    return columns.clamp_(0, 255).byte().permute(2, 0, 1)


def _taps(before: int, after: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The two pixels between which each new one lies, and their weights. -> (after,) int64, int64, int32, int32"""
    place = ((torch.arange(after, dtype=torch.float64) + 0.5) * (before / after) - 0.5).float()
    first = place.floor().long()
    share = place - first
    left, right = first.clamp(0, before - 1), (first + 1).clamp(0, before - 1)
    near, far = ((1 - share) * _ONE).round().int(), (share * _ONE).round().int()
    return left.to(device), right.to(device), near.to(device), far.to(device)


def prepare(
    image: np.ndarray,
    size: Size,
    preprocessing: Preprocessing,
    device: torch.device,
    scale: float = 1.0,
    compatible: bool = False,
    rounded: bool = True,
) -> tuple[Tensor, ImageSizes]:
    """An image as a normalised and padded batch of one, and its sizes. (H,W,3) uint8 -> (1,3,h,w) float32

    `compatible` as for `network_size`; `rounded`: whether resized values are whole numbers, as in image files.
    """
    original, p = (image.shape[0], image.shape[1]), preprocessing
    resized = network_size(original, size, p, scale, compatible)
    x = uploaded(image, device).permute(2, 0, 1)
    if resized != original and not rounded:
        x = F.interpolate(x[None].float(), resized, mode="bilinear", antialias=p.antialias)[0]
    elif resized != original:
        x = resize_antialiased(x, resized) if p.antialias else resize_as_opencv(x, resized)
    inputs = normalize_and_pad([x], p, memory_format=torch.channels_last)
    return inputs, ImageSizes((inputs.shape[2], inputs.shape[3]), resized, original)


def resize_antialiased(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, each pixel a mean of all that it covers. (3,H,W) uint8 -> (3,h,w)

    It gives what torchvision gives, which is slow to import: CPUs with instructions for it compute in whole numbers.
    """
    batch = image.as_strided((1, *image.shape), (image.numel(), *image.stride()))  # else its layout would get lost
    able = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() in ("aarch64", "arm64")
    if image.device.type == "cpu" and able:
        return F.interpolate(batch, size, mode="bilinear", antialias=True)[0]
    return F.interpolate(batch.float(), size, mode="bilinear", antialias=True).round_().to(image.dtype)[0]


def unpadded(inputs: Tensor, sizes: ImageSizes) -> Tensor:
    """The image without the padding of its batch. (B,C,H,W) -> (B,C,h,w)"""
    return inputs[:, :, : sizes.resized[0], : sizes.resized[1]]


def uploaded(image: np.ndarray, device: torch.device) -> Tensor:
    """An image on a device, without waiting for a GPU; a CPU may share the array's memory. (H,W,3) uint8 -> the same"""
    usable = image.flags.writeable and image.flags.c_contiguous  # else torch warns, or cannot
    x = torch.from_numpy(image if usable else image.copy(order="C"))
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def normalize_and_pad(
    images: Sequence[Tensor],
    preprocessing: Preprocessing,
    least: tuple[int, int] = (1, 1),
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """A batch for a network. B images (3,H,W) uint8 or 0..255 -> (B,3,h,w) float32

    h and w are the largest of the batch and of `least`, rounded up to the divisor. The right and the bottom are filled
    with zeros after the normalisation, so the padding has the mean colour.
    """
    d = preprocessing.divisor
    sizes = [*((image.shape[1], image.shape[2]) for image in images), least]
    height, width = (-(-max(sides) // d) * d for sides in zip(*sizes, strict=True))
    batch = images[0].new_empty(len(images), height, width, 3, dtype=torch.float32)
    for row, image in zip(batch, images, strict=True):
        H, W = image.shape[1:]
        # With colours side by side a row of pixels is one run of numbers, which takes an eighth of the time of planes.
        mean, std = _of_row(preprocessing.mean, W, image.device), _of_row(preprocessing.std, W, image.device)
        pixels = row[:H, :W].flatten(1)
        torch.sub(image.permute(1, 2, 0).flatten(1), mean, out=pixels)
        pixels.div_(std)
        row[H:] = row[:H, W:] = 0
    return batch.permute(0, 3, 1, 2).contiguous(memory_format=memory_format)


@lru_cache(maxsize=8)
def _of_row(colour: tuple[float, float, float], width: int, device: torch.device) -> Tensor:
    """A colour repeated for each pixel of a row; kept on the device, since a copy to a GPU waits for the GPU."""
    with torch.inference_mode(False):
        return torch.tensor(colour, device=device).repeat(width)
