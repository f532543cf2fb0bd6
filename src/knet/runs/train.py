"""Training, from the first iteration to the last.

Every random number of an iteration follows from the seed and the iteration's number, so a run that was killed and
resumed continues exactly as if nothing had happened.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from knet.config import RunConfig, dump_config, read_config
from knet.data.readers.mixture import Mixture
from knet.data.readers.open import open_data
from knet.data.samples.batches import Batch, BatchPlan, Samples, load_batches, loaders_needed
from knet.data.samples.pairs import PairBatch
from knet.distributed import gather_objects, joined, rank, world
from knet.errors import ConfigError, DataError, KNetError, OutputError, TrainingError, counted, enough_memory
from knet.files import atomic_path, cannot_write, claimed, is_file
from knet.inference.engines.network import TorchEngine
from knet.inference.load import choose_device, fast_in_bf16, segmenter_for
from knet.models.zoo import create, entry
from knet.runs.batch_size import with_batch
from knet.runs.build import build_criterion, build_network, made_for, run_card, scaled_learning_rate
from knet.runs.callbacks.callback import Callback
from knet.runs.choose import choose, is_data_set
from knet.runs.evaluate import check_truth
from knet.runs.interrupt import Interrupt
from knet.runs.learnable import check_learnable, kernels_of, require_segments
from knet.runs.log import RunLog, check_callbacks
from knet.runs.look_over import look_over
from knet.runs.optimizer import adamw, learning_rate
from knet.runs.samples import training_set
from knet.runs.state import MovingAverage, Progress, load_state, require_state, save_state, whole_weights
from knet.runs.step import StepResult, train_step
from knet.runs.validate import main_figure, pictures, save_trained, validate, validation_is_due
from knet.structures import Preprocessing
from knet.weights.card import Card

_logger = logging.getLogger("knet")


def train(
    config: RunConfig | str | Path, resume: bool = False, callbacks: Sequence[Callback] = (), **overrides: Any
) -> Path:
    """Trains a model, in several processes if torchrun or srun started them.

    The run folder `config.output` gets config.yaml; train.csv, val.csv, curves.png and report.html (and TensorBoard's
    files where it is installed); pictures/; state.pt, from which a run is resumed; and last.safetensors and
    best.safetensors (highest PQ, mask AP or mIoU), ready for `knet.load`.

    Args:
        config: the name of a config that comes with the package, a YAML file, or a `knet.config.RunConfig`; or the
            folder of a data set that `knet data import` made, for which all options are chosen, see `choose`.
        resume: continue from state.pt in the run folder. Random numbers, and so losses, are those of a run that was
            never stopped.
        callbacks: objects that are told how the run goes, see `knet.Callback`.
        overrides: options that replace those of the config, such as `batch=8` or `data__root="data/camvid"`; see
            `knet.read_config`.

    Returns:
        The run folder.

    Raises:
        ConfigError: options that contradict each other, or a run folder that holds another run.
        DataError: a data set cannot be read, or more images than `skip_images` cannot.
        CheckpointError: weights or a state do not fit.
        OutputError: a file of the run folder cannot be written.
        TrainingError: more losses than `skip_losses` are not finite; the message names the images. Or a process that
            loads images, or another one of the run, has died. Or a callback raised an exception, which is the cause of
            this one; the state is saved.
        StoppedError: SIGTERM came; the state is saved.
    """
    if is_data_set(config):
        choice = choose(config, overrides)
        _logger.info("\n".join(choice.reasons))
        config = choice.config
    config = read_config(config, **overrides)
    check_callbacks(callbacks)
    with joined(choose_device(config.device)) as device, Interrupt(config.output) as interrupt, ExitStack() as claim:
        return _train(config, resume, device, interrupt, callbacks, claim)


def _train(
    config: RunConfig,
    resume: bool,
    device: torch.device,
    interrupt: Interrupt,
    callbacks: Sequence[Callback],
    claim: ExitStack,
) -> Path:
    run = _Run(config, resume, device, claim)
    config, progress = run.config, run.progress
    loader = load_batches(run.samples, run.plan, config.workers, device.type == "cuda")
    classes = tuple(category.name for category in run.card.categories)
    # Unless the loader is closed, its processes are waited for.
    logged = RunLog(config, progress.iteration, callbacks, classes)
    with loaders_needed(), logged as log, closing(loader) as batches:
        for note in run.notes:
            log.say(note)
        while True:
            # A run that was killed while it validated has the state of before, and validates now.
            if validation_is_due(config, progress):
                _validate(run, log, interrupt)
            if progress.iteration >= config.iterations:
                return config.output
            if config.patience is not None and progress.stale >= config.patience:
                log.say(out_of_patience(progress))
                return config.output
            with log.waiting():
                batch = next(batches)
            rate = run.set_learning_rate()
            with enough_memory(
                "a step of training", "take a smaller batch, crop or more parts (accumulate)", TrainingError
            ):
                step = train_step(
                    run.wrapped,
                    run.criterion,
                    run.optimizer,
                    run.scaler,
                    batch,
                    seed=(config.seed, progress.iteration),
                    precision=config.precision,
                    max_norm=config.optimizer.clip,
                    parts=config.accumulate,
                    asked=interrupt.asked or bool(batch.faults) or log.failed,
                    values=run.values,
                    frozen=config.freeze_norms is not None and progress.iteration >= config.freeze_norms,
                )
            progress.iteration += 1
            if step.asked:
                for line in note_faults(progress, batch, config):
                    log.say(line)
            if not step.taken:
                log.say(note_loss(progress, step, run.samples, config))
            elif run.average is not None:
                run.average.update(progress.iteration)
            log.iteration(step, rate, run.criterion.invalid_costs, progress)
            asked = step.asked or (log.failed and world() == 1)
            stop = asked and any(gather_objects(interrupt.asked or log.failed))
            if stop or progress.iteration % config.save_every == 0:
                run.save()
            if stop:
                log.raise_failure()
                raise interrupt.error


def _validate(run: _Run, log: RunLog, interrupt: Interrupt) -> None:
    """Validates the present weights, if there is data for it, and saves them, and the state before and after."""
    progress = run.progress
    run.save()
    weights = whole_weights(run.net, run.average)
    if run.validation is None:
        save_trained(weights, run.card, progress, run.config)
    else:
        left_out = run.left_out.keys()
        with interrupt.at_once():
            found = validate(run.segmenter, weights, run.card, run.validation, left_out, progress, run.config)
        drawn = pictures(run.segmenter, run.validation, left_out, found.details) if rank() == 0 else {}
        log.validation(replace(found, pictures=drawn))
        log.raise_failure()  # one that not everybody could be told of is repeated by --resume
        better = main_figure(found.figures) > progress.best
        progress.stale = 0 if better else progress.stale + 1
        progress.best = max(progress.best, main_figure(found.figures))
    progress.validated = progress.iteration
    run.save()
    log.restart_clock(progress.iteration)


class _Run:
    """The parts of a run: data, network, losses, optimiser, and the progress of a run that is resumed."""

    def __init__(self, config: RunConfig, resume: bool, device: torch.device, claim: ExitStack):
        options = config.optimizer
        dataset = open_data(config.data, config.data.train)
        self.validation, self.left_out = None, dict[int, str]()
        if config.data.val is not None:
            self.validation = open_data(config.data, config.data.val, dataset.categories)
            check_truth(config.model, entry(config.model).task, self.validation)
            self.left_out = look_over(self.validation, config)
        crowded = check_learnable(dataset, kernels_of(config))
        if self.validation is not None:
            require_segments(self.validation, "validation")
        if config.patience is not None and self.validation is None:
            raise ConfigError("patience waits for a better validation, but data.val is null; leave patience out.")
        self.card = run_card(config, dataset.categories)
        config, chosen = with_batch(config, self.card, len(dataset), device, resume)
        self.config = config
        fits = made_for(self.card, dataset)
        self.net, self.wrapped, origin = build_network(config, self.card, device)
        # One more than may be bad: so a sound one is found, and the sentence that ends the run counts them all.
        self.samples = training_set(config, dataset, self.net, config.skip_images + 1 if config.skip_images else 0)
        shares = {"rank": rank(), "world": world(), "parts": config.accumulate}
        plan = BatchPlan(self.samples.shares, int(config.batch), config.seed, **shares)
        p = self.card.preprocessing
        self.values = Preprocessing(0, 0, p.mean, p.std)  # crops are not resized again
        self.criterion = build_criterion(config, self.net, self.card)
        self.base, scaled = scaled_learning_rate(config)
        rules = options.weight_decay, options.backbone_multiplier, options.undecayed
        self.optimizer = adamw(self.net, self.base, *rules)
        for group in self.optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.average = MovingAverage(self.net, config.ema) if config.ema is not None else None
        engine = TorchEngine(create(config.model, **self.card.arguments), device, config.precision)
        self.segmenter = segmenter_for(engine, self.card)
        if resume:
            state = config.output / "state.pt"
            require_state(state)  # without which there may be no folder to claim
            # Before it is read: until then another run may still write it.
            claim.enter_context(only_run(config.output))
            self.progress = load_state(state, self.net, self.optimizer, self.scaler, self.average, fits)
        else:
            self.progress = Progress(made_for=fits)
            open_folder(config, claim)
        self.plan = plan.starting_at(self.progress.iteration)
        notes = [
            introduction(config, self.card, len(dataset), self.net, device),
            "" if resume else origin,
            chosen,
            scaled,
            crowded,
        ]
        notes += [f"left out of validation: {sentence}" for sentence in self.left_out.values()]
        if self.validation is None:
            notes.append("no validation (data.val=null): last.safetensors gets the weights, none are the best")
        notes += [dataset.describe()] if isinstance(dataset, Mixture) else []
        if config.precision == "bf16" and not fast_in_bf16(device):
            slow = f"bf16 is much slower than fp32 on this {device.type}, which cannot compute in it"
            notes.append(f"{slow}; give precision=fp32")
        self.notes = [note for note in notes if note]  # what there is to say before the first iteration

    def save(self) -> None:
        """Writes everything that resuming needs to `state.pt`."""
        path, options = self.config.output / "state.pt", dump_config(self.config)
        save_state(path, self.net, self.optimizer, self.scaler, self.average, self.progress, options)

    def set_learning_rate(self) -> float:
        """Sets the learning rate of the next iteration in every group; returns that of groups without a multiplier."""
        options = self.config.optimizer
        schedule = (options.warmup, options.warmup_start, options.power, options.steps)
        factor = learning_rate(self.progress.iteration, self.config.iterations, 1.0, *schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        return factor * self.base


def out_of_patience(progress: Progress) -> str:
    """The line with which a run ends early."""
    return (
        f"stopped after iteration {progress.iteration}: {progress.stale} validations without a better figure than "
        f"{100 * progress.best:.1f} (patience); best.safetensors has the weights"
    )


def introduction(config: RunConfig, card: Card, images: int, net: nn.Module, device: torch.device) -> str:
    """The line with which a run begins: model, data, batch, iterations and device."""
    millions = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    processes = f" in {world()} processes" if world() > 1 else ""
    return (
        f"{config.model} with {millions:.1f} M parameters, {counted(len(card.categories), 'class')}, "
        f"{counted(images, 'image')}, batch {config.batch}, {config.iterations} iterations on {device.type} "
        f"({config.precision}){processes}"
    )


def note_faults(progress: Progress, batch: Batch | PairBatch, config: RunConfig) -> Iterator[str]:
    """Adds a batch's unreadable images to `progress.bad_images`, in all processes alike; yields a line for each."""
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
    """Adds an iteration without a finite loss to `progress.bad_losses`, and writes it to not_finite.json.

    Returns a line that names the losses and the images.
    """
    iteration = progress.iteration - 1
    progress.bad_losses.append(iteration)
    draws = next(iter(BatchPlan(samples.shares, int(config.batch), config.seed, iteration)))
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


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a run folder. Raises `ConfigError`, in all processes, if one is going on there."""
    fault: KNetError | None = None
    with ExitStack() as stack:
        if rank() == 0:
            try:
                stack.enter_context(claimed(folder / ".knet-train.lock"))
            except BlockingIOError:
                fault = ConfigError(
                    f"Another run is going on in the folder '{folder}'; wait for it, or set another output."
                )
            except OSError as error:
                fault = cannot_write(folder, error.strerror or error)
        for found in filter(None, gather_objects(fault)):
            raise found
        yield


def open_folder(config: RunConfig, claim: ExitStack) -> None:
    """Makes the run folder, with config.yaml. Raises `ConfigError` if it already holds a run."""
    folder = config.output
    if (folder / "state.pt").exists():
        raise ConfigError(
            f"The folder '{folder}' already holds a run; go on with --resume {folder}, or set another output."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot make the run folder '{folder}': {error.strerror}; set another output.") from error
    claim.enter_context(only_run(folder))
    if rank() != 0:
        return
    path, text = folder / "config.yaml", yaml.safe_dump(dump_config(config), sort_keys=False).encode()
    if not (is_file(path) and path.read_bytes() == text):
        with atomic_path(path) as temporary:
            temporary.write_bytes(text)
