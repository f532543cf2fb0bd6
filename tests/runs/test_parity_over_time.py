"""Training over time: the same losses as a plain loop, and the same from two processes as from one.

The second in float64, where one process adds up as it likes, and in float32, where it adds up in the order of two. In
float32 the order decides: kernels gather features under masks with hard edges, a rounding error moves a pixel over an
edge, and random weights magnify that from stage to stage; two orders end up several per cent apart.
"""

import functools
import json
import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fixed_steps import DECAY, ITERATIONS, MAX_NORM, POWER, RATE, SIZE, START, STEPS, WARMUP, batch_of, network, run
from torch import nn
from torch.nn import functional as F

from knet.runs.step import pixel_noise
from knet.training.criterion_rtknet import Criterion

SCRIPT = Path(__file__).with_name("fixed_steps.py")


@pytest.fixture(scope="module")
def checkpoint(official_checkpoint: Any) -> str:
    return str(official_checkpoint("manifest_cityscapes_slim.json", 1))


def plain_losses(checkpoint: str, steps: int) -> list[dict[str, float]]:
    """Training written out: one process, one part, the whole batch padded by hand, every rule in its place."""
    net, _ = network(checkpoint)
    net.train()
    criterion = Criterion()
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d | nn.LayerNorm)]
    kept = [p for norm in norms for p in norm.parameters()]
    decayed = [p for p in net.parameters() if not any(p is other for other in kept)]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": DECAY}, {"params": kept, "weight_decay": 0.0}])
    history = []
    for iteration in range(steps):
        batch = batch_of(iteration)
        mean, std = (torch.tensor(v)[:, None, None] for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
        normal = [(image.float() - mean) / std for image in batch.images]
        inputs = torch.stack([F.pad(image, (0, 0, 0, SIZE[0] - image.shape[1])) for image in normal])
        outputs = net(inputs.contiguous(memory_format=torch.channels_last))
        noise = pixel_noise((0, iteration), batch.positions, inputs[0, 0, ::4, ::4].numel())
        losses = criterion(outputs, batch.targets, noise)
        history.append({name: loss.item() for name, loss in losses.items()})
        optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(net.parameters(), MAX_NORM)
        rate = RATE * (START + (1 - START) * iteration / WARMUP) * (1 - iteration / ITERATIONS) ** POWER
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    return history


def worst(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> float:
    """The largest relative difference of any loss of any step."""
    return max(abs(a[name] - b[name]) / abs(b[name]) for a, b in zip(ours, theirs, strict=True) for name in b)


def in_processes(
    checkpoint: str, folder: Path, processes: int, parallel: str = "ddp", steps: int = STEPS, number: str = "float64"
) -> Any:
    """What `fixed_steps` saved, from so many processes on gloo."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    output = folder / f"{parallel}_{number}_{processes}.pt"
    arguments = [sys.executable, str(SCRIPT), checkpoint, str(steps), parallel, number, str(output)]
    place = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(arguments, env=os.environ | place | {"RANK": str(r), "LOCAL_RANK": str(r)})
        for r in range(processes)
    ]
    assert [process.wait(300) for process in started] == [0] * processes
    said = [json.loads(output.with_suffix(f".{r}.json").read_text()) for r in range(processes)]
    assert all(one == said[0] for one in said)  # every process knows the losses of the whole batch
    return torch.load(output)


def both_ways(checkpoint: str, steps: int) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    return run(checkpoint, steps)[0], plain_losses(checkpoint, steps)


@pytest.mark.parametrize("steps", [5, pytest.param(STEPS, marks=pytest.mark.large)])
def test_steps_are_those_of_a_plain_loop(checkpoint: str, steps: int) -> None:
    # In a new process: after hundreds of other tests torch rounded once otherwise between the two, and edges of masks
    # magnify that.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        ours, theirs = pool.apply(both_ways, (checkpoint, steps))
    assert len(ours) == steps and abs(ours[-1]["loss_seg"] / ours[0]["loss_seg"] - 1) > 0.01
    assert worst(ours, theirs) < 1e-5


@pytest.fixture(scope="module")
def alone(checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`alone(steps)`: what one process saved."""
    return functools.cache(lambda steps: in_processes(checkpoint, tmp_path_factory.mktemp("alone"), 1, steps=steps))


@pytest.mark.large
@pytest.mark.parametrize(("parallel", "steps"), [("fsdp", 4), ("ddp", STEPS)])
def test_two_processes_with_half_a_batch_each_are_one_with_all(
    checkpoint: str, alone: Any, tmp_path: Path, parallel: str, steps: int
) -> None:
    there = in_processes(checkpoint, tmp_path, 2, parallel, steps)
    one = alone(steps)
    assert worst(there["losses"], one["losses"]) < 1e-6
    assert there["weights"].keys() == one["weights"].keys()
    for key, value in there["weights"].items():
        torch.testing.assert_close(value, one["weights"][key], rtol=1e-6, atol=1e-8)


@pytest.mark.large
def test_two_processes_are_one_also_in_float32_when_both_add_up_alike(checkpoint: str, tmp_path: Path) -> None:
    one, two = (in_processes(checkpoint, tmp_path, processes, number="float32") for processes in (1, 2))
    assert len(two["losses"]) == STEPS
    assert worst(two["losses"], one["losses"]) < 1e-4
    for key, value in two["weights"].items():
        torch.testing.assert_close(value, one["weights"][key], rtol=1e-4, atol=1e-6)
