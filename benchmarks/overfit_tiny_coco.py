"""Does training work on COCO's own annotations? K-Net, scaled down, learns ten images by heart.

    python benchmarks/overfit_tiny_coco.py path/to/tiny_coco [key=value ...]

Trains `knet-tiny-coco-instance` from random weights on ten images of a folder in COCO's layout (train2017/,
annotations/instances_train2017.json) and judges it on the same ten: mask AP as of COCO, over all sizes of objects. The
ten are those whose smallest object is largest, because at this resolution nobody could draw the small ones. Options
are those of `knet train`.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from knet.config import load_config
from knet.data.readers.coco_instances import CocoInstances
from knet.runs.train import train

IMAGES, GOAL = 10, 0.80


def choose(root: Path) -> list[str]:
    """Names of the ten images, without crowds, whose smallest object has the most pixels."""
    dataset = CocoInstances(root / "train2017", root / "annotations" / "instances_train2017.json", training=True)
    smallest = {}
    for index in range(len(dataset)):
        sample = dataset.read_truth(index)
        if not any(segment.crowd for segment in sample.segments):
            smallest[sample.name] = np.bincount(sample.id_map.ravel())[1:].min()
    return sorted(smallest, key=lambda name: smallest[name])[-IMAGES:]


def copy_part(root: Path, names: list[str], folder: Path) -> None:
    """A data set of these images alone; the pictures are links."""
    content = json.loads((root / "annotations" / "instances_train2017.json").read_text())
    content["images"] = [row for row in content["images"] if str(row["id"]) in names]
    kept = {row["id"] for row in content["images"]}
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] in kept]
    (folder / "annotations").mkdir()
    (folder / "train2017").mkdir()
    (folder / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    for row in content["images"]:
        (folder / "train2017" / row["file_name"]).symlink_to((root / "train2017" / row["file_name"]).resolve())
    print(f"{len(kept)} images with {len(content['annotations'])} objects")


def main() -> None:
    """Trains and reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("options", nargs="*")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        copy_part(arguments.root, choose(arguments.root), folder)
        options = [f"data.root={folder}", f"output={folder / 'run'}", "device=cpu", *arguments.options]
        start = time.perf_counter()
        run = train(load_config("knet-tiny-coco-instance", options))
        minutes = (time.perf_counter() - start) / 60
        for name in ("train", "val"):
            with (run / f"{name}.csv").open(newline="") as file:
                rows = list(csv.DictReader(file))
            if name == "train":
                print(
                    "loss:",
                    "  ".join(f"{row['iteration']}: {float(row['loss']):.2f}" for row in rows[:: len(rows) // 8 or 1]),
                )
        ap = float(rows[-1]["ap"])
        print(f"mask AP {ap:.3f} (goal {GOAL:.2f}) after {minutes:.1f} minutes on {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
