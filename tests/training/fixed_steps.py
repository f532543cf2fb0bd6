"""Twenty updates on a fixed list of batches: from the originals' random weights, or from the bundled model's.

Run as a script it is one of several processes. With a checkpoint of the originals everything is float64, with "bundled"
everything is float32 and the images are photographs:

RANK=0 WORLD_SIZE=2 LOCAL_RANK=0 python fixed_steps.py CHECKPOINT|bundled STEPS PARALLEL OUTPUT
"""

import functools
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import knet
from knet.config import RunConfig
from knet.data.batches import Batch
from knet.structures import Target
from knet.training.build import build_network
from knet.training.criterion import Criterion
from knet.training.distributed import joined, rank, world
from knet.training.optimizer import adamw, learning_rate
from knet.training.state import whole_weights
from knet.training.step import train_step

IMAGES, SIZE = 4, (64, 64)
# The published recipe. Its slow warm-up keeps rounding errors small here: what the networks of random weights do is
# chaotic (masks have hard edges, and Adam's first steps are as large for a gradient of noise as for any other).
RATE, WARMUP, START, ITERATIONS, POWER, DECAY, CLIP = 2e-4, 1000, 0.001, 90_000, 0.9, 0.05, 1.0
STEPS = 20
ASSETS = Path(knet.__file__).parent / "assets"
BUNDLED, PHOTOGRAPHS = ASSETS / "rtknet-slim-camvid.safetensors", ASSETS / "demo"


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


def photographs_of(iteration: int) -> Batch:
    """Windows of the demo's photographs with the segments that the bundled model sees in them."""
    model, (height, width) = bundled(), (192, 256)
    images, targets = [], []
    for number, path in enumerate(sorted(PHOTOGRAPHS.glob("*.jpg"))[:IMAGES]):
        with Image.open(path) as file:
            zoom = 1.2 * height / min(file.size)
            picture = np.asarray(file.convert("RGB").resize((round(zoom * file.width), round(zoom * file.height))))
        rng = np.random.default_rng([iteration, number])
        top, left = rng.integers(0, [picture.shape[0] - height + 1, picture.shape[1] - width + 1])
        image = np.ascontiguousarray(picture[top : top + height, left : left + width])
        result = model(image)
        ids = np.zeros((height, width), np.int32)
        for place, segment in enumerate(result.segments, start=1):
            ids[result.mask(segment)] = place
        categories = [category.id for category in result.categories]
        labels = torch.tensor([categories.index(segment.category) for segment in result.segments])
        images.append(torch.from_numpy(image).permute(2, 0, 1))
        targets.append(Target(torch.from_numpy(ids), labels))
    return Batch(images, targets, list(range(IMAGES)), {})


@functools.cache
def bundled() -> knet.Segmenter:
    return knet.load("rtknet-slim-camvid", device="cpu", precision="fp32")


def double() -> None:
    """From here on all numbers are float64, also where the package asks for float32."""
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]


def network(checkpoint: str, parallel: str = "ddp") -> tuple[nn.Module, nn.Module]:
    """The slim network with the given weights, and as it is called."""
    model = "rtknet-slim-camvid" if checkpoint == "bundled" else "rtknet-slim-cityscapes"
    config = RunConfig.model_validate(
        {
            "model": model,
            "weights": BUNDLED if checkpoint == "bundled" else checkpoint,
            "parallel": parallel,
            "data": {"val": {"images": "a", "json": "b", "masks": "c"}},
        }
    )
    card = {"arguments": {"drop_path": 0.0, "classes": len(bundled().categories) if checkpoint == "bundled" else 19}}
    net, called, _ = build_network(config, card, torch.device("cpu"))
    called.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(torch.get_default_dtype()),))
    return net, called


def run(checkpoint: str, steps: int, parallel: str = "ddp") -> tuple[list[dict[str, float]], nn.Module]:
    """The losses of each step, and the network after the last."""
    net, called = network(checkpoint, parallel)
    criterion = Criterion()
    optimizer = adamw(net, RATE, DECAY)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    losses = []
    share = IMAGES // world()
    for iteration in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(iteration, ITERATIONS, RATE, WARMUP, START, POWER)
        whole = photographs_of(iteration) if checkpoint == "bundled" else batch_of(iteration)
        batch = whole.part(rank() * share, (rank() + 1) * share)
        step = train_step(called, criterion, optimizer, scaler, batch, seed=(0, iteration), clip=CLIP)
        losses.append(step.losses)
    return losses, net


if __name__ == "__main__":
    torch.set_num_threads(1)
    checkpoint, steps, parallel, output = sys.argv[1:]
    if checkpoint != "bundled":
        double()
    with joined(torch.device("cpu")):
        losses, net = run(checkpoint, int(steps), parallel)
        weights = whole_weights(net)
        if rank() == 0:
            torch.save({"losses": losses, "weights": weights}, output)
        Path(output).with_suffix(f".{rank()}.json").write_text(json.dumps(losses))
