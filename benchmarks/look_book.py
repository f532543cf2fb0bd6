"""Makes the pictures of docs/look-book.md: how results are drawn, by day and night, in crowds, tiny and in 4K.

    python benchmarks/look_book.py --coco /path/to/coco

The pictures are the bundled ones, but for the crowd: COCO's photo 204805 (train2017/ and
annotations/instances_train2017.json in the folder of --coco; without it that picture is left as it is), drawn with its
true objects.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

import knet
from knet.data.categories import categories_from_rows
from knet.data.readers.coco_instances import CocoInstances
from knet.data.samples.transforms import make_target
from knet.inference.results.colors import KINDS, instance_color
from knet.inference.results.draw import overlay
from knet.inference.results.fonts import font_for
from knet.inference.results.samples import seen_ids, truth_segments

ROOT = Path(__file__).parents[1]
DEMO, FOLDER = Path(knet.__file__).parent / "assets" / "demo", ROOT / "docs" / "look-book"
CROWD = 204805
WIDTH = 1100  # of the pictures in the document


def save(name: str, picture: np.ndarray, width: int = WIDTH) -> None:
    """Writes a picture, shrunk to a width."""
    image = Image.fromarray(picture)
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    image.save(FOLDER / f"{name}.jpg", quality=85, optimize=True)
    print(f"{name}.jpg: {picture.shape[1]}x{picture.shape[0]}, {(FOLDER / f'{name}.jpg').stat().st_size / 1000:.0f} kB")


def by_night(image: Image.Image) -> Image.Image:
    """A day made dark: little light, less colour, some noise."""
    light = (np.asarray(image).astype(float) / 255) ** 2.2 * 0.10
    grey = light.mean(axis=2, keepdims=True)
    dark = 0.55 * light + 0.45 * grey * (0.8, 0.9, 1.2)
    noise = np.random.default_rng(0).normal(0, 0.002, dark.shape)
    return Image.fromarray((255 * np.clip(dark + noise, 0, 1) ** (1 / 2.2)).astype(np.uint8))


def crowd(folder: Path) -> np.ndarray:
    """The true objects of one photo of COCO."""
    reader = CocoInstances(folder / "train2017", folder / "annotations" / "instances_train2017.json")
    index = next(n for n in range(len(reader)) if int(reader.name(n)) == CROWD)
    sample = reader.read(index)
    target = make_target(torch.from_numpy(sample.id_map), sample)
    ids = seen_ids(target.id_map.numpy())
    segments = truth_segments(ids, target.labels.tolist(), reader.categories)
    return overlay(sample.image, ids, segments, reader.categories, legend=True)


def colours() -> np.ndarray:
    """The colours of classes that bring none, and below each those of its objects."""
    rows = [{"id": n, "name": str(n), "thing": True} for n in range(1, 17)]
    table, _ = categories_from_rows(rows, "the look book")
    canvas = Image.new("RGB", (16 * 68, 60 + KINDS * 22), (255, 255, 255))
    pen = ImageDraw.Draw(canvas)
    for n, category in enumerate(table):
        pen.rectangle((n * 68 + 2, 0, n * 68 + 65, 46), fill=category.color)
        pen.text((n * 68 + 34, 23), category.name, font=font_for(400, 900), fill=(0, 0, 0), anchor="mm")
        for k in range(KINDS):
            color = instance_color(category.color, k)
            pen.rectangle((n * 68 + 2, 56 + k * 22, n * 68 + 65, 56 + k * 22 + 20), fill=color)
    return np.asarray(canvas)


def main() -> None:
    """Makes all of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--coco", type=Path, help="folder of COCO 2017, for the crowd")
    args = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    segmenter = knet.load("rtknet-lite-street", device="cpu", precision="fp32", threads=1)
    city = Image.open(DEMO / "city_1.jpg").convert("RGB")
    highway, suburb = (Image.open(DEMO / f"{name}.jpg").convert("RGB") for name in ("highway_2", "suburb_1"))

    day = segmenter(city)
    save("day", day.overlay(city, legend=True))
    save("scores", day.overlay(city, scores=True, alpha=0.35), 700)
    save("contours", day.overlay(city, names=False, alpha=0.0, contours=True), 700)
    night = by_night(city)
    save("night", segmenter(night).overlay(night, legend=True))
    tiny = city.resize((96, 54))
    pixels = segmenter(tiny).overlay(tiny, legend=True)
    save("tiny", np.kron(pixels, np.ones((3, 3, 1), np.uint8)))
    large = suburb.resize((3840, 2160), Image.Resampling.BICUBIC)
    save("4k", segmenter(large).overlay(large, legend=True))
    save("highway", segmenter(highway).overlay(highway, legend=True), 700)
    save("colours", colours())
    if args.coco:
        save("crowd", crowd(args.coco), 700)


if __name__ == "__main__":
    main()
