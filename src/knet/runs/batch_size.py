"""`batch: auto`: as many images an iteration as the memory holds, and no more than the recipe or the data need."""

import math
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from knet.config import RunConfig, load_config
from knet.distributed import gather_objects, world
from knet.errors import ConfigError
from knet.files import is_file
from knet.models.clip import ClipKNet
from knet.models.zoo import create
from knet.runs.build import on_frames
from knet.runs.frames import TwoFrames
from knet.runs.samples import CLIP
from knet.runs.step import AUTOCAST
from knet.weights.card import Card

_OVERHEAD = 2.0  # a step in proportion to what its forward pass keeps: gradients, losses, matching, workspace
_STATE = 16  # bytes a parameter: the weight, its gradient, and two means of the optimiser
_SHARE = {"cuda": 0.8, "cpu": 0.5}  # of the free memory; a machine without a GPU has other work as well
_CPU = 8  # a CPU computes an image of a larger batch no faster
_USUAL = 32  # where a recipe does not say what batch its learning rate is meant for


def with_batch(config: RunConfig, card: Card, images: int, device: torch.device, resume: bool) -> tuple[RunConfig, str]:
    """The config with a number for `batch: auto`, and a line that says which and why; a resumed run keeps its own."""
    if config.batch != "auto":
        return config, ""
    if resume:
        return config.model_copy(update={"batch": _kept(config.output)}), ""
    held, free = bytes_for_image(config, card), free_memory(device)
    fixed = _STATE * _parameters(card)
    fits = min(gather_objects(max(math.floor((free * _SHARE.get(device.type, 0.5) - fixed) / held), 1)))
    limits = {
        f"an image takes some {held / 1e9:.2g} GB, and {free / 1e9:.3g} GB are free": fits
        * world()
        * config.accumulate,
        f"the learning rate is meant for {config.optimizer.for_batch}": config.optimizer.for_batch or _USUAL * 1000,
        "more is seldom of use": _USUAL,
        f"there are {images} images": images,
    }
    if device.type == "cpu":
        limits["a CPU computes no faster with more"] = _CPU * world()
    why = min(limits, key=lambda reason: limits[reason])
    step = world() * config.accumulate
    batch = max(2 ** math.floor(math.log2(max(limits[why], 1))) // step * step, step)
    return config.model_copy(update={"batch": batch}), f"batch {batch} (auto): {why}; batch=N sets another"


def _kept(folder: Path) -> int:
    """The batch of the run in a folder."""
    path = folder / "config.yaml"
    batch = load_config(path).batch if is_file(path) else "auto"
    if batch == "auto":
        raise ConfigError(f"'{path}' does not say which batch its run has; resume with batch=N.")
    return int(batch)


def bytes_for_image(config: RunConfig, card: Card) -> int:
    """What a training step needs for an image, as far as it grows with their number; nothing is computed."""
    height, width = _size(config)
    kept: dict[int, int] = {}
    alive = []
    with FakeTensorMode():
        net = create(config.model, **card.arguments)
        wrapped = on_frames(net).train()
        own = {tensor.untyped_storage()._cdata for tensor in [*net.parameters(), *net.buffers()]}
        inputs = [torch.empty(2 * (CLIP if isinstance(net, ClipKNet) else 1), 3, height, width)]
        inputs *= 2 if isinstance(wrapped, TwoFrames) else 1

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            alive.append(storage)  # else another could get its address
            if storage._cdata not in own:
                kept[storage._cdata] = storage.nbytes()
            return tensor

        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", AUTOCAST[config.precision], enabled=config.precision != "fp32"),
        ):
            wrapped(*inputs)
    return round(_OVERHEAD * sum(kept.values()) / 2)


def free_memory(device: torch.device) -> int:
    """The bytes that nobody uses: of the GPU, or of the machine and what this process may have of it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    rows = dict(row.split(":") for row in Path("/proc/meminfo").read_text().splitlines())
    free = 1024 * int(rows["MemAvailable"].split()[0])
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if is_file(limit) and is_file(used) and limit.read_text().strip().isdecimal():
        free = min(free, max(int(limit.read_text()) - int(used.read_text()), 0))
    return free


def _size(config: RunConfig) -> tuple[int, int]:
    """Height and width of the largest image that training sees, padded."""
    options = config.augment
    if options is None:
        raise ConfigError("The config has no 'augment'; training needs at least augment.short_edges.")
    short = round(max(options.short_edges) * options.ratio[1])
    long = round(min(2 * short, options.max_edge * options.ratio[1]))
    height, width = options.crop or (short, long)
    if options.pad is not None:
        height, width = max(height, options.pad[0]), max(width, options.pad[1])
    return -(-height // 32) * 32, -(-width // 32) * 32


def _parameters(card: Card) -> int:
    with FakeTensorMode():
        return sum(parameter.numel() for parameter in create(card.model, **card.arguments).parameters())
