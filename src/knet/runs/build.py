"""From a config to the parts of a run: card, network, losses and learning rate."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from knet import __version__
from knet.config import RunConfig
from knet.data.categories import load_categories
from knet.data.readers.reader import Reader
from knet.distributed import synchronize_norms, world
from knet.errors import ConfigError
from knet.inference.load import describe, weights_file
from knet.models.clip import ClipKNet
from knet.models.image import KNet
from knet.models.network import Network
from knet.models.semantic import KNetSemantic
from knet.models.video import RTVideoKNet, VideoKNet
from knet.models.zoo import create, entry
from knet.runs.frames import PairLosses, TwoFrames, WholeClips
from knet.runs.samples import CLIP
from knet.runs.strided import skip_pixels_first
from knet.structures import Category
from knet.training.criterion import CriterionLike
from knet.training.criterion_clip import ClipCriterion
from knet.training.criterion_image import KNetCriterion
from knet.training.criterion_rtknet import Criterion
from knet.training.criterion_semantic import SemanticCriterion
from knet.training.criterion_video import FrameCriterion, VideoCriterion
from knet.weights.backbone import load_backbone
from knet.weights.card import Card
from knet.weights.classes import KERNELS, class_count, class_layers, with_classes, with_kernels
from knet.weights.fetch import local
from knet.weights.fitting import fitting
from knet.weights.imagenet import imagenet_file
from knet.weights.load import Checkpoint, load_strict, read_checkpoint


def run_card(config: RunConfig, categories: Sequence[Category]) -> Card:
    """The card of the weights that a run with these classes saves, see `describe`."""
    row = entry(config.model)
    p = row.preprocessing
    follow: dict[str, Any] = {"classes": len(categories)}
    if "stuff" in row.arguments or config.stuff_kernels:  # a network with a kernel for each such class
        stuff = [label for label, category in enumerate(categories) if not category.thing]
        follow["stuff"] = [] if config.stuff_kernels is False else stuff
    for name, value in follow.items():
        if (given := config.arguments.get(name, value)) != value:
            raise ConfigError(
                f"arguments.{name}={given} contradicts the data, by whose classes it is {value}; leave it out."
            )
    arguments = {**config.arguments, **follow}
    short, long = config.short_edge or p.short_edge, config.max_edge or p.max_edge
    resize = p.resize or bool(config.short_edge or config.max_edge)
    preprocessing = replace(p, short_edge=short, max_edge=long, resize=resize)
    score = row.score if config.score is None else config.score
    overlap = row.overlap if config.overlap is None else config.overlap
    thresholds = score, overlap, config.merge
    return describe(config.model, arguments, categories, preprocessing, *thresholds, version=__version__)


def made_for(card: Card, dataset: Reader) -> dict[str, Any]:
    """What must be the same when a run is resumed: model, classes and training images."""
    names = [dataset.name(index) for index in range(len(dataset))]
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    return {
        "model": [card.model, *(f"{key}={value}" for key, value in sorted(card.arguments.items()))],
        "class table": [category.name for category in card.categories],
        "data set": f"{len(names)} images, {names[0]} to {names[-1]}, {digest}",
    }


_VIDEO_LAYERS = {"link", "fusion", "carry", "embedding", "clip_stages"}  # image networks do not have them


def load_first(net: nn.Module, config: RunConfig, card: Card) -> str:
    """Loads the weights that a run starts from; returns a line that says which they are, "" for random ones.

    Weights for other classes than the card's are taken over as far as the names of classes are the same.
    """
    if config.weights is not None and config.backbone_weights is not None:
        raise ConfigError("A run starts from weights or from backbone_weights; leave one of them out.")
    if config.backbone_weights is not None:
        place = config.backbone_weights
        path = imagenet_file(net.backbone) if str(place) == "imagenet" else local(place)  # type: ignore[arg-type]
        return load_backbone(net, read_checkpoint(path).state, str(place))
    if config.weights is None:
        return ""
    checkpoint = read_checkpoint(weights_file(config.weights))
    state, own = checkpoint.state, net.state_dict()
    origin = f"all weights are from '{config.weights}'"
    names = [category.name for category in card.categories]
    layers = class_layers(config.model, card.arguments)
    learned = learned_classes(checkpoint, class_count(state, layers))
    # A file that does not say what its classes are has the run's if their number fits.
    if learned is None and any(key in state and state[key].shape != own[key].shape for key in layers):
        learned = [category.name for category in load_categories(entry(config.model).categories)]
    if learned is not None and learned != names:
        state, kept = with_classes(state, own, layers, learned, names)
        origin = f"{origin}, but those of {len(names) - len(kept)} of the {len(names)} classes, which start anew"
    state, anew = with_kernels(state, own)
    origin += f"; {anew} of the {len(own[KERNELS])} kernels start anew" if anew else ""
    added = added_to_image_model(net, state)
    advice = "Weights of a backbone alone are given as backbone_weights=FILE."
    load_strict(net, state | added, str(config.weights), lambda: f"{fitting(checkpoint.state)} {advice}")
    if not added:
        return origin
    return f"'{config.weights}' is an image model: {len(added)} tensors that only videos need start anew"


def learned_classes(checkpoint: Checkpoint, count: int | None) -> list[str] | None:
    """The names of the classes that weights know, None where the file does not say it."""
    if checkpoint.card is not None:
        return [category.name for category in checkpoint.card.categories]
    return list(checkpoint.classes) if checkpoint.classes and len(checkpoint.classes) == count else None


def added_to_image_model(net: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What weights of an image model lack of a video network made of it, by name; nothing if they lack more than that.

    Links and embeddings stay as they are; clip stages begin as the image model's own, as in the official code.
    """
    own = net.state_dict()
    lacking = own.keys() - state.keys()
    if not all(_VIDEO_LAYERS & set(key.split(".")) for key in lacking):
        return {}
    return {key: state.get(key.replace("clip_stages", "decoder.stages"), own[key]) for key in lacking}


def build_network(config: RunConfig, card: Card, device: torch.device) -> tuple[Network, nn.Module, str]:
    """The network with its first weights on its device, the same wrapped to be trained, and the line of `load_first`.

    It is wrapped to take several frames where it needs them, and to train in all processes.
    """
    if config.parallel == "fsdp" and config.precision == "fp16":
        raise ConfigError("parallel=fsdp does not go with precision=fp16; train with precision=bf16 or fp32.")
    torch.manual_seed(config.seed)
    net = create(config.model, **card.arguments)
    origin = load_first(net, config, card)
    net = cast(Network, synchronize_norms(net, device)).to(device)
    if device.type == "cpu":
        skip_pixels_first(net)
    if config.parallel == "ddp" or world() == 1:  # FSDP wants its weights contiguous
        net = net.to(memory_format=torch.channels_last)
    if config.compile:
        net.compile()
    wrapped = on_frames(net)
    if world() == 1:
        return net, wrapped, origin
    if config.parallel == "fsdp":
        for name, child in net.named_children():
            # Weights that the network reads itself are whole in its forward only if they are not a layer's share.
            if name not in net.kernel_layers:
                for part in child if isinstance(child, nn.ModuleList) else (child,):
                    fully_shard(part)
        fully_shard(wrapped)
        return net, wrapped, origin
    ids = [device.index] if device.type == "cuda" else None
    # Batch norms see the same statistics everywhere, so nothing has to be sent around between the steps.
    return net, DistributedDataParallel(wrapped, ids, forward_sync_buffers=False, gradient_as_bucket_view=True), origin


def on_frames(net: nn.Module) -> nn.Module:
    """The network, wrapped if it needs several frames at once, for the images of a `Batch` or a `PairBatch`."""
    if isinstance(net, VideoKNet | RTVideoKNet):
        return TwoFrames(net)
    return WholeClips(net, CLIP) if isinstance(net, ClipKNet) else net


def delay_gradients(wrapped: nn.Module, delay: bool) -> None:
    """Sets whether backward passes keep gradients in each process for now, as more parts of the batch follow."""
    if isinstance(wrapped, FSDPModule):
        wrapped.set_requires_gradient_sync(not delay)
    elif isinstance(wrapped, DistributedDataParallel):
        wrapped.require_backward_grad_sync = not delay


def build_criterion(config: RunConfig, net: Network, card: Card) -> CriterionLike:
    """The losses of a network, with the config's weights; the card tells things from stuff."""
    weights = config.losses
    if isinstance(net, KNetSemantic):
        return SemanticCriterion(semantic_weight=weights.semantic, stride=net.stride)
    shared: dict[str, Any] = {"class_weight": weights.classes, "mask_weight": weights.mask}
    shared |= {"dice_weight": weights.dice, "rank_weight": weights.rank, "semantic_weight": weights.semantic}
    instances: dict[str, Any] = {"instance_weight": weights.instance}
    instances |= {"pixels": weights.pixels, "match_pixels": weights.match_pixels}
    stuff = tuple(net.stuff)
    if isinstance(net, ClipKNet):
        return ClipCriterion(frames=CLIP, **shared)
    if isinstance(net, VideoKNet | RTVideoKNet):
        own = FrameCriterion(stuff=stuff, **shared) if stuff else Criterion(**instances, **shared)
        no_objects = tuple(label for label, category in enumerate(card.categories) if not category.thing)
        learned = {"track_weight": weights.track, "similarity_weight": weights.similarity}
        across, steady = isinstance(net, RTVideoKNet), net.decoder.carry is not None
        tracks = VideoCriterion(frame=own, stuff=no_objects, across=across, steady=steady, **learned)
        return PairLosses(tracks, net.embed)
    if isinstance(net, KNet) or stuff:  # RT-K-Net with kernels for stuff learns as K-Net does
        return KNetCriterion(stuff=stuff, **shared)
    return Criterion(**instances, **shared)


def scaled_learning_rate(config: RunConfig) -> tuple[float, str]:
    """The learning rate for the config's batch, and a line that says so ("" if it is the config's own)."""
    given, meant_for = config.optimizer.learning_rate, config.optimizer.for_batch
    batch = int(config.batch)
    if meant_for is None or meant_for == batch:
        return given, ""
    rate = given * batch / meant_for
    return rate, (
        f"learning rate {rate:.3g}: {given:.3g} is meant for a batch of {meant_for} and is scaled to "
        f"{batch} (optimizer.for_batch=null leaves it)"
    )
