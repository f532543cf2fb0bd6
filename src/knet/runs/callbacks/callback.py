"""What callbacks are, and what they are told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from knet.evaluation.details import Details


@dataclass(frozen=True, slots=True)
class RunStart:
    """A run that begins, or goes on.

    Attributes:
        folder: the run folder, which exists.
        iteration: iterations done before; above 0 the run is resumed.
        config: all options.
        classes: the names of the classes.
    """

    folder: Path
    iteration: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """An iteration that is done.

    Attributes:
        iteration: its number, from 1.
        values: loss, its parts, learning rate (`rate`), `seconds` an iteration and the share of `waiting` since the
            last row, gradient norm, and what was left out.
        due: whether it is one of every `log_every`, or the last.
    """

    iteration: int
    values: Mapping[str, float]
    due: bool = True


@dataclass(frozen=True, slots=True)
class Validation:
    """A validation.

    Attributes:
        iteration: iterations done before it.
        figures: what val.csv gets, such as `pq`: fractions.
        result: all figures, as `knet.evaluate` returns them.
        details: what a report shows beside them, by part of the result.
        pictures: validation images and the confusion matrix by name, (H,W,3) uint8 RGB.
        best: whether these weights are the best so far.
    """

    iteration: int
    figures: Mapping[str, float]
    result: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Details] = field(default_factory=dict)
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
    best: bool = False


class Callback:
    """What is told how a run goes, in the first process alone. Derive from it and write the methods that you need.

    An exception in one of them ends the run with a sentence that names it, after the state was saved.
    """

    def on_start(self, run: RunStart) -> None:
        """Before the first iteration, also of a resumed run."""

    def on_iteration(self, step: Step) -> None:
        """After every iteration."""

    def on_validation(self, validation: Validation) -> None:
        """After every validation, when its weights are saved."""

    def on_end(self, error: BaseException | None) -> None:
        """At the end; `error` is what stopped the run, if anything did."""


METHODS = ("on_start", "on_iteration", "on_validation", "on_end")
