"""Training, from the first iteration to the last, in one readable piece.

Every random number of an iteration follows from the seed and the iteration's number, so a run that was killed and
resumed continues exactly as if nothing had happened.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from tqdm import tqdm

from knet.config import RunConfig, dump_config
from knet.data.readers.open import open_data
from knet.data.readers.reader import Reader
from knet.data.samples.batches import Batch, BatchPlan, Samples, load_batches
from knet.data.samples.pairs import PairBatch
from knet.distributed import gather_objects, joined, rank, world
from knet.errors import ConfigError, DataError, OutputError, TrainingError
from knet.files import atomic_path
from knet.inference.engines.network import TorchEngine
from knet.inference.load import choose_device, fast_in_bf16, segmenter_for
from knet.inference.results.samples import draw_truth, side_by_side
from knet.inference.segmenter import Segmenter
from knet.models.zoo import create
from knet.runs.build import (
    build_criterion,
    build_network,
    made_for,
    run_card,
    scaled_learning_rate,
)
from knet.runs.evaluate import evaluate
from knet.runs.interrupt import Interrupt
from knet.runs.optimizer import adamw, learning_rate
from knet.runs.record import RunRecord
from knet.runs.samples import training_set
from knet.runs.state import MovingAverage, Progress, load_state, save_state, whole_weights
from knet.runs.step import StepResult, train_step
from knet.weights.card import Card
from knet.weights.load import save_weights

_PICTURES = 4  # validation images that every validation draws


def train(config: RunConfig, resume: bool = False) -> Path:
    """Trains a model as the config says; in several processes where torchrun or srun started them.

    The run folder `config.output` gets: config.yaml; train.csv, val.csv and curves.png (and TensorBoard's files where
    it is installed); pictures/; state.pt, from which `resume` goes on; last.safetensors and best.safetensors (highest
    PQ, mask AP or mIoU), ready for `knet.load`.

    Args:
        config: see `knet.config.RunConfig`.
        resume: go on from state.pt in the run folder; the random numbers, and so the losses, are those of a run that
            was never stopped.

    Returns:
        The run folder.

    Raises:
        ConfigError: options that contradict each other, or a run folder that holds another run.
        DataError: a data set that cannot be read, or more unreadable images than `skip_images`.
        CheckpointError: weights or a state that do not fit.
        TrainingError: more losses that are not finite than `skip_losses`; names the images.
        StoppedError: SIGTERM came; the state is saved.
    """
    with joined(choose_device(config.device)) as device, Interrupt(config.output) as interrupt:
        return _train(config, resume, device, interrupt)


def _train(config: RunConfig, resume: bool, device: torch.device, interrupt: Interrupt) -> Path:
    folder, o = config.output, config.optimizer
    dataset, validation = open_data(config.data, config.data.train), open_data(config.data, config.data.val)
    card = run_card(config, dataset.categories)
    fits = made_for(card, dataset)
    net, called, origin = build_network(config, card, device)
    # One more than may be bad: so a sound one is found, and the sentence that ends the run counts them all.
    samples = training_set(config, dataset, net, config.skip_images + 1 if config.skip_images else 0)
    plan = BatchPlan(len(samples), config.batch, config.seed, rank=rank(), world=world(), parts=config.accumulate)
    criterion = build_criterion(config, net, card)
    base, note = scaled_learning_rate(config)
    optimizer = adamw(net, base, o.weight_decay, o.backbone_multiplier, o.undecayed)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
    average = MovingAverage(net, config.ema) if config.ema is not None else None
    judge = segmenter_for(TorchEngine(create(config.model, **card.arguments), device, config.precision), card)
    if resume:
        progress = load_state(folder / "state.pt", net, optimizer, scaler, average, fits)
    else:
        progress = Progress(made_for=fits)
        open_folder(config)

    def save() -> None:
        save_state(folder / "state.pt", net, optimizer, scaler, average, progress, dump_config(config))

    first = rank() == 0
    quiet = not first or None  # None: where there is no terminal
    bar = tqdm(total=config.iterations, initial=progress.iteration, desc="training", unit="iteration", disable=quiet)
    record = RunRecord(folder, progress.iteration, config.wandb, dump_config(config), active=first)

    def say(line: str) -> None:
        if first:
            bar.write(line)

    say(introduction(config, card, len(dataset), net, device))
    if not resume and origin:
        say(origin)
    if note:
        say(note)
    if config.precision == "bf16" and not fast_in_bf16(device):
        say(f"bf16 is much slower than fp32 on this {device.type}, which cannot compute in it; give precision=fp32")
    plan = plan.starting_at(progress.iteration)
    loader = load_batches(samples, plan, config.workers, device.type == "cuda")
    with bar, record, closing(loader) as batches:  # unless closed, the loader's processes are waited for
        clock, since, waiting = time.perf_counter(), progress.iteration, 0.0
        while True:
            # A run that was killed while it validated has the state of before, and validates now.
            if validation_is_due(config, progress):
                save()
                with interrupt.at_once():
                    figures = validate(judge, whole_weights(net, average), card, validation, progress, config)
                record.log("val", progress.iteration, figures)
                if first:
                    record.pictures(progress.iteration, pictures(judge, validation))
                    record.plot()
                shown = "  ".join(f"{key} {100 * value:.1f}" for key, value in figures.items())
                say(f"iteration {progress.iteration}  {shown}")
                progress.best = max(progress.best, main_figure(figures))
                progress.validated = progress.iteration
                save()
                clock, since, waiting = time.perf_counter(), progress.iteration, 0.0
            if progress.iteration >= config.iterations:
                return folder
            iteration = progress.iteration
            asked_for = time.perf_counter()
            batch = next(batches)
            waiting += time.perf_counter() - asked_for
            rate = learning_rate(iteration, config.iterations, 1.0, o.warmup, o.warmup_start, o.power, o.steps)
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate
            step = train_step(
                called,
                criterion,
                optimizer,
                scaler,
                batch,
                seed=(config.seed, iteration),
                precision=config.precision,
                clip=o.clip,
                parts=config.accumulate,
                asked=interrupt.asked or bool(batch.faults),
            )
            progress.iteration += 1
            if step.asked:
                for line in note_faults(progress, batch, config):
                    say(line)
            if not step.taken:
                say(note_loss(progress, step, samples, config))
            elif average is not None:
                average.update()
            bar.update()
            finished = progress.iteration
            if finished % config.log_every == 0 or finished == config.iterations:
                seconds = time.perf_counter() - clock
                row = {"loss": sum(step.losses.values()), "rate": rate * base, "seconds": seconds / (finished - since)}
                row |= {"waiting": waiting / seconds, **step.losses, "gradient_norm": step.gradient_norm}
                # These grow when matching met numbers that are not finite, and when something was left out.
                row |= {"invalid_costs": criterion.invalid_costs, "bad_images": len(progress.bad_images)}
                row |= {"bad_losses": len(progress.bad_losses)}
                record.log("train", finished, row)
                bar.set_postfix_str(f"loss {row['loss']:.3f}")
                if bar.disable and first:  # no terminal: plain lines
                    line = f"iteration {finished}/{config.iterations}  loss {row['loss']:.3f}"
                    print(f"{line}  {row['seconds']:.2f} s/iteration", flush=True)
                clock, since, waiting = time.perf_counter(), finished, 0.0
            stop = step.asked and any(gather_objects(interrupt.asked))
            if stop or finished % config.save_every == 0:
                save()
            if stop:
                raise interrupt.error


def introduction(config: RunConfig, card: Card, images: int, net: nn.Module, device: torch.device) -> str:
    """What is about to happen, in a line."""
    millions = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    processes = f" in {world()} processes" if world() > 1 else ""
    return (
        f"{config.model} with {millions:.1f} M parameters, {len(card.categories)} classes, {images} images, "
        f"batch {config.batch}, {config.iterations} iterations on {device.type} ({config.precision}){processes}"
    )


def validation_is_due(config: RunConfig, progress: Progress) -> bool:
    """Whether the weights as they are should be judged before anything else."""
    done = progress.iteration
    return done > progress.validated and (done % config.validate_every == 0 or done == config.iterations)


def note_faults(progress: Progress, batch: Batch | PairBatch, config: RunConfig) -> Iterator[str]:
    """Takes note of images that some process could not read; a line for each that is new.

    Raises:
        DataError: there are more than `skip_images`; the same in all processes.
    """
    for faults in gather_objects(batch.faults):
        for name, sentence in faults.items():
            if name not in progress.bad_images:
                progress.bad_images[name] = sentence
                yield f"left out: {sentence}"
    if len(progress.bad_images) > config.skip_images:
        sentence = list(progress.bad_images.values())[-1]
        raise DataError(
            f"{len(progress.bad_images)} training images cannot be read, more than skip_images={config.skip_images} "
            f"allows; the last one: {sentence} `knet data check` finds all of them."
        )


def note_loss(progress: Progress, step: StepResult, samples: Samples, config: RunConfig) -> str:
    """Takes note of an iteration whose loss is not finite, also in not_finite.json; a line to show.

    Raises:
        TrainingError: there are more than `skip_losses`; names the losses and the images.
    """
    iteration = progress.iteration - 1
    progress.bad_losses.append(iteration)
    draws = next(iter(BatchPlan(len(samples), config.batch, config.seed, iteration)))
    images = [samples.name(draw.image) for draw in draws]
    bad = ", ".join(name for name, value in step.losses.items() if not math.isfinite(value)) or "gradient"
    if rank() == 0:
        numbers = {name: str(value) for name, value in {**step.losses, "gradient": step.gradient_norm}.items()}
        with atomic_path(config.output / "not_finite.json") as temporary:
            temporary.write_text(json.dumps({"iteration": iteration, "images": images, "losses": numbers}, indent=1))
    what = f"The loss is not finite in iteration {iteration} ({bad}), for the images {', '.join(images)}"
    if len(progress.bad_losses) > config.skip_losses:
        raise TrainingError(
            f"{what}; lower optimizer.learning_rate, use precision=bf16 or fp32, or leave such iterations out with "
            "skip_losses=N, and resume the run. not_finite.json in its folder has the same."
        )
    return f"left out: {what}."


def validate(
    judge: Segmenter,
    weights: dict[str, torch.Tensor],
    card: Card,
    dataset: Reader,
    progress: Progress,
    config: RunConfig,
) -> dict[str, float]:
    """Judges weights on the validation set and saves them, also as the best if no earlier ones had a better figure.

    Returns:
        As `figures_of`.
    """
    assert judge.net is not None
    judge.net.load_state_dict(weights)
    figures = figures_of(evaluate(judge, dataset))
    training = {"iteration": progress.iteration, "val": figures, "config": dump_config(config)}
    card = card.model_copy(update={"more": {**card.more, "training": training}})
    if rank() == 0:
        save_weights(config.output / "last.safetensors", weights, card)
        if main_figure(figures) >= progress.best:
            save_weights(config.output / "best.safetensors", weights, card)
    return figures


def figures_of(result: dict[str, Any]) -> dict[str, float]:
    """What to log of `evaluate`'s result, the figure that weights are chosen by first.

    pq, sq, rq, pq_things, pq_stuff and miou, with stq, aq and vpq before them where frames of clips were judged; for
    objects ap, ap50 and ap75. Fractions, 0 where nothing was counted.
    """
    figures: dict[str, float | None] = {}
    if "stq" in result:
        figures |= {key: result["stq"]["all"][key] for key in ("stq", "aq")} | {"vpq": result["vpq"]["all"]["vpq"]}
    if "panoptic" in result:
        figures |= {key: result["panoptic"]["all"][key] for key in ("pq", "sq", "rq")}
        figures |= {f"pq_{kind}": result["panoptic"][kind]["pq"] for kind in ("things", "stuff")}
    if "semantic" in result:
        figures["miou"] = result["semantic"]["miou"]
    if "instance" in result:
        figures |= {key: result["instance"]["all"][key] for key in ("ap", "ap50", "ap75")}
    return {key: value or 0.0 for key, value in figures.items()}


def main_figure(figures: dict[str, float]) -> float:
    """What weights are chosen by: STQ, PQ, mask AP or mIoU."""
    return next(iter(figures.values()))


def pictures(judge: Segmenter, dataset: Reader) -> dict[str, Any]:
    """A few validation images by name: truth at the left, what the network found at the right. (H,W,3) uint8"""
    drawn: dict[str, Any] = {}
    if judge.task == "clip":  # such models cannot say anything of a single image
        return drawn
    for number in range(min(_PICTURES, len(dataset))):
        sample = dataset.read(number * len(dataset) // min(_PICTURES, len(dataset)))
        truth = draw_truth(sample, dataset.categories)
        drawn[f"val_{number}"] = side_by_side([truth, judge(sample.image).overlay(sample.image)])
    return drawn


def open_folder(config: RunConfig) -> None:
    """Makes the run folder with its config.yaml.

    Raises:
        ConfigError: it holds a run already.
        OutputError: it cannot be made.
    """
    folder = config.output
    if (folder / "state.pt").exists():
        raise ConfigError(
            f"The folder '{folder}' already holds a run; go on with --resume {folder}, or set another output."
        )
    if rank() != 0:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot make the run folder '{folder}': {error.strerror}; set another output.") from error
    with atomic_path(folder / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(dump_config(config), sort_keys=False))
