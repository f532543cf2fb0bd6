"""A network that finds squares by their colour, and videos of squares that move: quick, and right about everything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from knet.inference.load import describe, segmenter_for
from knet.inference.segmenter import Segmenter
from knet.models.network import Network
from knet.structures import Category, Output, Preprocessing

TABLE = (
    Category(0, "road", False, (128, 64, 128)),
    Category(11, "person", True, (220, 20, 60)),
    Category(13, "car", True, (0, 0, 142)),
)
BRIGHTNESS = {1: 80, 2: 130, 3: 180, 4: 230}  # of object n; the road is darker. Even ones are cars
OBJECTS = len(BRIGHTNESS)


class Painted(Network):
    """One kernel for the road and one for each object, in another order in every frame, and its number as its content.

    `certainty` is the logit of the stage's classes. `previous` is kept, to be looked at.
    """

    certainty = 3.0

    def __init__(self, turns: bool = True):
        super().__init__()
        self.turns, self.frames, self.previous = turns, 0, list[Any]()

    def forward(self, images: Tensor, previous: Tensor | None = None) -> list[Output]:
        order = torch.arange(OBJECTS + 1)
        if self.turns:
            order = order.roll(self.frames)
        self.frames += 1
        self.previous.append(previous)
        levels = torch.tensor([30, *BRIGHTNESS.values()])[order]
        near = (images[:, :1] - levels[None, :, None, None]).abs() < 20
        classes = torch.tensor([0] + [2 if n % 2 == 0 else 1 for n in BRIGHTNESS])[order]
        class_logits = torch.where(nn.functional.one_hot(classes, 3).bool(), self.certainty, -6.0)[None]
        kernels = nn.functional.one_hot(order, 8).float()[None]
        masks = torch.where(near, 9.0, -9.0)
        return [Output(kernels, masks, None, images), Output(kernels, masks, class_logits, images, linked=kernels + 0)]


class Linked(Painted):
    """The same as a network for videos: with embeddings, in which objects are far from each other."""

    embeds = True

    def embed(self, kernels: Tensor) -> Tensor:
        return 8 * kernels


def segmenter_of(net: Network, categories: Sequence[Category] = TABLE, compatible: bool = False) -> Segmenter:
    preprocessing = Preprocessing(64, 128, mean=(0, 0, 0), std=(1, 1, 1), divisor=8)
    arguments = {"classes": len(categories)}
    card = describe("rtknet-slim-cityscapes", arguments, categories, preprocessing, score=0.3, overlap=0.5)
    return segmenter_for(net, card, compatible, size="image")


def painted(objects: dict[int, tuple[int, int]], size: tuple[int, int] = (48, 96), side: int = 12) -> np.ndarray:
    """A frame: object -> (top, left). (H,W,3) uint8"""
    image = np.full((*size, 3), 30, np.uint8)
    for number, (top, left) in objects.items():
        image[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = BRIGHTNESS[number]
    return image


def drive(count: int, size: tuple[int, int] = (48, 96)) -> list[np.ndarray]:
    """Object 1 goes to the right, 2 to the left, 3 stands from the fourth frame on."""
    frames = []
    for t in range(count):
        third = {3: (34, 60)} if t >= 3 else {}
        frames.append(painted({1: (2, 4 + 3 * t), 2: (18, 80 - 3 * t), **third}, size))
    return frames


def in_folder(folder: Path, frames: Sequence[np.ndarray], names: Sequence[str] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for n, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / (names[n] if names else f"{n:06d}.png"))
    return folder


def filmed(path: Path, frames: Sequence[np.ndarray], form: str | None = None) -> Path:
    """A video of the frames, nearly without loss."""
    with av.open(
        str(path), "w", format=form, options={"movflags": "+faststart"} if path.suffix == ".mp4" else {}
    ) as to:
        stream = to.add_stream("libx264", rate=10, options={"crf": "4"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            to.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        to.mux(stream.encode(None))
    return path
