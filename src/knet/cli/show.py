"""knet data show: pictures of the samples that training will see."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knet.cli.options import add_json, add_verb
from knet.errors import ConfigError, counted

if TYPE_CHECKING:
    import numpy as np

    from knet.config import RunConfig
    from knet.data.readers.reader import Reader
    from knet.structures import Target


def add_parser(jobs: Any) -> None:
    """Adds the verb to those of `knet data`."""
    parser = add_verb(
        jobs,
        "show",
        "draw the samples that training will see, augmented, with and without their segments, and a web page of them",
        "knet data show configs/rtknet-cityscapes.yaml data.root=data/cityscapes --output show --count 16\n"
        "  knet data show my.yaml --split val --output show-val",
    )
    parser.add_argument("config", metavar="CONFIG", help="YAML file of options, as for `knet train`")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="options that replace those of the file")
    parser.add_argument("--output", required=True, metavar="DIR", help="where a JPEG for each sample and index.html go")
    parser.add_argument("--count", type=int, default=16, metavar="N", help="number of samples (default: 16)")
    parser.add_argument(
        "--split",
        choices=["train", "val"],
        default="train",
        help="train for the first samples of the run, augmented (default); val for images as they are",
    )
    parser.add_argument("--seed", type=int, help="draw the samples of a run with this seed (default: the config's)")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is not empty")
    add_json(parser, "the list of samples")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draws the samples, and prints what is in them."""
    if args.count < 1:
        raise ConfigError(f"--count {args.count} is no number of samples; give 1 or more.")
    if args.split == "val" and args.seed is not None:
        raise ConfigError("--seed is for --split train; validation images are shown as they are, in their order.")
    output = Path(args.output)
    if not args.overwrite and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"The output '{output}' exists and is not empty; choose another folder, or add --overwrite.")
    from tqdm import tqdm

    from knet.config import load_config
    from knet.data.readers.open import open_data
    from knet.inference.results.samples import write_samples

    overrides = args.overrides + ([] if args.seed is None else [f"seed={args.seed}"])
    config = load_config(args.config, overrides)
    training = args.split == "train"
    files = config.data.train if training else config.data.val
    if not training and files is None:
        raise ConfigError("The config has no validation data (data.val); show --split train.")
    reader = open_data(config.data, files)
    samples = training_samples(config, reader) if training else validation_samples(reader)
    count = args.count if training else min(args.count, len(reader))
    what = f"as training with seed {config.seed} will see them" if training else "for validation, as they are"
    note = f"{counted(count, 'sample')} of {counted(len(reader), 'image')}, {what}"
    bar = tqdm(islice(samples, count), total=count, desc="drawing", unit="image", disable=None)
    key = f"{note}; left the image, right its segments, void and crowd regions unpainted"
    listed = write_samples(output, f"{config.model}: {args.split}", key, bar, reader.categories)
    if args.json:
        print(json.dumps(listed, indent=1))
        return 0
    print(_summary(listed, [category.name for category in reader.categories]))
    print(f"{note}: {output / 'index.html'}")
    return 0


def training_samples(config: RunConfig, reader: Reader) -> Iterator[tuple[str, np.ndarray, Target]]:
    """Name, (h,w,3) uint8 RGB image and target of a run's samples, from the first one on, without end."""
    from knet.data.samples.batches import BatchPlan, TrainingSet
    from knet.runs.samples import augmentation_of, paste_of

    training_set = TrainingSet(reader, augmentation_of(config), config.seed, paste=paste_of(config, reader))
    batch = 1 if config.batch == "auto" else config.batch  # which does not change the order
    plan = BatchPlan(training_set.shares, batch, config.seed)
    drawn = ((draw, training_set[draw]) for draw in chain.from_iterable(plan))
    return ((reader.name(draw.image), item.image.permute(1, 2, 0).numpy(), item.target) for draw, item in drawn)


def validation_samples(reader: Reader) -> Iterator[tuple[str, np.ndarray, Target]]:
    """Name, (H,W,3) uint8 RGB image and target of a validation set; crowd regions are void."""
    import torch

    from knet.data.samples.transforms import make_target

    for index in range(len(reader)):
        sample = reader.read(index)
        yield sample.name, sample.image, make_target(torch.from_numpy(sample.id_map), sample)


def _summary(samples: list[dict[str, Any]], classes: list[str]) -> str:
    """Some lines: sizes and share of void, number of segments of each class, classes that do not occur."""
    sizes = sorted({(row["height"], row["width"]) for row in samples}, key=lambda size: size[0] * size[1])
    small, large = (f"{width}x{height}" for height, width in (sizes[0], sizes[-1]))
    pixels = sum(row["height"] * row["width"] for row in samples)
    void = sum(row["void"] * row["height"] * row["width"] for row in samples) / pixels
    lines = [f"{small if small == large else f'{small} to {large}'} pixels, {void:.1%} void"]
    counts: Counter[str] = Counter()
    for row in samples:
        counts.update(row["classes"])
    lines.append("segments: " + (", ".join(f"{name} {n}" for name, n in counts.most_common()) or "none"))
    absent = [name for name in classes if name not in counts]
    if absent:
        lines.append(f"classes that do not occur: {', '.join(absent)}")
    return "\n".join(lines)
