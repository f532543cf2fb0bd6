"""From a model's name or a file of weights to a ready `Segmenter`, and back to a file that can do the same."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack, get_args

import torch
from torch import nn

from knet.calls import named_options
from knet.data.categories import as_table, load_categories
from knet.errors import CheckpointError, ConfigError, require, shown
from knet.files import exists, is_file
from knet.inference.engines.engine import DTYPES, Engine
from knet.inference.engines.network import TorchEngine
from knet.inference.engines.open import exported_form, open_exported
from knet.inference.own_classes import advice, listed_classes
from knet.inference.segmenter import Segmenter
from knet.inference.settings import Options, Settings, refuse_unknown
from knet.models.network import Network
from knet.models.realtime import RTKNet
from knet.models.zoo import ZOO, Merge, create, entry
from knet.structures import Category, Preprocessing
from knet.weights.card import Card
from knet.weights.fetch import in_folder, is_address, local, released_file
from knet.weights.load import Checkpoint, halved, load_strict, read_checkpoint, save_weights
from knet.weights.no_numbers import NoNumbers

_WEIGHT_FILES = (".safetensors", ".pth", ".pt")
_MOST_THREADS = 1024
_ASSETS = Path(__file__).parents[1] / "assets"


def load(
    model: str | Path,
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    merge: Merge | None = None,
    compile: bool = False,
    compatible: bool = False,
    threads: int | None = None,
    **options: Unpack[Options],
) -> Segmenter:
    """A model that is ready to segment images.

    Args:
        model: a name from `knet.models()`, a .safetensors file that `knet` wrote, the address of one (https://... or
            hf:owner/repository), or a file that `knet export` wrote (.onnx, .xml, .engine), which runs without torch's
            networks.
        weights: a file of weights or its address: an official checkpoint (.pth) or one of `knet`'s (.safetensors).
            Without it the weights that come with the package, or the published ones, which are fetched once.
        device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps".
        precision: "fp32", "bf16" or "fp16". "auto" is bf16 for RT-K-Net on processors that compute in it, and fp32
            elsewhere: see `choose_precision`.
        merge: how the masks of a panoptic model share the pixels: "optimised" is RT-K-Net's fast post-processing, at
            the size that the network saw, "sorted" is K-Net's, at the image's own. The default is the published one.
        compile: torch compiles the network, for each size of image: minutes at the first image, faster from then on.
        compatible: computes what the original code computes, its faults included, in fp32: to compare with published
            figures, and for nothing else. docs/models.md says what differs.
        threads: of the processor, for everything that this process computes; one for each core unless given.
        options: `size`, `score` and `overlap`, and of semantic models `scales`, `flip`, `window` and `stride`; see
            `knet.inference.settings.Options`. The defaults are the published ones.

    Raises:
        ConfigError: unknown model, device, precision or merge, an option out of range or not for this kind of model,
            or one that does not go with `compatible`.
        CheckpointError: missing, damaged or unsafe weights, or weights of another model.
        DownloadError: weights that are not on this machine cannot be fetched.
    """
    refuse_unknown(options, inspect.signature(load).parameters.keys() - {"options"})
    require(str | Path, "a name or a path", model=model)
    require(str | Path | None, "a path or an address", weights=weights)
    require(str, "a text", precision=precision)
    require(str | None, "a text", merge=merge)
    require(bool, "True or False", compile=compile, compatible=compatible)
    use_threads(threads)
    model = in_folder(model)
    if compatible:
        precision = exact_precision(model, precision, compile)
    if exported_form(model) is None:
        net, card = read_model(model, weights, merge)
        place = choose_device(device)
        engine = TorchEngine(net, place, choose_precision(precision, place, net), frozen=True, compile=compile)
        return segmenter_for(engine, card, compatible, **options)
    if compile:
        raise ConfigError(f"The exported file '{model}' is compiled already; leave compile (--compile) out.")
    if weights is not None:
        raise ConfigError(f"The exported file '{model}' holds its weights already; leave weights (--weights) out.")
    exported = open_exported(model, device, precision)
    card = _merging(exported.card, merge)
    if exported.merges and card.merge != exported.card.merge:
        raise ConfigError(
            f"'{model}' merges inside, the {exported.card.merge} way; leave merge (--merge) out, or export without "
            "--merge-inside."
        )
    return segmenter_for(exported, card, **options)


def read_model(
    model: str | Path, weights: str | Path | None = None, merge: Merge | None = None
) -> tuple[Network, Card]:
    """A network with its weights, and its card; see `load`."""
    model = in_folder(model)
    name: str | None = str(model)
    if weights is None and (is_address(model) or Path(model).suffix.lower() in _WEIGHT_FILES):
        name, weights = None, model
    weights = local(weights) if weights is not None else bundled_file(str(model)) or released_file(str(model))
    checkpoint = read_checkpoint(weights)
    card = _card(name, checkpoint, str(weights))
    net = _network(card, checkpoint, str(weights))
    return net, _merging(card, merge)


def bundled_file(model: str) -> Path | None:
    """The weights of a model that come with the package. Raises `ConfigError` if there is no such model."""
    bundled = entry(model).bundled
    return None if bundled is None else _ASSETS / bundled


def weights_file(place: str | Path) -> Path:
    """The file that `place` means: a path, an address, or a model's name for those in the package or published ones."""
    if str(place) not in ZOO or exists(place):
        return local(place)
    return bundled_file(str(place)) or released_file(str(place))


def _merging(card: Card, merge: Merge | None) -> Card:
    """The card with another way of merging, if one is asked for."""
    return card if merge is None else card.model_copy(update={"merge": choose_merge(card.model, merge)})


def segmenter_for(
    engine: Engine | Network, card: Card, compatible: bool = False, **options: Unpack[Options]
) -> Segmenter:
    """An engine, or a network to run by torch on the CPU in float32, as a `Segmenter`; options replace the card's."""
    settings = Settings(score=card.score, overlap=card.overlap).changed(card.task, options)
    return Segmenter(TorchEngine(engine) if isinstance(engine, Network) else engine, card, settings, compatible)


@named_options
def describe(
    model: str,
    arguments: dict[str, Any],
    categories: Sequence[Category],
    preprocessing: Preprocessing,
    score: float,
    overlap: float,
    merge: Merge | None = None,
    **more: Any,
) -> Card:
    """The card that makes a file of weights usable on its own: `save_weights` writes it, and `load` reads it.

    Args:
        arguments: those of the constructor that replace the model's own.
        categories: the class table, in label order.
        merge: see `load`; None is the model's own.
        more: anything else worth keeping beside the weights: the training config, figures, a licence.
    """
    row = entry(model)
    return Card.checked(
        model=model,
        arguments=arguments,
        categories=list(categories),
        preprocessing=preprocessing,
        score=score,
        overlap=overlap,
        task=row.task,
        merge=row.merge if merge is None else choose_merge(model, merge),
        **more,
    )


@named_options
def describe_official(
    model: str, arguments: dict[str, Any] | None = None, categories: Sequence[Category] | None = None
) -> Card:
    """`describe` for a model as published, or as its authors' code makes it for other `categories`.

    Raises:
        ConfigError: `arguments` change its classes.
    """
    row, arguments = entry(model), arguments or {}
    if arguments.keys() & {"classes", "stuff"}:
        raise ConfigError(
            f"The classes of '{model}' follow from a class table; leave classes and stuff out, and give the table of "
            "weights that know other classes: --classes FILE (categories=FILE in Python)."
        )
    if categories is not None:
        arguments = {**arguments, **class_arguments(model, categories)}
    classes = load_categories(row.categories) if categories is None else categories
    return describe(model, arguments, classes, row.preprocessing, row.score, row.overlap)


def class_arguments(model: str, categories: Sequence[Category]) -> dict[str, Any]:
    """The constructor arguments that follow from the classes: how many, and which have a kernel of their own."""
    stuff = [label for label, category in enumerate(categories) if not category.thing]
    return {"classes": len(categories)} | ({"stuff": stuff} if "stuff" in entry(model).arguments else {})


@named_options
def convert(
    source: str | Path,
    target: str | Path,
    model: str,
    half: bool = False,
    categories: str | Path | Sequence[Category] | None = None,
    **arguments: Any,
) -> Card:
    """Any checkpoint that fits a model to a .safetensors file that carries its name, class table and preprocessing.

    Args:
        source: an official checkpoint, or a file of `knet`'s.
        target: the .safetensors file to write.
        model: the model that the source was made for.
        half: store matrices and filters in float16, for half the size. They are used in float32 all the same; biases
            and norms, which need the range, stay float32.
        categories: the class table of a source that was trained on other data than the published one, in the order of
            its classes: a file, or rows. None takes the names that an OpenMMLab file lists, where all classes are of
            one kind, else the published table.
        arguments: constructor arguments that the source was made with, where they are not the model's own, such as
            channels=256.

    Returns:
        The card that was written.

    Raises:
        ConfigError: unknown model, or a target that is not a .safetensors file.
        CheckpointError: a source that is damaged, unsafe or made for another model.
    """
    require(str | Path, "a path", source=source, target=target)
    if Path(target).suffix != ".safetensors":
        raise ConfigError(f"The converted weights are a .safetensors file; '{target}' must end in .safetensors.")
    if is_file(source) and is_file(target) and Path(source).samefile(target):
        raise ConfigError(f"'{target}' is the source itself, which would be overwritten; give another target.")
    checkpoint = read_checkpoint(source)
    table = as_table(categories).categories if categories is not None else listed_classes(model, checkpoint, arguments)
    card = _card(model, checkpoint, str(source), arguments, table)
    state = _network(card, checkpoint, str(source)).state_dict()
    if half:
        state = halved(state, str(source))
    save_weights(target, state, card)
    return card


def _network(card: Card, checkpoint: Checkpoint, origin: str) -> Network:
    """The network that a card describes, with the weights of the checkpoint."""
    try:
        with torch.device("meta"), NoNumbers():  # its sizes alone: whatever a card says, it must not fill the memory
            planned = create(card.model, **card.arguments)
    except Exception as error:  # arguments of the right types that contradict each other fail in many ways
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"The model '{card.model}' cannot be built as the weights '{origin}' need it, with {card.arguments} "
            f"({reason}); give the arguments that they were made with."
        ) from error
    load_strict(planned, checkpoint.state, origin, advice=lambda: advice(card, checkpoint))
    divisor: int = planned.size_divisor
    if card.preprocessing.divisor % divisor:
        raise CheckpointError(
            f"The card of '{origin}' has a preprocessing.divisor that is no multiple of {divisor}, as '{card.model}' "
            "needs it; write the file anew."
        )
    net = create(card.model, **card.arguments)
    load_strict(net, checkpoint.state, origin)
    return net


def _card(
    model: str | None,
    checkpoint: Checkpoint,
    origin: str,
    arguments: dict[str, Any] | None = None,
    categories: Sequence[Category] | None = None,
) -> Card:
    """The card in the file, or, where it has none, that of the named model as published but for what is given."""
    card = checkpoint.card
    if card is None and model is None:
        raise CheckpointError(
            f"The weights file '{origin}' does not say which model it is for; give the model's name and the file with "
            "weights= (--weights on the command line)."
        )
    if card is None:
        return describe_official(str(model), arguments, categories)
    given = [*(arguments or ()), *([] if categories is None else ["--classes (categories)"])]
    if given:
        raise ConfigError(
            f"The weights in '{origin}' say themselves how their model was made; leave {', '.join(given)} out."
        )
    if model is not None and card.model != model:
        raise CheckpointError(
            f"The weights in '{origin}' were made for '{card.model}', not for '{model}'; load that model."
        )
    return card


def choose_merge(model: str, merge: str) -> str:
    """The way of merging, if there is one of this name and the model needs one; else ConfigError."""
    if merge not in get_args(Merge):
        raise ConfigError(f"There is no merge '{merge}'; it is one of: {', '.join(get_args(Merge))}.")
    if entry(model).task != "panoptic":
        raise ConfigError(
            f"The model '{model}' is for {entry(model).task} segmentation; the option merge is for panoptic models."
        )
    return merge


def use_threads(threads: int | None) -> None:
    """Sets with how many threads torch computes, and engines that are opened from now on; None leaves it."""
    if threads is None:
        return
    require(int, "a whole number", threads=threads)
    if not 1 <= threads <= _MOST_THREADS:
        fault = "few; give 1 or more" if threads < 1 else f"many; give {_MOST_THREADS} at most"
        raise ConfigError(f"threads={shown(threads)} (--threads) is too {fault}.")
    torch.set_num_threads(threads)


def choose_device(device: str) -> torch.device:
    """A device by name; "auto" is a GPU where there is one. ConfigError if it does not exist here."""
    require(str | int | torch.device, "'auto', 'cpu', 'cuda', or 'cuda:1' and the like", device=device)
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).cpu()  # the device "meta" holds nothing
    # torch has no class of its own for it
    except (RuntimeError, AssertionError, TypeError, ValueError, ImportError) as error:
        # The first sentence: what follows may be a list of all that torch was ever built for.
        reason = next(iter(str(error).splitlines()), type(error).__name__).split(". ")[0].rstrip(".")
        reason = "torch knows no such device" if reason.startswith("Expected one of") else reason
        raise ConfigError(f"The device {shown(device)} cannot be used here ({reason}); try 'auto' or 'cpu'.") from error
    return chosen


def choose_precision(precision: str, device: torch.device | None = None, net: nn.Module | None = None) -> str:
    """What a network computes in on a device (None: the CPU). ConfigError for a precision that there is not.

    "auto" is bf16 where the hardware computes in it and the network is an RT-K-Net: the bundled one's panoptic quality
    changes by less than 0.3 with it (benchmarks/precision.py). It is fp32 elsewhere, and for other models, of which
    there are no trained weights here to judge by.
    """
    if precision == "auto":
        quick = isinstance(net, RTKNet) and fast_in_bf16(device or torch.device("cpu"))
        return "bf16" if quick else "fp32"
    if precision not in DTYPES:
        raise ConfigError(f"The precision '{precision}' is not one of: auto, {', '.join(DTYPES)}.")
    return precision


def exact_precision(model: str | Path, precision: str, compile: bool) -> str:
    """What `compatible` computes in; ConfigError for whatever would compute otherwise than the original does."""
    if precision not in ("auto", "fp32"):
        raise ConfigError(
            f"compatible (--official) computes in fp32, not in {precision}; leave precision (--precision) out."
        )
    if compile:
        raise ConfigError("compatible (--official) runs the network as it is written; leave compile (--compile) out.")
    if exported_form(model):
        raise ConfigError(
            f"compatible (--official) needs torch's network, and '{model}' is an exported file; load the weights that "
            "it was made of."
        )
    if torch.get_float32_matmul_precision() != "highest":
        raise ConfigError(
            "compatible (--official) needs exact products; call torch.set_float32_matmul_precision('highest'), instead "
            f"of '{torch.get_float32_matmul_precision()}'."
        )
    return "fp32"


def fast_in_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16, in which it is faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
