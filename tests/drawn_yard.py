"""The pictures of docs/custom-data.md: boxes that hide each other before a wall, with labels and instances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

FLOOR, WALL = (120, 120, 120), (90, 140, 90)
BOX_COLORS = [(220, 120, 20), (200, 60, 40), (60, 90, 200), (230, 200, 40)]


def draw_yard(size: tuple[int, int], rng: np.random.Generator) -> tuple[Image.Image, Image.Image, Image.Image]:
    """Boxes that hide each other before a wall: image, labels (0 void, 1 floor, 2 wall, 3 box) and instances."""
    height, width = size
    image, labels, instances = (Image.new(mode, (width, height)) for mode in ("RGB", "L", "L"))
    pens = [ImageDraw.Draw(picture) for picture in (image, labels, instances)]
    horizon = int(rng.integers(height // 4, height // 2))

    def fill(box: tuple[int, int, int, int], *values: tuple[int, int, int] | int) -> None:
        for pen, value in zip(pens, values, strict=True):
            pen.rectangle(box, fill=value)

    fill((0, 0, width, horizon), WALL, 2, 0)
    fill((0, horizon + 1, width, height), FLOOR, 1, 0)
    for number in range(1, int(rng.integers(3, 7))):
        edge = int(rng.integers(height // 6, height // 3))
        left = int(rng.integers(0, width - edge))
        top = int(rng.integers(horizon - edge // 2, height - edge))
        color = BOX_COLORS[int(rng.integers(len(BOX_COLORS)))]
        fill((left, top, left + edge, top + edge), color, 3, number)
        pens[0].rectangle((left, top, left + edge, top + edge), outline=(40, 40, 40), width=max(edge // 12, 1))
    fill((0, height - max(height // 20, 1), width, height), (0, 0, 0), 0, 0)  # nobody labelled the lowest rows
    noise = np.clip(np.asarray(image, np.int16) + rng.integers(-12, 13, (height, width, 3)), 0, 255)
    return Image.fromarray(noise.astype(np.uint8)), labels, instances


def make_yard(root: Path, counts: dict[str, int], size: tuple[int, int], table: str) -> None:
    """The folders that the page asks for, with its class table."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for number in range(count):
            image, labels, instances = draw_yard(size, rng)
            for kind in ("images", "labels", "instances"):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
            image.save(root / "images" / split / f"{number:03}.jpg", quality=95)
            labels.save(root / "labels" / split / f"{number:03}.png")
            instances.save(root / "instances" / split / f"{number:03}.png")
    (root / "classes.json").write_text(table)
