"""Training images a second on one core: this package's pipeline against a plain one, on the same files and draws.

    python benchmarks/data_pipeline.py                          # 20 images of 2048x1024, 5 rounds: some two minutes
    python benchmarks/data_pipeline.py --images 4 --rounds 1    # to see that it runs
    python benchmarks/data_pipeline.py --no-cache               # without the option data.cache

Makes a seeded synthetic Cityscapes with `knet data synth` and `knet data prepare` and goes through it in one process on
one thread with the augmentation of configs/rtknet-cityscapes.yaml. The two ways take turns, image by image, each round
with new luck; files come from the page cache. Prints milliseconds an image and the ratios; fails if the two ways differ
in an id or a class, or in more than 2 % of the colour values.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch and numpy are imported

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from knet.config import load_config
from knet.data.categories import load_table
from knet.data.make.prepare import prepare_cityscapes
from knet.data.readers.coco_panoptic import CocoPanoptic
from knet.data.samples.color import random_color
from knet.data.samples.transforms import TrainAugmentation
from knet.data.synthetic.layouts import synthesize
from knet.preprocess import resized_size
from knet.structures import Target

HEIGHT, WIDTH = 1024, 2048
TRIES = 10
VOID = 255


class Plain:
    """Decode, resize everything, crop, make masks: the steps of RT-K-Net's official mapper, which runs on detectron2.

    Pillow decodes and resizes the whole image, numpy composes the ids, torch resizes them whole in float32 (nearest).
    Each of up to ten windows lists its ids and looks for each thing's pixels in the whole resized map, one thing after
    the other, until a centre lies in the window. The colours are this package's, for the same draws.
    """

    def __init__(self, root: Path, reader: CocoPanoptic, options: Any):
        self.options = options
        self.masks = root / "gtFine/cityscapes_panoptic_train"
        self.images = {path.name: path for path in (root / "leftImg8bit/train").rglob("*.png")}
        self.labels = {category.id: label for label, category in enumerate(reader.categories)}
        self.things = {category.id for category in reader.categories if category.thing}
        self.rows = json.loads((root / "gtFine/cityscapes_panoptic_train.json").read_text())["annotations"]

    def prepare(self, index: int, rng: np.random.Generator) -> tuple[Tensor, np.ndarray, list[dict[str, Any]]]:
        """Image (3,h,w) uint8, its ids (h,w) int64 and the rows of its segments."""
        row, options = self.rows[index], self.options
        name = row["file_name"].replace("_gtFine_panoptic", "_leftImg8bit")
        image = np.asarray(Image.open(self.images[name]).convert("RGB"))
        colors = np.asarray(Image.open(self.masks / row["file_name"]).convert("RGB")).astype(np.int32)
        ids = (colors[:, :, 0] + 256 * colors[:, :, 1] + 256 * 256 * colors[:, :, 2]).astype(np.float32)
        short_edge = options.short_edges[int(rng.integers(len(options.short_edges)))]
        height, width = resized_size((ids.shape[0], ids.shape[1]), short_edge, options.max_edge)
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        ids = F.interpolate(torch.from_numpy(ids)[None, None], (height, width), mode="nearest")[0, 0].numpy()
        crop = [min(edge, whole) for edge, whole in zip(options.crop, ids.shape, strict=True)]
        corners = rng.integers(0, [height - crop[0] + 1, width - crop[1] + 1], (TRIES, 2))
        top, left = self.choose(ids, row["segments_info"], crop, corners.tolist())
        part = image[top : top + crop[0], left : left + crop[1]]
        colored = random_color(torch.from_numpy(np.ascontiguousarray(part.transpose(2, 0, 1))), rng)
        ids = ids[top : top + crop[0], left : left + crop[1]]
        if rng.random() < 0.5:
            colored, ids = colored.flip(-1), ids[:, ::-1]
        return colored, ids.astype(np.int64), row["segments_info"]

    def choose(self, ids: np.ndarray, segments: list[dict[str, Any]], crop: list[int], corners: list) -> list[int]:
        """The first corner whose window shows a thing and holds its centre, else the last."""
        things = {s["id"] for s in segments if s["category_id"] in self.things and not s["iscrowd"]}
        for top, left in corners:
            window = ids[top : top + crop[0], left : left + crop[1]]
            for id_ in np.unique(window.astype(np.int64)).tolist():
                if id_ in things:
                    y, x = (np.rint(axis.mean()) for axis in np.where(ids == id_))
                    if top <= y < top + crop[0] and left <= x < left + crop[1]:
                        return [top, left]
        return corners[-1]

    def masks_of(self, ids: np.ndarray, segments: list[dict[str, Any]]) -> tuple[Tensor, Tensor, Tensor]:
        """A mask for each segment (T,h,w) bool, their classes (T,) and the map of classes (h,w) int64, 255 = void."""
        semantic = np.full_like(ids, VOID)
        masks, labels = [], []
        for segment in segments:
            mask = ids == segment["id"]
            if mask.sum() >= 2 and not segment["iscrowd"]:
                label = self.labels[segment["category_id"]]
                semantic[mask] = label
                masks.append(mask)
                labels.append(label)
        stacked = torch.stack([torch.from_numpy(mask) for mask in masks])
        return stacked, torch.tensor(labels), torch.from_numpy(semantic)


def take_turns(root: Path, images: int, rounds: int, cache: Path | None) -> dict[str, np.ndarray]:
    """(2, rounds, images) seconds of the clock and of the processor: plain, its masks, ours, reading in ours."""
    options: Any = load_config("rtknet-cityscapes").augment
    paths = (root / "leftImg8bit/train", root / "gtFine/cityscapes_panoptic_train.json")
    masks = root / "gtFine/cityscapes_panoptic_train"
    reader = CocoPanoptic(*paths, masks, load_table("cityscapes").categories, cache)
    augment = TrainAugmentation(
        options.short_edges, options.max_edge, options.crop, options.flip, options.color, options.pad
    )
    things = [category.thing for category in reader.categories]
    plain = Plain(root, reader, options)
    seconds = {name: np.zeros((2, rounds, images)) for name in ("plain", "masks", "ours", "reading")}

    def timed(name: str, work: Callable[..., Any], *given: Any) -> Any:
        start, processor = time.perf_counter(), time.process_time()
        result = work(*given)
        if number >= 0:
            seconds[name][:, number, index] = time.perf_counter() - start, time.process_time() - processor
        return result

    for number in range(-1, rounds):  # round -1 brings the files into memory
        for index in range(images):
            seed = [number + 1, index]
            image, ids, rows = timed("plain", plain.prepare, index, np.random.default_rng(seed))
            masks, labels, semantic = timed("masks", plain.masks_of, ids, rows)
            sample = timed("reading", reader.read, index)
            our_image, target = timed("ours", augment, sample, things, np.random.default_rng(seed))
            compare((image, masks, labels, semantic), our_image, target)
    seconds["ours"] += seconds["reading"]
    return seconds


def compare(plain: tuple[Tensor, Tensor, Tensor, Tensor], our_image: Tensor, target: Target) -> None:
    """Stops if the two ways differ: Pillow and torch round colours differently, ids and classes are exact."""
    image, masks, labels, semantic = plain
    assert torch.equal(labels, target.labels)
    assert torch.equal(masks, target.id_map == torch.arange(1, len(labels) + 1)[:, None, None])
    assert torch.equal(semantic, torch.cat([torch.tensor([VOID]), target.labels])[target.id_map.long()])
    differing = (image != our_image).float().mean()
    assert differing < 0.02, f"{differing:.4f} of the colour values differ"


def report(seconds: dict[str, np.ndarray]) -> None:
    """Milliseconds an image, images a second, and the ratios, with those of the slowest and fastest round."""
    lines = {
        "plain, with masks": seconds["plain"] + seconds["masks"],
        "plain, without masks": seconds["plain"],
        "knet": seconds["ours"],
        "  of it reading": seconds["reading"],
    }
    _, rounds, images = seconds["ours"].shape
    print(f"{images} images of {WIDTH}x{HEIGHT}, {rounds} rounds, one process, one thread; ids and classes identical")
    for name, (clock, processor) in lines.items():
        print(
            f"{name:22}{1000 * clock.mean():8.1f} ms an image, {1000 * processor.mean():.1f} ms of processor time; ",
            end="",
        )
        print(f"{1 / clock.mean():.2f} images a second")
    for name in ("plain, with masks", "plain, without masks"):
        clock, processor = (lines[name][k].sum() / seconds["ours"][k].sum() for k in (0, 1))
        each = lines[name][0].sum(1) / seconds["ours"][0].sum(1)
        print(f"ratio to {name:22}{clock:5.2f} (rounds: {each.min():.2f} to {each.max():.2f})", end="")
        print(f", of processor time {processor:.2f}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-cache", dest="cache", action="store_false")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "cityscapes"
        synthesize("cityscapes", root, args.images, (HEIGHT, WIDTH), seed=0)
        prepare_cityscapes(root, ["train"])
        report(take_turns(root, args.images, args.rounds, Path(folder) / "cache" if args.cache else None))


if __name__ == "__main__":
    main()
