"""Training, from the first iteration to the last, in one readable piece.

Every random number of an iteration follows from the seed and the iteration's number, so a run that was killed and
resumed continues exactly as if nothing had happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from tqdm import tqdm

from knet import __version__
from knet.config import Data, PanopticFiles, RunConfig, dump_config
from knet.data.batches import BatchPlan, TrainingSet, load_batches
from knet.data.categories import load_categories
from knet.data.coco_panoptic import CocoPanoptic
from knet.data.transforms import TrainAugmentation
from knet.errors import ConfigError, OutputError, TrainingError
from knet.evaluation.evaluate import evaluate
from knet.files import atomic_path
from knet.inference.load import choose_device, describe, segmenter_for
from knet.inference.segmenter import normalize_and_pad
from knet.models.zoo import create, entry
from knet.structures import Category, Preprocessing, Target
from knet.training.criterion import Criterion
from knet.training.optimizer import adamw, learning_rate
from knet.training.record import Record
from knet.training.state import read_state, save_state
from knet.weights.load import load_strict, read_checkpoint, save_weights

Batch = tuple[list[Tensor], list[Target]]

_AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def train(config: RunConfig, resume: bool = False) -> Path:
    """Trains a model as the config says.

    The run folder `config.output` gets: config.yaml; train.csv and val.csv (and TensorBoard's files where it is
    installed); state.pt, from which `resume` goes on; last.safetensors and best.safetensors (highest PQ), ready for
    `knet.load`.

    Args:
        config: see `knet.config.RunConfig`.
        resume: go on from state.pt in the run folder; the random numbers, and so the losses, are those of a run that
            was never stopped.

    Returns:
        The run folder.

    Raises:
        ConfigError: options that contradict each other, or a run folder that holds another run.
        DataError: a data set that cannot be read.
        CheckpointError: weights or a state that do not fit.
        TrainingError: the loss is not finite; names the images.
    """
    device, folder = choose_device(config.device), config.output
    dataset, validation = open_data(config.data, config.data.train), open_data(config.data, config.data.val)
    card = run_card(config, dataset.categories)
    torch.manual_seed(config.seed)
    net = create(config.model, **card["arguments"])
    if config.weights is not None:
        load_strict(net, read_checkpoint(config.weights).state, str(config.weights))
    net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    criterion = build_criterion(config)
    o = config.optimizer
    optimizer = adamw(net, o.learning_rate, o.weight_decay, o.backbone_multiplier)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
    start, best = open_folder(config, resume, net, optimizer, scaler)

    bar = tqdm(total=config.iterations, initial=start, desc="training", unit="iteration", disable=None)
    with bar, Record(folder, "train", start) as losses_log, Record(folder, "val", start) as metrics_log:
        clock, done = time.perf_counter(), start
        for iteration, batch in batches(config, dataset, start):
            torch.manual_seed(config.seed * 1_000_003 + iteration)
            rate = learning_rate(iteration, config.iterations, 1.0, o.warmup, o.warmup_start, o.power)
            losses = train_step(net, criterion, optimizer, scaler, batch, config, rate)
            if not math.isfinite(sum(losses.values())):
                raise not_finite(losses, iteration, config, dataset)
            finished = iteration + 1
            bar.update()
            if finished % config.log_every == 0 or finished == config.iterations:
                seconds = (time.perf_counter() - clock) / (finished - done)
                row = {"loss": sum(losses.values()), "rate": rate * o.learning_rate, "seconds": seconds, **losses}
                row["invalid_costs"] = criterion.invalid_costs  # grows when matching met numbers that are not finite
                losses_log.log(finished, row)
                bar.set_postfix_str(f"loss {row['loss']:.3f}")
                if bar.disable:  # no terminal: plain lines
                    line = f"iteration {finished}/{config.iterations}  loss {row['loss']:.3f}"
                    print(f"{line}  {seconds:.2f} s/iteration", flush=True)
                clock, done = time.perf_counter(), finished
            if finished % config.validate_every == 0 or finished == config.iterations:
                figures = validate(net, card, validation, best, finished, config)
                metrics_log.log(finished, figures)
                bar.write(f"iteration {finished}  " + "  ".join(f"{k} {100 * v:.1f}" for k, v in figures.items()))
                best = max(best, figures["pq"])
                clock, done = time.perf_counter(), finished
            if finished % config.save_every == 0 or finished == config.iterations:
                save_state(folder / "state.pt", net, optimizer, scaler, finished, best, dump_config(config))
    return folder


def train_step(
    net: nn.Module,
    criterion: Criterion,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    batch: Batch,
    config: RunConfig,
    rate: float,
) -> dict[str, float]:
    """One update of the weights; none if the loss is not finite.

    Args:
        net, criterion, optimizer, scaler, config: as made by `train`.
        batch: images (3,h,w) uint8 of any sizes, and their targets.
        rate: factor on every group's initial learning rate.

    Returns:
        The weighted losses by name.
    """
    device = next(net.parameters()).device
    net.train()
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * rate
    images, targets = batch
    inputs = normalize_and_pad([image.to(device, non_blocking=True) for image in images], Preprocessing(0, 0))
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, _AUTOCAST[config.precision], enabled=config.precision != "fp32"):
        outputs = net(inputs)
    losses = criterion(outputs, [target.to(device) for target in targets])
    total = torch.stack(list(losses.values())).sum()
    values = torch.stack([total, *losses.values()]).tolist()  # one copy to the host
    if not math.isfinite(values[0]):
        return dict(zip(losses, values[1:], strict=True))
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(total).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(net.parameters(), config.optimizer.clip)
    scaler.step(optimizer)
    scaler.update()
    return dict(zip(losses, values[1:], strict=True))


def not_finite(losses: dict[str, float], iteration: int, config: RunConfig, dataset: CocoPanoptic) -> TrainingError:
    """The error for a loss that is not a finite number: names the losses and the images."""
    draws = next(iter(BatchPlan(len(dataset), config.batch, config.seed, iteration)))
    images = ", ".join(dataset.name(draw.image) for draw in draws)
    bad = ", ".join(name for name, value in losses.items() if not math.isfinite(value))
    return TrainingError(
        f"The loss is not finite in iteration {iteration} ({bad}), for the images {images}; lower "
        "optimizer.learning_rate or use precision=bf16 or fp32, and resume the run."
    )


def batches(config: RunConfig, dataset: CocoPanoptic, start: int) -> Iterator[tuple[int, Batch]]:
    """The augmented batches of the iterations from `start` on, with their numbers."""
    a = config.augment
    if a is None:
        raise ConfigError("The config has no 'augment'; training needs at least augment.short_edges and augment.crop.")
    augmentation = TrainAugmentation(a.short_edges, a.max_edge, a.crop, a.flip, a.color, a.pad)
    plan = BatchPlan(len(dataset), config.batch, config.seed, start)
    loader = load_batches(
        TrainingSet(dataset, augmentation, config.seed), plan, config.workers, torch.cuda.is_available()
    )
    return zip(range(start, config.iterations), loader, strict=False)


def validate(
    net: nn.Module, card: dict[str, Any], dataset: CocoPanoptic, best: float, iteration: int, config: RunConfig
) -> dict[str, float]:
    """Judges the network on the validation set and saves its weights, also as the best if PQ is at least `best`.

    Returns:
        pq, sq, rq, pq_things, pq_stuff and miou as fractions, 0 where no segment was counted.
    """
    segmenter = segmenter_for(net, card, next(net.parameters()).device, config.precision)
    result = evaluate(segmenter, dataset)
    panoptic, semantic = result["panoptic"], result["semantic"]
    figures = {key: panoptic["all"][key] for key in ("pq", "sq", "rq")}
    figures |= {f"pq_{kind}": panoptic[kind]["pq"] for kind in ("things", "stuff")} | {"miou": semantic["miou"]}
    figures = {key: value or 0.0 for key, value in figures.items()}
    card = {**card, "training": {"iteration": iteration, "val": figures, "config": dump_config(config)}}
    save_weights(config.output / "last.safetensors", net.state_dict(), card)
    if figures["pq"] >= best:
        save_weights(config.output / "best.safetensors", net.state_dict(), card)
    return figures


def open_data(data: Data, files: PanopticFiles | None, categories: Sequence[Category] | None = None) -> CocoPanoptic:
    """One data set of a config, with the given classes, else those of the config's table, else of its own JSON."""
    if files is None:
        raise ConfigError("The config has no 'data.train'; give its images, json and masks.")
    if categories is None and data.categories is not None:
        categories = load_categories(data.categories)
    return CocoPanoptic(data.root / files.images, data.root / files.json_file, data.root / files.masks, categories)


def run_card(config: RunConfig, categories: Sequence[Category]) -> dict[str, Any]:
    """What weights of this run will say of themselves, see `describe`."""
    row = entry(config.model)
    p = row.preprocessing
    return describe(
        config.model,
        {**config.arguments, "classes": len(categories)},
        categories,
        Preprocessing(config.short_edge or p.short_edge, config.max_edge or p.max_edge),
        row.score if config.score is None else config.score,
        row.overlap if config.overlap is None else config.overlap,
        version=__version__,
    )


def build_criterion(config: RunConfig) -> Criterion:
    """The losses with the config's weights."""
    w = config.losses
    return Criterion(
        class_weight=w.classes,
        mask_weight=w.mask,
        dice_weight=w.dice,
        rank_weight=w.rank,
        semantic_weight=w.semantic,
        instance_weight=w.instance,
        pixels=w.pixels,
    )


def open_folder(
    config: RunConfig,
    resume: bool,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> tuple[int, float]:
    """Makes the run folder, or puts the state in it back. Returns the iterations done and the best PQ so far."""
    folder = config.output
    if resume:
        state = read_state(folder / "state.pt")
        load_strict(net, state["net"], str(folder / "state.pt"))
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        return state["iteration"], state["best"]
    if (folder / "state.pt").exists():
        raise ConfigError(
            f"The folder '{folder}' already holds a run; go on with --resume {folder}, or set another output."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot make the run folder '{folder}': {error.strerror}; set another output.") from error
    with atomic_path(folder / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(dump_config(config), sort_keys=False))
    return 0, -1.0
