"""From a config to the parts of a run: data, augmentation, network, losses."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from knet import __version__
from knet.config import Data, PanopticFiles, RunConfig
from knet.data.categories import load_categories, load_table
from knet.data.coco_panoptic import CocoPanoptic
from knet.data.transforms import TrainAugmentation
from knet.errors import ConfigError
from knet.inference.load import describe
from knet.models.zoo import create, entry
from knet.structures import Category, Preprocessing
from knet.training.criterion import Criterion
from knet.training.distributed import synchronize_norms, world
from knet.weights.load import load_strict, read_checkpoint


def open_data(data: Data, files: PanopticFiles | None, categories: Sequence[Category] | None = None) -> CocoPanoptic:
    """One data set of a config, with the given classes, else those of the config's table, else of its own JSON."""
    if files is None:
        raise ConfigError("The config has no 'data.train'; give its images, json and masks.")
    if categories is None and data.categories is not None:
        categories = load_categories(data.categories)
    return CocoPanoptic(data.root / files.images, data.root / files.json_file, data.root / files.masks, categories)


def augmentation_of(config: RunConfig) -> TrainAugmentation:
    """The config's augmentation; a class table that tells left from right swaps such classes in mirror images."""
    a = config.augment
    if a is None:
        raise ConfigError("The config has no 'augment'; training needs at least augment.short_edges and augment.crop.")
    flips = load_table(config.data.categories).flip_labels if config.data.categories is not None else None
    return TrainAugmentation(
        a.short_edges, a.max_edge, a.crop, a.flip, a.color, a.pad, instance_crop=a.instance_crop, flip_labels=flips
    )


def run_card(config: RunConfig, categories: Sequence[Category]) -> dict[str, Any]:
    """What weights of this run will say of themselves, see `describe`."""
    row = entry(config.model)
    p = row.preprocessing
    return describe(
        config.model,
        {**config.arguments, "classes": len(categories)},
        categories,
        Preprocessing(config.short_edge or p.short_edge, config.max_edge or p.max_edge),
        row.score if config.score is None else config.score,
        row.overlap if config.overlap is None else config.overlap,
        version=__version__,
    )


def made_for(card: dict[str, Any], dataset: CocoPanoptic) -> dict[str, Any]:
    """What a run's state fits: a run can only go on with the same model, classes and training images."""
    names = [dataset.name(index) for index in range(len(dataset))]
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    return {
        "model": [card["model"], *(f"{key}={value}" for key, value in sorted(card["arguments"].items()))],
        "class table": [row["name"] for row in card["categories"]],
        "data set": f"{len(names)} images, {names[0]} to {names[-1]}, {digest}",
    }


def build_network(config: RunConfig, card: dict[str, Any], device: torch.device) -> tuple[nn.Module, nn.Module]:
    """The network with its first weights, and the same as it is to be called: compiled, shared by all processes."""
    if config.parallel == "fsdp" and config.precision == "fp16":
        raise ConfigError("parallel=fsdp does not go with precision=fp16; train with precision=bf16 or fp32.")
    torch.manual_seed(config.seed)
    net = create(config.model, **card["arguments"])
    if config.weights is not None:
        load_strict(net, read_checkpoint(config.weights).state, str(config.weights))
    net = synchronize_norms(net, device).to(device)
    if config.parallel == "ddp" or world() == 1:  # FSDP wants its weights contiguous
        net = net.to(memory_format=torch.channels_last)
    if config.compile:
        net.compile()
    if world() == 1:
        return net, net
    if config.parallel == "fsdp":
        for child in net.children():
            fully_shard(child)
        fully_shard(net)
        return net, net
    ids = [device.index] if device.type == "cuda" else None
    # Batch norms see the same statistics everywhere, so nothing has to be sent around between the steps.
    return net, DistributedDataParallel(net, ids, broadcast_buffers=False, gradient_as_bucket_view=True)


def delay_gradients(called: nn.Module, delay: bool) -> None:
    """Whether backward passes leave gradients in each process for now, because more parts of the batch follow."""
    if isinstance(called, FSDPModule):
        called.set_requires_gradient_sync(not delay)
    elif isinstance(called, DistributedDataParallel):
        called.require_backward_grad_sync = not delay


def build_criterion(config: RunConfig) -> Criterion:
    """The losses with the config's weights."""
    w = config.losses
    return Criterion(
        class_weight=w.classes,
        mask_weight=w.mask,
        dice_weight=w.dice,
        rank_weight=w.rank,
        semantic_weight=w.semantic,
        instance_weight=w.instance,
        pixels=w.pixels,
        match_pixels=w.match_pixels,
    )


def scaled_learning_rate(config: RunConfig) -> tuple[float, str]:
    """The learning rate for the config's batch, and the sentence that tells the user of it ("" where unchanged)."""
    o = config.optimizer
    if o.for_batch is None or o.for_batch == config.batch:
        return o.learning_rate, ""
    rate = o.learning_rate * config.batch / o.for_batch
    return rate, (
        f"learning rate {rate:.3g}: {o.learning_rate:.3g} is meant for a batch of {o.for_batch} and is scaled to "
        f"{config.batch} (optimizer.for_batch=null leaves it)"
    )
