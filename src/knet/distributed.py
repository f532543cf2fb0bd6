"""Several processes that train as one: torchrun or Slurm starts them, NCCL or gloo carries what they exchange.

Every function also works in a single process, as if that held everything, so no caller has to distinguish the two.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from threading import Thread
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.autograd.function import once_differentiable

from knet.errors import ConfigError, TrainingError, shown

_MEETING = timedelta(minutes=5)  # until all processes have started
_PATIENCE = timedelta(minutes=30)  # for the slowest process, such as one that writes to a busy network disk


class Place(NamedTuple):
    """Which process this is (`rank`), of how many (`world`), and its number on its own machine (`local_rank`)."""

    rank: int
    world: int
    local_rank: int


def place_of(environment: dict[str, str]) -> Place:
    """Reads the variables of torchrun (RANK, WORLD_SIZE, LOCAL_RANK) or of Slurm's srun; without both it is alone."""
    if "RANK" in environment or "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    # Only processes of a job step have this one; the batch script itself has no other process to meet.
    elif _number(environment, "SLURM_STEP_NUM_TASKS", 1, default="1") > 1:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    else:
        return Place(0, 1, 0)
    world = _number(environment, names[1], 1)
    return Place(_number(environment, names[0], 0, world - 1), world, _number(environment, names[2], 0, world - 1))


def meeting_point(environment: dict[str, str]) -> tuple[str, str]:
    """Address and port at which the processes meet: as given, or Slurm's first machine and a port from the job's id."""
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or "127.0.0.1"
    # node[003-005,9],other -> node003
    first = re.sub(r"\[(\w+).*", r"\1", re.split(r",(?![^\[]*\])", nodes)[0])
    port = 20_000 + _number(environment, "SLURM_JOB_ID", 0, default="9500") % 20_000
    port = _number(environment, "MASTER_PORT", 1, 65_535, default=str(port))
    return environment.get("MASTER_ADDR") or first, str(port)


def _number(environment: dict[str, str], name: str, least: int, most: int = 2**31, default: str = "") -> int:
    """A whole number of the environment. Raises `ConfigError` if it is missing, none or out of range."""
    text = environment.get(name, default)
    # Only few digits, as Python refuses to read very many.
    if text.isascii() and text.isdigit() and len(text) < 12 and least <= int(text) <= most:
        return int(text)
    what = f"is {shown(text)}" if name in environment else "is missing"
    range_ = f"from {least} on" if most == 2**31 else f"from {least} to {most}"
    raise ConfigError(
        f"The environment asks for several processes, but a variable is missing or no number that can be meant: {name} "
        f"{what}, and goes {range_}; start them with torchrun or srun."
    )


@contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Joins the other processes, if there are any, in the context, and gives this one's device: with GPUs, its own one.

    Raises:
        ConfigError: the machine has more processes than GPUs, or a variable of torchrun is missing or no number.
        TrainingError: another process has ended, does not come for five minutes, or does not answer for half an hour.
    """
    place = place_of(dict(os.environ))
    if place.world == 1:
        yield device
        return
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = meeting_point(dict(os.environ))
    cuda = device.type == "cuda"
    if cuda:
        count = torch.cuda.device_count()
        if place.local_rank >= count:
            raise ConfigError(
                f"Process {place.local_rank} of this machine has no GPU of its own (there are {count}); start as many "
                "processes a machine as it has GPUs, or train with device=cpu."
            )
        device = torch.device("cuda", place.local_rank)
        torch.cuda.set_device(device)
    # What is on the CPU goes over gloo, so that no process waits for its GPU to exchange it.
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    try:
        _meet(backend, place)
        yield device
    except RuntimeError as error:
        if not _is_of_others(error):
            raise
        raise TrainingError(
            f"Process {place.rank} of {place.world} waits in vain for another one, which has ended or hangs "
            f"({str(error).strip().splitlines()[0][-200:]}); see what that one said, then start all of them again, a "
            "training with --resume."
        ) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _meet(backend: str, place: Place) -> None:
    """Waits for the other processes, in a thread that can be left: PyTorch has no limit for one that stands still."""
    faults: list[BaseException] = []

    def meet() -> None:
        try:
            store, _, _ = next(dist.rendezvous("env://", place.rank, place.world, timeout=_MEETING))
            dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.world, timeout=_PATIENCE)
        except BaseException as error:
            faults.append(error)

    thread = Thread(target=meet, daemon=True)
    thread.start()
    thread.join(2 * _MEETING.total_seconds())  # one that PyTorch notices has its own sentence by then
    if faults:
        raise faults[0]
    if thread.is_alive():
        raise dist.DistStoreError("it does not answer")


def _is_of_others(error: RuntimeError) -> bool:
    """Whether an error says that another process cannot be reached; gloo's have no class of their own."""
    return isinstance(error, dist.DistError) or "gloo" in str(error) or "Connection closed by peer" in str(error)


def world() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0; process 0 writes files and logs for all."""
    return dist.get_rank() if world() > 1 else 0


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of a tensor of equal shape over all processes, without a gradient."""
    if world() == 1:
        return values
    values = values.detach().clone()
    dist.all_reduce(values)
    return values / world()


def gather(values: Tensor) -> Tensor:
    """The tensors of all processes in their order, without a gradient. (n,...) -> (world * n,...)"""
    if world() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(world())]
    dist.all_gather(parts, values.detach().contiguous())
    return torch.cat(parts)


def gather_objects(value: Any) -> list[Any]:
    """The values of all processes in their order, for small things that are rarely exchanged."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values


def gather_numbers(numbers: Sequence[int]) -> Tensor:
    """The n integers of each process. -> (world,n) int64 on the CPU"""
    return gather(torch.tensor([list(numbers)], dtype=torch.int64))


def synchronize_norms(net: nn.Module, device: torch.device) -> nn.Module:
    """The network with batch norms that look at the batches of all processes, as in the official training.

    On GPUs these are torch's SyncBatchNorm: it is fused, and keeps a norm's input in half precision, of which plain
    tensor operations would keep a copy in float32. torch has none for CPUs, on which runs in several processes are
    tested; there each norm keeps its class and weights, and `synchronized_norm` takes the place of its `forward`.
    """
    if world() == 1:
        return net
    if device.type == "cuda":
        from timm.layers import convert_sync_batchnorm  # torch's own would lose the activations of timm's norms

        return convert_sync_batchnorm(net)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.forward = partial(synchronized_norm, norm)  # type: ignore[method-assign]
    return net


def synchronized_norm(norm: nn.BatchNorm2d, images: Tensor) -> Tensor:
    """Batch norm by the mean and variance of all processes' batches, all of one shape. (B,C,H,W) -> (B,C,H,W)"""
    if not norm.training:
        return type(norm).forward(norm, images)
    x = images.float()
    mean: Tensor = _Mean.apply(x.mean((0, 2, 3)))
    centered = x - mean[:, None, None]
    variance: Tensor = _Mean.apply(centered.square().mean((0, 2, 3)))
    with torch.no_grad():
        count = x.numel() / x.shape[1] * world()
        norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        norm.running_mean.lerp_(mean, norm.momentum)  # type: ignore[union-attr,arg-type]
        norm.running_var.lerp_(variance * count / max(count - 1, 1), norm.momentum)  # type: ignore[union-attr,arg-type]
    scale = norm.weight * (variance + norm.eps).rsqrt()
    x = (centered * scale[:, None, None] + norm.bias[:, None, None]).to(images.dtype)
    for name in ("drop", "act"):  # what timm's norms (BatchNormAct2d) do as well
        x = getattr(norm, name, nn.Identity())(x)
    return x


class _Mean(torch.autograd.Function):
    """The mean over the processes, with a gradient that flows back to all of them."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return mean_over_processes(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return mean_over_processes(gradient)
