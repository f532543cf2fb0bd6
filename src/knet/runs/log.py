"""What a run shows while it goes on: lines, a progress bar, and rows in its record."""

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import numpy as np
from tqdm import tqdm

from knet.config import RunConfig, dump_config
from knet.distributed import rank
from knet.runs.record import RunRecord
from knet.runs.state import Progress
from knet.runs.step import StepResult

_logger = logging.getLogger("knet")


class RunLog:
    """Shows and records how a run goes after `start` iterations, in the first process only. A context manager."""

    def __init__(self, config: RunConfig, start: int):
        self._config, self._first = config, rank() == 0
        quiet = not self._first or None  # None: where there is no terminal
        self._bar = tqdm(total=config.iterations, initial=start, desc="training", unit="iteration", disable=quiet)
        self._record = RunRecord(config.output, start, config.wandb, dump_config(config), active=self._first)
        self._stack = ExitStack()
        self.restart_clock(start)

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
        """Logs an iteration that is done, if it is one of every `log_every` or the last; `progress` includes it."""
        self._bar.update()
        done, config = progress.iteration, self._config
        if done % config.log_every and done != config.iterations:
            return
        seconds = time.perf_counter() - self._clock
        row = {"loss": sum(step.losses.values()), "rate": rate, "seconds": seconds / (done - self._since)}
        row |= {"waiting": self._waited / seconds, **step.losses, "gradient_norm": step.gradient_norm}
        # These grow when matching met numbers that are not finite, and when something was left out.
        bad = {"bad_images": len(progress.bad_images), "bad_losses": len(progress.bad_losses)}
        row |= {"invalid_costs": invalid_costs, **bad}
        self._record.log("train", done, row)
        self._bar.set_postfix_str(f"loss {row['loss']:.3f}")
        if self._bar.disable:  # no terminal: plain lines
            speed = f"{row['seconds']:.2f} s/iteration"
            self.say(f"iteration {done}/{config.iterations}  loss {row['loss']:.3f}  {speed}")
        self.restart_clock(done)

    def validation(self, iteration: int, figures: dict[str, float], pictures: dict[str, np.ndarray]) -> None:
        """Logs the figures and pictures of a validation, and draws the curves anew."""
        self._record.log("val", iteration, figures)
        self._record.pictures(iteration, pictures)
        self._record.plot()
        shown = "  ".join(f"{key} {100 * value:.1f}" for key, value in figures.items())
        self.say(f"iteration {iteration}  {shown}")

    def __enter__(self) -> Self:
        self._stack.enter_context(self._bar)
        self._stack.enter_context(self._record)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)
