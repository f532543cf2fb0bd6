"""Chooses the options of a run by its data and the machine, each with a reason: `knet train DIR`.

The folder is what `knet data import` makes: images/train and images/val, and train and val with instances.json, or with
panoptic.json and panoptic/.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypeGuard

import torch

from knet.calls import named_options
from knet.class_names import same_names
from knet.config import RunConfig, validate_config
from knet.data.files.io import read_image_size, read_json
from knet.data.readers.coco_instances import CocoInstances
from knet.data.readers.open import open_data
from knet.data.readers.reader import Reader
from knet.errors import ConfigError, DataError
from knet.files import is_dir, is_file
from knet.inference.load import choose_device, fast_in_bf16, weights_file
from knet.models.zoo import entry
from knet.runs.learnable import kernels_of
from knet.runs.look_over import look_over
from knet.weights.load import read_checkpoint

WEIGHTS = "rtknet-lite-street"
MODELS = {"panoptic": "rtknet-lite-street", "instances": "rtknet-lite-coco-instance"}
# Learning rates for a batch of 8. The second is the best of three (benchmarks/README.md, ten images).
_NEW_CLASSES, _KNOWN_CLASSES, _FROM_NOTHING = 3e-4, 1e-4, 6e-4
_SCALES = (0.75, 0.8125, 0.875, 0.9375, 1.0, 1.125, 1.25, 1.375, 1.5)
_EPOCHS, _FEWEST, _MOST = 60, 200, 20_000
_SMALL_OBJECT = 24  # pixels of an object's edge that the network should see
_LOOKED_AT = 200  # images, for their usual size
_READ_WHOLE = 1000  # images that are all read before training; of larger sets those that cannot be are found on the way


@dataclass(slots=True)
class Choice:
    """The options of a run, and a line for each that says why."""

    table: dict[str, Any]
    reasons: list[str] = field(default_factory=list)

    def set(self, name: str, value: Any, why: str) -> Any:
        """Sets an option, such as "augment.crop", and keeps the reason."""
        *parents, last = name.split(".")
        table = self.table
        for parent in parents:
            table = table.setdefault(parent, {})
        table[last] = value
        self.reasons.append(f"{name}={_shown(value)}: {why}")
        return value

    @property
    def config(self) -> RunConfig:
        """The options, checked."""
        return validate_config(self.table, "the chosen options")


def is_data_set(source: object) -> TypeGuard[str | Path]:
    """Whether this is a folder of data to choose options for, and not a config."""
    return isinstance(source, str | Path) and is_dir(source)


@named_options
def choose(root: str | Path, given: dict[str, Any] | None = None) -> Choice:
    """The options for a data set that `knet data import` made.

    Args:
        root: its folder.
        given: options that the user sets, as a table; of these model, weights, device and batch decide on others.

    Raises:
        ConfigError: there is no such data set in the folder.
        DataError: it cannot be used.
    """
    root, given = Path(root), given or {}
    choice = Choice({"data": {"root": str(root)}})
    kind = _choose_files(choice, root)
    device = choose_device(str(given.get("device", "auto")))
    data = RunConfig.model_validate({"model": MODELS[kind], **choice.table}).data
    train = open_data(data, data.train)
    sizes, objects = _sizes(train, root), _object_edges(root / "train")
    pretrained = _choose_model(choice, kind, given, train)
    _choose_kernels(choice, root, train, given)
    crop = _choose_sizes(choice, sizes, objects, device)
    batch = _choose_batch(choice, len(train), crop, device, given)
    _choose_schedule(choice, len(train), batch, pretrained)
    _choose_machine(choice, device)
    names = [row.name for row in train.categories if re.search(r"\b(left|right)\b", row.name.replace("_", " ").lower())]
    if names:
        choice.set("augment.flip", False, f"a mirror image would turn '{names[0]}' into something else")
    choice.set("output", f"runs/{root.resolve().name}", "named after the data set")
    if len(train) <= _READ_WHOLE:
        skip = {name: given[name] for name in ("skip_images",) if name in given}
        faults = look_over(train, validate_config({**choice.table, **skip}, "the chosen options"), "training")
        choice.reasons += [f"left out of training: {sentence}" for sentence in faults.values()]
    return choice


def _choose_files(choice: Choice, root: Path) -> str:
    """Sets the files of train and val; returns the kind of data."""
    kind = next((kind for kind in MODELS if is_file(root / "train" / f"{kind}.json")), None)
    if kind is None or not is_dir(root / "images" / "train"):
        raise ConfigError(
            f"The folder '{root}' holds no data set to train on (images/train, and train/instances.json or "
            f"train/panoptic.json); make one with: knet data import {root} --output DIR, and give that."
        )
    for split in ("train", "val"):
        json = root / split / f"{kind}.json"
        files = {"images": f"images/{split}", "json": f"{split}/{kind}.json"}
        files |= {"masks": f"{split}/panoptic"} if kind == "panoptic" else {}
        choice.table["data"][split] = files if is_file(json) else None
    if choice.table["data"]["val"] is None:
        choice.reasons.append("data.val=null: the folder has no validation data, so no weights can be the best")
    return kind


def _choose_model(choice: Choice, kind: str, given: dict[str, Any], train: Reader) -> list[str] | None:
    """Sets model and weights; returns the classes that the weights know, None for random ones."""
    what = "each pixel has one segment" if kind == "panoptic" else "objects may overlap, and nothing else is labelled"
    model = given.get("model") or choice.set(
        "model", MODELS[kind], f"COCO {kind}, where {what}; small enough for a CPU"
    )
    choice.table["model"] = model
    if "weights" in given or "backbone_weights" in given or model not in MODELS.values():
        return [] if given.get("weights") else None
    card = read_checkpoint(weights_file(WEIGHTS)).card
    learned = [] if card is None else [category.name for category in card.categories]
    names = [category.name for category in train.categories]
    known = [name for name, place in zip(names, same_names(names, learned), strict=True) if place is not None]
    why = f"the package's own: they know {len(known)} of the {len(names)} classes by name, and shapes for the others"
    choice.set("weights", WEIGHTS, why)
    choice.set("freeze_norms", 0, "batch norms stay as they were learned")
    return known if len(known) == len(names) else []


def _choose_kernels(choice: Choice, root: Path, train: Reader, given: dict[str, Any]) -> None:
    has = kernels_of(str(choice.table["model"]))
    arguments = given.get("arguments")
    if (isinstance(arguments, dict) and "kernels" in arguments) or entry(str(choice.table["model"])).task == "semantic":
        return
    segments: Any = train.segments  # type: ignore[attr-defined]  # as both kinds have
    most = max((has.needed(segments(index), train.categories) for index in range(len(train))), default=0)
    if most * 1.25 > has.count:
        count = 8 * math.ceil(most * 1.25 / 8)
        choice.set("arguments.kernels", count, f"an image has {most} segments, for which {has.count} kernels are few")
    else:
        choice.reasons.append(
            f"arguments.kernels: the model's {has.count} are enough, as no image has more than {most} segments"
        )


def _choose_sizes(
    choice: Choice, sizes: list[tuple[int, int]], objects: list[float], device: torch.device
) -> tuple[int, int]:
    """Sets test size, sizes in training and crop; returns the last."""
    height, width = (median(size[axis] for size in sizes) for axis in (0, 1))
    largest, place = (800, "a GPU") if device.type == "cuda" else (512, "a CPU")
    edge = min(height, width)
    short, why = _to_32(min(max(edge, 128), largest)), f"images are about {width:.0f}x{height:.0f} pixels"
    why += f", and on {place} {largest} is quick" if edge > largest else ""
    small = median(objects) * short / edge if objects else math.inf
    if small < _SMALL_OBJECT and short < edge:
        short = _to_32(min(short * _SMALL_OBJECT / small, edge, 1024))
        why = f"half of the objects would be smaller than {small:.0f} pixels at a smaller size"
    choice.set("short_edge", short, why)
    choice.set("max_edge", 2 * short, "twice as much")
    ratio = min(max(height, width) / edge, 1.5)
    crop = (_to_32(0.75 * short), _to_32(0.75 * short * ratio))
    crop = crop if width >= height else (crop[1], crop[0])
    choice.set("augment.short_edges", [round(scale * short) for scale in _SCALES], "0.75 to 1.5 of the test size")
    choice.set("augment.max_edge", 3 * short, "no image becomes longer than that")
    choice.set("augment.crop", list(crop), "three quarters of an image; time and memory grow with it")
    pixels = min(max(crop[0] * crop[1] // 192, 128), 4096)
    choice.set("losses.pixels", pixels, "in proportion to the crop; its cost grows with the square")
    return crop


def _choose_batch(
    choice: Choice, images: int, crop: tuple[int, int], device: torch.device, given: dict[str, Any]
) -> int:
    if isinstance(given.get("batch"), int) and given["batch"] > 0:  # else it is auto, or refused with all options
        return given["batch"]
    if device.type == "cuda":
        memory = torch.cuda.mem_get_info(device)[0] / 2**30
        fits = memory / (1.0 * crop[0] * crop[1] / (384 * 512))  # a generous GiB an image
        batch = min(max(2 ** int(math.log2(max(fits, 1))), 2), 16)
        return int(choice.set("batch", batch, f"{memory:.0f} GiB of the GPU's memory are free"))
    batch = 8 if images >= 50 else 4
    return int(choice.set("batch", batch, f"{images} images, on a CPU"))


def _choose_schedule(choice: Choice, images: int, batch: int, pretrained: list[str] | None) -> None:
    wanted = 50 * math.ceil(_EPOCHS * images / batch / 50)
    iterations = min(max(wanted, _FEWEST), _MOST)
    seen = iterations * batch / images
    choice.set("iterations", iterations, f"each of the {images} images is seen {seen:.0f} times")
    if pretrained is None:
        rate, why = _FROM_NOTHING, "random weights need a high one"
    elif pretrained:
        rate, why = _KNOWN_CLASSES, "the weights know all classes, and a higher one makes them forget"
    else:
        rate, why = _NEW_CLASSES, "there are classes to learn anew"
    choice.set("optimizer.learning_rate", rate, f"for a batch of 8; {why}")
    choice.set("optimizer.for_batch", 8, "another batch scales the learning rate in proportion")
    choice.set("optimizer.warmup", min(300 if pretrained is None else 100, iterations // 10), "the rate rises so long")
    every = max(iterations // 8, 25)
    choice.set("validate_every", every, "eight times in the run" if every > 25 else "not more often than it is worth")
    choice.set("save_every", max(every // 2, 25), "a run that is stopped loses no more than that")
    choice.table["log_every"] = 10


def _choose_machine(choice: Choice, device: torch.device) -> None:
    cores = len(os.sched_getaffinity(0))
    choice.set("workers", min(max(cores - 1, 1), 8), f"{cores} processor cores")
    fast = device.type == "cuda" and fast_in_bf16(device)
    why = "this GPU computes in it" if fast else f"exact on {'this GPU' if device.type == 'cuda' else 'a CPU'}"
    choice.set("precision", "bf16" if fast else "fp32", why)


def _sizes(train: Reader, root: Path) -> list[tuple[int, int]]:
    """(height, width) of some of the images that can be read."""
    rows = read_json(root / "train" / f"{'instances' if isinstance(train, CocoInstances) else 'panoptic'}.json")[
        "images"
    ]
    sizes = []
    for row in rows[:: max(1, len(rows) // _LOOKED_AT)]:
        try:
            sizes.append(read_image_size(root / "images" / "train" / str(row["file_name"])))
        except DataError:
            sizes += [(int(row["height"]), int(row["width"]))] if row.get("height") and row.get("width") else []
    return sizes or [(480, 640)]


def _object_edges(folder: Path) -> list[float]:
    """The edge of a square as large as each object of a thing class, where the JSON tells its area."""
    return [math.sqrt(area) for area in _areas(folder)]


def _areas(folder: Path) -> Iterator[float]:
    path = next(path for path in (folder / f"{kind}.json" for kind in MODELS) if path.is_file())
    content = read_json(path)
    things = {row.get("id") for row in content.get("categories") or () if row.get("isthing", 1)}
    for row in content["annotations"]:
        for one in row.get("segments_info", [row]):
            if one.get("category_id") in things and isinstance(one.get("area"), int | float) and one["area"] > 0:
                yield float(one["area"])


def _to_32(pixels: float) -> int:
    return max(32 * round(pixels / 32), 32)


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
