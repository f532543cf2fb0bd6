"""A run's state on disk: everything that resuming needs, written whole or not at all.

Weights and optimiser are stored whole and by name, so a run may go on with another number of processes. Random states
are not needed: every random number of an iteration follows from the seed and its number, and so does the place in the
data set.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from knet.distributed import rank
from knet.errors import CheckpointError, KNetError, memory_asked, shown
from knet.files import atomic_path, cannot_write, is_file
from knet.weights.load import require_finite_weights

_WHOLE = StateDictOptions(full_state_dict=True)


@dataclass
class Progress:
    """How far a run has come."""

    iteration: int = 0  # how many are done
    validated: int = 0  # the iteration after which the last validation took place
    best: float = -1.0  # the best PQ (mask AP, mIoU) so far, -1 before the first validation
    bad_images: dict[str, str] = field(default_factory=dict)  # those that could not be read: name -> what is wrong
    bad_losses: list[int] = field(default_factory=list)  # iterations whose loss was not finite
    made_for: dict[str, Any] = field(default_factory=dict)  # model, classes and data set, see `made_for`
    stale: int = 0  # validations since the best


class MovingAverage:
    """Exponential moving average of all weights and statistics: mean = decay * mean + (1 - decay) * now.

    At iteration n the decay is (1 + n) / (10 + n) at most, so that the first, random weights are soon forgotten.
    """

    def __init__(self, net: nn.Module, decay: float):
        self._decay = decay
        self._net = net
        self.values = {k: v.clone() for k, v in net.state_dict().items() if v.is_floating_point()}

    @torch.no_grad()
    def update(self, iteration: int) -> None:
        """Adds the present weights of the network, those after `iteration` iterations."""
        now, decay = self._net.state_dict(), min(self._decay, (1 + iteration) / (10 + iteration))
        get_ema_multi_avg_fn(decay)(list(self.values.values()), [now[key] for key in self.values], 0)

    def restore(self, weights: dict[str, Any]) -> None:
        """Replaces the average, and the network's weights, by whole weights (see `whole_weights`)."""
        set_model_state_dict(self._net, weights, options=_WHOLE)
        self.values = {k: v.clone() for k, v in self._net.state_dict().items() if v.is_floating_point()}


def whole_weights(net: nn.Module, average: MovingAverage | None = None) -> dict[str, Tensor]:
    """The state dict of the network, or of its moving average, in ordinary tensors. All processes must call it."""
    values = net.state_dict() | (average.values if average is not None else {})
    return {key: value.full_tensor() if isinstance(value, DTensor) else value for key, value in values.items()}


def save_state(
    path: Path,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: MovingAverage | None,
    progress: Progress,
    config: dict[str, Any],
) -> None:
    """Writes everything that resuming needs. All processes must call it; the first one writes."""
    state = {
        "net": whole_weights(net),
        "average": whole_weights(net, average) if average is not None else None,
        "optimizer": get_optimizer_state_dict(net, optimizer, options=_WHOLE),
        "scaler": scaler.state_dict(),
        "progress": vars(progress),
        "config": config,
    }
    if rank() != 0:
        return
    with atomic_path(path, durable=True) as temporary, temporary.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch's own, in the middle of which lies what the system said
            reason = getattr(error.__context__, "strerror", None) or str(error).splitlines()[0]
            raise cannot_write(path, reason) from error


def load_state(
    path: Path,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: MovingAverage | None,
    made_for: dict[str, Any],
) -> Progress:
    """Restores what `save_state` wrote for the same `made_for`, in every process.

    A run that had no moving average starts one from its weights.
    """
    state = read_state(path)
    progress = _progress(state["progress"], path)
    for what, value in made_for.items():
        if progress.made_for.get(what) != value:
            raise CheckpointError(
                f"The run state '{path}' is of another {what} ({_short(progress.made_for.get(what))}) than the config "
                f"({_short(value)}); resume with the config of that run, or start a new one in another output folder."
            )
    try:
        weights = state.get("average") or state["net"]
        for part in (state["net"], weights, _numbers(state["optimizer"]["state"])):
            require_finite_weights(part, str(path))
        if average is not None:
            average.restore(weights)
        set_model_state_dict(net, state["net"], options=_WHOLE)
        set_optimizer_state_dict(net, optimizer, state["optimizer"], options=_WHOLE)
        if not state["optimizer"]["state"]:  # no step was taken yet, as in fp16 at first; torch has made one of zeros
            optimizer.state.clear()
        _compare_shapes(optimizer)
        # With another scale each step would be left out as one whose gradient is too large.
        if not 0 < float(state["scaler"].get("scale", 1.0)) < math.inf:
            raise ValueError(f"the scale of its loss is {shown(state['scaler']['scale'])}")
        scaler.load_state_dict(state["scaler"])
    except KNetError:
        raise
    except Exception as error:  # what torch raises for parts that are none or fit no network has no common class
        if memory_asked(error):
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".:")
        raise CheckpointError(
            f"The run state '{path}' does not fit this run ({reason}); resume with the config that wrote it, "
            "or start a new run in another output folder."
        ) from error
    return progress


def _numbers(state: dict[str, Any]) -> dict[str, Tensor]:
    """What an optimiser knows of each weight, such as the mean of its gradients, by names."""
    return {
        f"{weight} ({name})": value
        for weight, known in state.items()
        for name, value in known.items()
        if isinstance(value, Tensor)
    }


def _progress(table: Any, path: Path) -> Progress:
    """How far a run had come, as its state has it. Fields that it lacks are newer than it."""
    start = vars(Progress())
    sound = isinstance(table, dict) and table.keys() <= start.keys()
    for name, value in table.items() if sound else ():
        number = isinstance(start[name], int | float)
        kind = int | float if name == "best" else type(start[name])
        sound &= isinstance(value, kind) and not isinstance(value, bool) and not (number and not value >= -1)
    if not sound or table.get("iteration", 0) < 0:
        raise CheckpointError(f"The run state '{path}' is damaged; start the run again without --resume.")
    return Progress(**table)


def _compare_shapes(optimizer: torch.optim.Optimizer) -> None:
    """Raises `ValueError` if what is known of a weight, such as the mean of its gradients, has another shape."""
    for weight, known in optimizer.state.items():
        for name, value in known.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != weight.shape:
                raise ValueError(
                    f"{name} of the optimizer has the shape {tuple(value.shape)}, not {tuple(weight.shape)}"
                )


def require_state(path: Path) -> None:
    """Raises `CheckpointError` where no state is."""
    if not is_file(path):
        raise CheckpointError(f"There is no '{path}' to resume from; give the folder of a run that saved one.")


def read_state(path: Path) -> dict[str, Any]:
    """Reads what `save_state` wrote, without executing anything in the file."""
    require_state(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can fail in any way
        raise CheckpointError(f"The run state '{path}' is damaged; start the run again without --resume.") from error
    if (
        not isinstance(state, dict)
        or not {"net", "average", "optimizer", "scaler", "progress", "config"} <= state.keys()
    ):
        raise CheckpointError(f"'{path}' was not written by this `knet train`; give the folder of one of its runs.")
    return state


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
