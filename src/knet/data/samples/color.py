"""Random colours for training: brightness, contrast, saturation and hue of 8-bit images.

The rules are those of the augmentation that RT-K-Net trains with (from SSD, Liu et al., ECCV 2016, section 2.2, as
detectron2 has it), whose saturation and hue live in OpenCV's 8-bit HSV: hue 0..179 in steps of two degrees,
saturation and value 0..255. The conversions here follow OpenCV's documented formulas and agree with it to +-1.
"""

import numpy as np
import torch
from torch import Tensor

from knet.errors import ConfigError

BRIGHTNESS = 32.0
CONTRAST = SATURATION = (0.5, 1.5)
HUE = 18

_FRACTION_BITS = 12
_HALF = 1 << (_FRACTION_BITS - 1)


def _quotients(numerator: float) -> Tensor:
    """numerator / n for n = 0 .. 255 in fixed point (0 for n = 0): OpenCV divides by such a table too."""
    numbers = torch.arange(256, dtype=torch.float64)
    quotients = (numerator * 2**_FRACTION_BITS / numbers.clamp(min=1)).round().to(torch.int32)
    quotients[0] = 0
    return quotients


def _chroma_shares() -> Tensor:
    """(3,180) share of the chroma that red, green and blue lack at each hue: see `hsv_to_rgb`."""
    k = (torch.tensor([[5.0], [3.0], [1.0]], dtype=torch.float64) + torch.arange(180) / 30.0).remainder(6.0)
    return torch.minimum(k, 4.0 - k).clamp(0.0, 1.0).float()


_CHROMA_SHARE = _chroma_shares()
_HUE_QUOTIENT = _quotients(30.0)
_SATURATION_QUOTIENT = _quotients(255.0)


def adjust_color(
    image: Tensor,
    *,
    brightness: float | None = None,
    contrast: float | None = None,
    contrast_first: bool = True,
    saturation: float | None = None,
    hue: int | None = None,
) -> Tensor:
    """Changes the colours of an image. (3,H,W) uint8 RGB -> (3,H,W) uint8 RGB

    Brightness is added to every value, first of all; contrast multiplies every value, before saturation and hue or
    after them; saturation multiplies that of HSV; hue is added to that of HSV, in steps of two degrees. None leaves out
    a step. After each step values are clipped to 0..255 and lose their fraction, as in the original.
    """
    if brightness is not None:
        image = _scale(image, 1.0, brightness)
    if contrast is not None and contrast_first:
        image = _scale(image, contrast, 0.0)
    if saturation is not None:
        h, s, v = rgb_to_hsv(image)
        image = hsv_to_rgb(h, _scale(s, saturation, 0.0), v)
    if hue is not None:
        h, s, v = rgb_to_hsv(image)
        image = hsv_to_rgb((h.to(torch.int16) + int(hue)).remainder_(180).to(torch.uint8), s, v)
    if contrast is not None and not contrast_first:
        image = _scale(image, contrast, 0.0)
    return image


def random_color(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Changes the colours of an image at random, each property with probability 1/2. (3,H,W) uint8 RGB, same out

    Brightness +-32, contrast and saturation 0.5 to 1.5, hue +-18 steps of two degrees; contrast before or after
    saturation and hue with probability 1/2. Every number is drawn in any case, so that the generator's state afterwards
    does not depend on them.
    """
    use = rng.random(4) < 0.5
    contrast_first = bool(rng.random() < 0.5)
    brightness = float(rng.uniform(-BRIGHTNESS, BRIGHTNESS))
    contrast, saturation = float(rng.uniform(*CONTRAST)), float(rng.uniform(*SATURATION))
    hue = int(rng.integers(-HUE, HUE + 1))
    return adjust_color(
        image,
        brightness=brightness if use[0] else None,
        contrast=contrast if use[1] else None,
        contrast_first=contrast_first,
        saturation=saturation if use[2] else None,
        hue=hue if use[3] else None,
    )


def rgb_to_hsv(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Converts to hue 0..179, saturation 0..255 and value 0..255. (3,H,W) uint8 RGB -> (H,W) uint8 each

    V = max, S = 255 (max - min) / max, H = 30 (difference of the two other channels) / (max - min) + 0, 60 or 120
    where red, green or blue is the largest (the first of equals), all rounded; 0 where the quotient is undefined.
    """
    if image.dtype != torch.uint8 or image.dim() != 3 or image.shape[0] != 3:
        raise ConfigError(f"Colours need a (3,H,W) uint8 image, not {tuple(image.shape)} of {image.dtype}.")
    # Tables are read with index_select, which takes 32-bit indices as they are; [] would make them 64-bit first.
    red, green, blue = image.to(torch.int32, memory_format=torch.contiguous_format).unbind(0)
    value = torch.maximum(torch.maximum(red, green), blue)
    spread = value - torch.minimum(torch.minimum(red, green), blue)
    # 60 degrees of hue are one `spread`: the second and third case start at 60 and 120 (of 180).
    turn = torch.where(
        value == red,
        green - blue,
        torch.where(value == green, (blue - red).add_(spread, alpha=2), (red - green).add_(spread, alpha=4)),
    )
    hue = turn.mul_(_HUE_QUOTIENT.index_select(0, spread.flatten()).view(spread.shape))
    hue.add_(_HALF).bitwise_right_shift_(_FRACTION_BITS)
    hue.add_(hue < 0, alpha=180)
    saturation = _SATURATION_QUOTIENT.index_select(0, value.flatten()).view(value.shape)
    saturation.mul_(spread).add_(_HALF).bitwise_right_shift_(_FRACTION_BITS)
    return hue.to(torch.uint8), saturation.to(torch.uint8), value.to(torch.uint8)


def hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """The inverse of `rgb_to_hsv` up to rounding. (H,W) uint8 each -> (3,H,W) uint8 RGB

    A channel is V - V S max(0, min(k, 4 - k, 1)) with k = (n + H / 30) mod 6 and n = 5, 3, 1 for red, green, blue.
    """
    index, value_float = hue.flatten().int(), value.float()
    chroma = saturation.float().mul_(1 / 255.0).mul_(value_float)
    image = torch.empty(3, *hue.shape, dtype=torch.uint8)
    for channel in range(3):
        share = _CHROMA_SHARE[channel].index_select(0, index).view(hue.shape)
        image[channel] = value_float.sub(share.mul_(chroma)).add_(0.5)  # storing cuts off the fraction
    return image


def _scale(values: Tensor, factor: float, offset: float) -> Tensor:
    return values.float().mul_(factor).add_(offset).clamp_(0.0, 255.0).to(torch.uint8)
