"""What real cameras, weather and compression do to pictures, for training: what a network met does not surprise it.

All of it leaves objects where they are, so the truth stays as it is.
"""

import io

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

EXPOSURE = 0.7  # largest change of the logarithm of gamma: from dark evening to glare
GAIN = (0.5, 1.3)
TINT = 0.15  # largest change of a channel against the others
BLUR = (0.4, 1.6)  # pixels
QUALITY = (25, 85)  # of JPEG
NOISE = (2.0, 12.0)  # standard deviation, of values 0 to 255


def random_camera(image: Tensor, chance: float, rng: np.random.Generator) -> Tensor:
    """Exposure (gamma and gain), tint, blur, noise and JPEG, each with a chance. (3,H,W) uint8 RGB -> the same

    All numbers but the noise itself are drawn in any case.
    """
    exposed, tinted, blurred, noisy, compressed = rng.random(5) < chance
    gamma, gain = float(np.exp(rng.uniform(-EXPOSURE, EXPOSURE))), float(rng.uniform(*GAIN))
    tint = rng.uniform(1 - TINT, 1 + TINT, 3)
    radius, sigma = float(rng.uniform(*BLUR)), float(rng.uniform(*NOISE))
    quality = int(rng.integers(QUALITY[0], QUALITY[1] + 1))
    if exposed or tinted:
        values = np.linspace(0, 1, 256)[None].repeat(3, 0)
        values = values**gamma * gain if exposed else values
        values = values * tint[:, None] if tinted else values
        tables = torch.from_numpy((values * 255).round().clip(0, 255).astype(np.uint8))
        image = torch.stack([table[channel.int()] for table, channel in zip(tables, image, strict=True)])
    if blurred or compressed:
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        picture = picture.filter(ImageFilter.GaussianBlur(radius)) if blurred else picture
        if compressed:
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=quality)
            picture = Image.open(file)
        image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    if noisy:
        grain = torch.from_numpy(rng.standard_normal(image.shape, np.float32))
        image = (image + grain * sigma).clamp(0, 255).to(torch.uint8)
    return image
