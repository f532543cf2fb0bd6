"""One training step: forward, backward, and an update of the weights."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm

from knet.data.samples.batches import Batch
from knet.data.samples.pairs import PairBatch
from knet.distributed import gather_numbers, mean_over_processes, rank
from knet.preprocess import normalize_and_pad
from knet.runs.build import delay_gradients
from knet.structures import Preprocessing
from knet.training.criterion import GRID, CriterionLike

AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_IMAGENET = Preprocessing(0, 0)  # mean and std of the ImageNet weights that most backbones start from
_PIXEL_STREAM, _NETWORK_STREAM = 3, 4  # keep random numbers for different uses apart, see `knet.data.samples.batches`


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of a training step, the same in all processes."""

    losses: dict[str, float]  # weighted losses of the whole batch, by name
    gradient_norm: float  # of the whole gradient before clipping
    taken: bool  # whether the weights changed; not if a loss or, in fp32 and bf16, the gradient is not finite
    asked: bool  # whether `asked` was set in any process, see `train_step`


def train_step(
    wrapped: nn.Module,
    criterion: CriterionLike,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    batch: Batch | PairBatch,
    *,
    seed: tuple[int, int] = (0, 0),
    precision: str = "fp32",
    max_norm: float = 1.0,
    parts: int = 1,
    asked: bool = False,
    values: Preprocessing = _IMAGENET,
    frozen: bool = False,
) -> StepResult:
    """Updates the weights once, on this process's share of a batch.

    Args:
        wrapped: the network, possibly wrapped for frames or for several processes, see `build_network`.
        scaler: the loss scale of fp16; disabled in other precisions.
        batch: images (3,h,w) uint8 of any sizes, and their targets; the same number in every process.
        seed: of the run, and the number of the iteration; all random numbers follow from these two.
        max_norm: the whole gradient is scaled down to this norm.
        parts: number of parts that the share is processed in. Batch norms see one part at a time.
        asked: a flag that every process learns of if it is set in any.
        values: the mean and std that the network sees images with, see `normalize_and_pad`.
        frozen: whether batch norms use and keep the statistics that they have, as in inference.
    """
    device = next(wrapped.parameters()).device
    wrapped.train()
    if frozen:
        for module in wrapped.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
    # All processes pad to the same size, so that no result depends on which images lie in which process.
    sides = [max(image.shape[side] for images in batch.frames for image in images) for side in (1, 2)]
    height, width = gather_numbers(sides).amax(0).tolist()
    torch.manual_seed(int(np.random.SeedSequence([_NETWORK_STREAM, *seed, rank()]).generate_state(1)[0]))
    optimizer.zero_grad(set_to_none=True)
    statistics = [buffer.clone() for buffer in wrapped.buffers()]
    counts = None
    sums: dict[str, Tensor] = {}
    share = len(batch) // parts
    for number in range(parts):
        delay_gradients(wrapped, delay=number < parts - 1)
        part = batch.part(number * share, (number + 1) * share).to(device)
        inputs = [normalize_and_pad(images, values, least=(height, width)) for images in part.frames]
        inputs = [images.contiguous(memory_format=torch.channels_last) for images in inputs]
        with torch.autocast(device.type, AUTOCAST[precision], enabled=precision != "fp32"):
            outputs = wrapped(*inputs)
        if counts is None:
            counts = criterion.count(batch.targets, outputs[0].mask_logits.shape[1], parts)
        noise = pixel_noise(seed, part.positions, inputs[0].shape[2] // GRID * (inputs[0].shape[3] // GRID))
        losses = criterion(outputs, part.targets, noise, counts)
        total = torch.stack(list(losses.values())).sum() / parts
        scaler.scale(total).backward()
        sums = {name: sums.get(name, 0) + loss.detach() / parts for name, loss in losses.items()}
    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(wrapped.parameters(), max_norm)
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm  # that of sharded weights is itself in shares
    shared = mean_over_processes(torch.stack([*sums.values(), torch.tensor(float(asked), device=device)]))
    *numbers, flag, gradient_norm = torch.cat([shared, norm.detach().reshape(1)]).tolist()  # one copy to the host
    taken = all(map(math.isfinite, numbers)) and (scaler.is_enabled() or math.isfinite(gradient_norm))
    if taken:
        scaler.step(optimizer)  # leaves the step out, and lowers the scale, where fp16 gradients overflowed
    else:  # what is not finite must not stay in the running means of batch norms either
        for buffer, before in zip(wrapped.buffers(), statistics, strict=True):
            buffer.copy_(before)
    scaler.update()
    return StepResult(dict(zip(sums, numbers, strict=True)), gradient_norm, taken, flag > 0)


def pixel_noise(seed: tuple[int, int], positions: list[int], pixels: int) -> Tensor:
    """Uniform noise, 0..1, a row for each position in the whole batch, whichever process has it. -> (B, pixels)"""
    streams = [np.random.SeedSequence([_PIXEL_STREAM, *seed, position]) for position in positions]
    rows = [torch.Generator().manual_seed(int(stream.generate_state(1)[0])) for stream in streams]
    return torch.stack([torch.rand(pixels, generator=row) for row in rows])
