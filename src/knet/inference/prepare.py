"""Images as networks take them: on the device, normalised, padded, side by side in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from knet.structures import Preprocessing


def uploaded(image: np.ndarray, device: torch.device) -> Tensor:
    """An image on a device, as bytes; a GPU takes it while the computer goes on. (H,W,3) uint8 -> the same

    On the CPU it may share the array's memory.
    """
    usable = image.flags.writeable and image.flags.c_contiguous  # else torch warns, or cannot
    x = torch.from_numpy(image if usable else image.copy(order="C"))
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def normalize_and_pad(
    images: Sequence[Tensor],
    preprocessing: Preprocessing,
    least: tuple[int, int] = (1, 1),
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """A batch for a network. B tensors (3,H,W) uint8 or 0..255 -> (B,3,h,w) float32

    h and w are the largest of the batch and of `least`, rounded up to the divisor; zeros fill the right and the
    bottom, after the normalisation, so that padding is the mean colour.
    """
    d = preprocessing.divisor
    sizes = [*((image.shape[1], image.shape[2]) for image in images), least]
    height, width = (-(-max(sides) // d) * d for sides in zip(*sizes, strict=True))
    batch = images[0].new_empty(len(images), height, width, 3, dtype=torch.float32)
    for row, image in zip(batch, images, strict=True):
        H, W = image.shape[1:]
        # Colours side by side: a row of pixels is one run of numbers, an eighth of the time of three planes.
        mean, std = _of_row(preprocessing.mean, W, image.device), _of_row(preprocessing.std, W, image.device)
        seen = row[:H, :W].flatten(1)
        torch.sub(image.permute(1, 2, 0).flatten(1), mean, out=seen)
        seen.div_(std)
        row[H:] = row[:H, W:] = 0
    return batch.permute(0, 3, 1, 2).contiguous(memory_format=memory_format)


@lru_cache(maxsize=8)
def _of_row(colour: tuple[float, float, float], width: int, device: torch.device) -> Tensor:
    """A colour, again and again for each pixel of a row; kept on the device, since a copy to a GPU waits for it."""
    with torch.inference_mode(False):
        return torch.tensor(colour, device=device).repeat(width)
