"""What a run shows while it goes on, lines and a progress bar, and whom it tells."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from tqdm import tqdm

from knet.config import RunConfig, dump_config
from knet.distributed import gather_objects, rank
from knet.errors import ConfigError, KNetError, TrainingError, require, shown
from knet.runs.callbacks import CSV, Curves, MLflow, Pictures, Report, TensorBoard, WeightsAndBiases
from knet.runs.callbacks.callback import METHODS, Callback, RunStart, Step, Validation
from knet.runs.state import Progress
from knet.runs.step import StepResult

_logger = logging.getLogger("knet")


class RunLog:
    """Shows how a run goes after `start` iterations and tells its callbacks, in the first process. A context manager.

    Args:
        config: the run's options.
        start: iterations done before.
        callbacks: those of the user, which are told after the package's own.
        classes: names of the classes.
    """

    def __init__(
        self, config: RunConfig, start: int, callbacks: Sequence[Callback] = (), classes: tuple[str, ...] = ()
    ):
        self._config, self._first = config, rank() == 0
        quiet = not self._first or None  # None: where there is no terminal
        self._bar = tqdm(total=config.iterations, initial=start, desc="training", unit="iteration", disable=quiet)
        self._start = RunStart(config.output, start, dump_config(config), classes)
        self._callbacks = [*shipped(config), *callbacks] if self._first else []
        self._told: list[Callback] = []  # those that were started, and did not fail
        self._failure: KNetError | None = None
        self.restart_clock(start)

    @property
    def failed(self) -> bool:
        """Whether a callback of this process failed, so that the run has to end."""
        return self._failure is not None

    def raise_failure(self) -> None:
        """Ends the run, in all processes, if a callback has failed in any. All processes must call it."""
        found = [sentence for sentence in gather_objects(str(self._failure) if self._failure else "") if sentence]
        if found:
            raise self._failure or TrainingError(found[0])

    def say(self, line: str) -> None:
        """Reports a line to the logger `knet`, once for all processes."""
        if self._first:
            _logger.info(line)

    def restart_clock(self, iteration: int) -> None:
        """Measures the time from here on, after so many iterations."""
        self._clock, self._since, self._waited = time.perf_counter(), iteration, 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Measures the time until the block ends as waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def iteration(self, step: StepResult, rate: float, invalid_costs: int, progress: Progress) -> None:
        """Tells of an iteration that is done, and shows each of `log_every` and the last; `progress` includes it."""
        self._bar.update()
        if not self._first:
            return
        done, config = progress.iteration, self._config
        due = done % config.log_every == 0 or done == config.iterations
        seconds = time.perf_counter() - self._clock
        row = {"loss": sum(step.losses.values()), "rate": rate, "seconds": seconds / (done - self._since)}
        row |= {"waiting": self._waited / seconds, **step.losses, "gradient_norm": step.gradient_norm}
        # These grow when matching met numbers that are not finite, and when something was left out.
        bad = {"bad_images": len(progress.bad_images), "bad_losses": len(progress.bad_losses)}
        row |= {"invalid_costs": invalid_costs, **bad}
        self._tell("on_iteration", Step(done, row, due))
        if not due:
            return
        self._bar.set_postfix_str(f"loss {row['loss']:.3f}")
        if self._bar.disable:  # no terminal: plain lines
            speed = f"{row['seconds']:.2f} s/iteration"
            self.say(f"iteration {done}/{config.iterations}  loss {row['loss']:.3f}  {speed}")
        self.restart_clock(done)

    def validation(self, validation: Validation) -> None:
        """Tells of a validation, and shows its figures."""
        self._tell("on_validation", validation)
        shown = "  ".join(f"{key} {100 * value:.1f}" for key, value in validation.figures.items())
        self.say(f"iteration {validation.iteration}  {shown}")

    def __enter__(self) -> Self:
        try:
            for callback in self._callbacks:
                self._told.append(callback)
                self._tell("on_start", self._start, only=callback)
            self.raise_failure()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._bar.close()
        self._tell("on_end", error)
        if error is None and self._failure is not None:
            raise self._failure

    def _tell(self, method: str, fact: Any, only: Callback | None = None) -> None:
        """Calls a method of all callbacks, or of one. Those that fail are not called again; the first one is kept."""
        for callback in [*self._told] if only is None else [only]:
            try:
                getattr(callback, method)(fact)
            except Exception as error:
                self._told.remove(callback)
                if self._failure is None:
                    self._failure = error if isinstance(error, KNetError) else self._sentence(callback, method, error)

    def _sentence(self, callback: Callback, method: str, error: Exception) -> TrainingError:
        folder, where = self._config.output, type(callback).__name__
        saved = f"; the state is saved, go on with `knet train --resume {folder}`." if method in METHODS[1:3] else "."
        failure = TrainingError(f"The callback {where} failed in {method}: {type(error).__name__}: {error}{saved}")
        failure.__cause__ = error
        return failure


def shipped(config: RunConfig) -> list[Callback]:
    """The callbacks that every run has, and those that its options ask for."""
    asked: list[Callback] = [] if config.wandb is None else [WeightsAndBiases(config.wandb)]
    asked += [] if config.mlflow is None else [MLflow(config.mlflow)]
    return [CSV(), *asked, TensorBoard(), Pictures(), Curves(), Report()]


def check_callbacks(callbacks: Sequence[Callback]) -> None:
    """Raises `ConfigError` for what cannot be told how a run goes."""
    require(list | tuple, "a list of objects", callbacks=callbacks)
    for callback in callbacks:
        name = shown(callback)
        if isinstance(callback, type):
            raise ConfigError(f"callbacks holds the class {callback.__name__}; give an object of it.")
        lacking = [method for method in METHODS if not callable(getattr(callback, method, None))]
        if lacking:
            raise ConfigError(
                f"callbacks holds {name}, which has no {lacking[0]}; derive its class from knet.Callback."
            )
