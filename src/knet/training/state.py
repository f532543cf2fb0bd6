"""A run's state on disk: everything that resuming needs, written whole or not at all."""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from knet.errors import CheckpointError
from knet.files import atomic_path, cannot_write


def save_state(
    path: Path,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    iteration: int,
    best: float,
    config: dict[str, Any],
) -> None:
    """Writes weights, optimiser, loss scale, the number of iterations done, the best PQ so far, and the config.

    Random states are not needed: every random number of an iteration follows from the seed and its number.

    Raises:
        OutputError: the file cannot be written; an older one stays as it was.
    """
    state = {
        "net": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "iteration": iteration,
        "best": best,
        "config": config,
    }
    with atomic_path(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # how torch reports a full disk
            raise cannot_write(path, str(error).splitlines()[0]) from error


def read_state(path: Path) -> dict[str, Any]:
    """Reads what `save_state` wrote, without executing anything in the file.

    Raises:
        CheckpointError: missing, damaged, or not such a file.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no '{path}' to resume from; give the folder of a run that saved one.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"The run state '{path}' is damaged; start the run again without --resume.") from error
    if not isinstance(state, dict) or not {"net", "optimizer", "scaler", "iteration", "config"} <= state.keys():
        raise CheckpointError(f"'{path}' was not written by `knet train`; give the folder of one of its runs.")
    return state
