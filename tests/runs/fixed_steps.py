"""Twenty updates on a fixed list of batches, from the originals' random weights.

Run as a script it is one of several processes. In float64 a process that is alone adds up as it likes, in float32 it
does so in the order in which two processes do, see `by_halves`:

RANK=0 WORLD_SIZE=2 LOCAL_RANK=0 python fixed_steps.py CHECKPOINT STEPS ddp|fsdp float64|float32 OUTPUT
"""

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from by_halves import ByHalves
from torch import nn

from knet.config import RunConfig
from knet.data.samples.batches import Batch
from knet.distributed import joined, rank, world
from knet.inference.load import describe_official
from knet.runs.build import build_network
from knet.runs.optimizer import adamw, learning_rate
from knet.runs.state import whole_weights
from knet.runs.step import train_step
from knet.structures import Target
from knet.training.criterion_rtknet import Criterion

IMAGES, SIZE = 4, (64, 64)
# The published recipe. Its slow warm-up keeps rounding errors small here: what the networks of random weights do is
# chaotic (masks have hard edges, and Adam's first steps are as large for a gradient of noise as for any other).
RATE, WARMUP, START, ITERATIONS, POWER, DECAY, MAX_NORM = 2e-4, 1000, 0.001, 90_000, 0.9, 0.05, 1.0
STEPS = 20


def batch_of(iteration: int) -> Batch:
    """Blocks of colour with one segment each, some of them void; the last image of every batch is smaller."""
    g = torch.Generator().manual_seed(iteration)
    images, targets = [], []
    for number in range(IMAGES):
        height, width = SIZE if number < IMAGES - 1 else (SIZE[0] - 20, SIZE[1])
        count = 3 + number
        blocks = torch.randint(0, count + 1, (4, 4), generator=g).repeat_interleave(16, 0).repeat_interleave(16, 1)
        ids = blocks[:height, :width]
        colors = torch.randint(0, 256, (count + 1, 3), generator=g)
        noise = torch.randint(-20, 21, (3, height, width), generator=g)
        images.append((colors[ids].permute(2, 0, 1) + noise).clamp(0, 255).to(torch.uint8))
        targets.append(Target(ids.int(), torch.randint(0, 19, (count,), generator=g)))
    return Batch(images, targets, list(range(IMAGES)), {})


def double() -> None:
    """From here on all numbers are float64, also where the package asks for float32."""
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]


def network(checkpoint: str, parallel: str = "ddp") -> tuple[nn.Module, nn.Module]:
    """The slim network with the given weights, and as it is trained."""
    config = RunConfig.model_validate(
        {
            "model": "rtknet-slim-cityscapes",
            "weights": checkpoint,
            "parallel": parallel,
            "data": {"val": {"images": "a", "json": "b", "masks": "c"}},
        }
    )
    card = describe_official(config.model, {"drop_path": 0.0})
    net, wrapped, _ = build_network(config, card, torch.device("cpu"))
    wrapped.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(torch.get_default_dtype()),))
    return net, wrapped


def run(checkpoint: str, steps: int, parallel: str = "ddp") -> tuple[list[dict[str, float]], nn.Module]:
    """The losses of each step, and the network after the last."""
    net, wrapped = network(checkpoint, parallel)
    criterion = Criterion()
    optimizer = adamw(net, RATE, DECAY)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    losses = []
    share = IMAGES // world()
    for iteration in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(iteration, ITERATIONS, RATE, WARMUP, START, POWER)
        batch = batch_of(iteration).part(rank() * share, (rank() + 1) * share)
        step = train_step(wrapped, criterion, optimizer, scaler, batch, seed=(0, iteration), max_norm=MAX_NORM)
        losses.append(step.losses)
    return losses, net


if __name__ == "__main__":
    torch.set_num_threads(1)
    checkpoint, steps, parallel, number, output = sys.argv[1:]
    if number == "float64":
        double()
    with joined(torch.device("cpu")):
        by_halves = number == "float32" and world() == 1
        with ByHalves(IMAGES) if by_halves else nullcontext():
            losses, net = run(checkpoint, int(steps), parallel)
        weights = whole_weights(net)
        if rank() == 0:
            torch.save({"losses": losses, "weights": weights}, output)
        Path(output).with_suffix(f".{rank()}.json").write_text(json.dumps(losses))
