"""Exported models: what the graphs that `knet export` writes have in common, whichever runtime runs them."""

import importlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from knet.errors import CheckpointError, ConfigError, KNetError, enough_memory, memory_asked
from knet.files import is_file
from knet.merge.panoptic import MergedMasks
from knet.models.clip import clip_result
from knet.models.network import Network
from knet.structures import Output
from knet.weights.card import Card, GraphCard

T = TypeVar("T")
Shape: TypeAlias = tuple[int | None, ...]  # None is any length

_PACKAGES = {  # optional ones, and pip's argument for each
    **dict.fromkeys(("onnx", "onnxscript", "onnxruntime"), "'knet[export]'"),
    "openvino": "'knet[openvino]'",
    "tensorrt": "tensorrt",
}


def need(*modules: str, what: str = "This") -> None:
    """Checks that optional packages are installed. Raises `ConfigError`, with what to install, if one is missing.

    Args:
        what: that needs them, for the error.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(
                f"{what} needs the package {module}, which is not installed ({error}); install it with: "
                f"pip install {_PACKAGES[module]}"
            ) from error


@dataclass(slots=True)
class MergedOutput(Output):
    """The output of a graph with the merge inside, for one image."""

    merged: MergedMasks | None = None


class Pool(Generic[T]):
    """Things that serve one call at a time: a call takes an idle one, or a new one where all are at work."""

    def __init__(self, make: Callable[[], T]):
        self._make, self._idle = make, deque([make()])

    @contextmanager
    def one(self) -> Iterator[T]:
        """One of them, for the calls of this thread alone."""
        try:
            mine = self._idle.pop()  # which no other thread gets
        except IndexError:
            mine = self._make()
        try:
            yield mine
        finally:
            self._idle.append(mine)


class GraphEngine(ABC):
    """An exported graph as an `Engine`: what all formats share. `merges` tells whether the merge is inside."""

    name: str
    net: Network | None = None
    asked: tuple[str, str]  # the device and the precision that it was opened with

    def __init__(self, path: Path, card: Card, graph: GraphCard, precision: str, device: str = "cpu"):
        self.path, self.card, self.graph, self.precision = path, card, graph, precision
        self.device = torch.device(device)
        self.stuff: Sequence[int] = graph.stuff
        self.embeds, self.merges = graph.embeds, graph.merge_inside

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled is where the file is, which is opened again."""
        return type(self), (self.path, *self.asked)

    @abstractmethod
    def run(self, inputs: dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Runs the graph: inputs by name -> outputs by name, contiguous tensors on the engine's device.

        Several threads may call it at the same time, and each gets tensors of its own.
        """

    def __call__(
        self, inputs: Tensor, previous: Tensor | None = None, resized: tuple[int, int] | None = None
    ) -> list[Output]:
        """As `Engine`, for one image, or for the frames of one clip (T,3,h,w) -> the output of the clip."""
        if self.merges and resized is None:
            resized = (inputs.shape[2], inputs.shape[3])
        out = self._run(inputs, previous, resized if self.merges else None)
        none = torch.empty(0)
        classes = out.get("class_logits")
        output = MergedOutput(
            kernels=out.get("kernels", none),
            mask_logits=out.get("mask_logits", none),
            class_logits=classes,
            features=none,
            semantic_logits=out.get("semantic_logits"),
            linked=out.get("embeddings"),
        )
        if self.merges:
            owner, scores, labels = (out[name][0] for name in ("owner", "scores", "labels"))
            self._check_classes(int(labels.max()) + 1, at_most=True)
            if owner.min() < -1 or owner.max() >= len(scores) or labels.min() < 0:
                raise CheckpointError(
                    f"The graph in '{self.path}' names masks or classes that it does not have; export the model again."
                )
            areas = torch.bincount(owner.flatten().long() + 1, minlength=len(scores) + 1)[1:]
            output.merged = MergedMasks(owner, areas, labels.long(), scores, torch.arange(len(scores)))
        else:
            self._check_classes(output.mask_logits.shape[1] if classes is None else classes.shape[-1])
        return [output]

    def merged(self, output: Output, score: float, overlap: float) -> MergedMasks | None:
        """See `Engine`."""
        own = self.card.score, self.card.overlap
        if self.merges and (score, overlap) != own:
            raise ConfigError(
                f"This file merges inside, with score {own[0]} and overlap {own[1]}, not {score} and {overlap}; leave "
                "the thresholds out, or export without --merge-inside."
            )
        return output.merged if isinstance(output, MergedOutput) else None

    def look(self, frame: Tensor) -> tuple[Tensor, ...]:
        """See `Engine`. The frame itself, since a graph sees all of them at once."""
        return (frame,)

    def link(self, frames: list[tuple[Tensor, ...]]) -> tuple[Tensor, Tensor]:
        """See `Engine`."""
        clip = torch.cat([frame for (frame,) in frames])
        frames.clear()
        return clip_result(self(clip))

    def _run(self, inputs: Tensor, previous: Tensor | None, resized: tuple[int, int] | None) -> dict[str, Tensor]:
        fed = {"images": self.fitted(inputs).float().contiguous()}
        if self.graph.previous is not None:
            zeros = torch.zeros(self.graph.previous, device=self.device)
            fed["previous"] = zeros if previous is None else previous.float().contiguous()
        if resized is not None:
            fed["like"] = torch.zeros((1, *resized), dtype=torch.uint8, device=self.device)
        rows, columns = (-(-side // self.graph.stride) for side in inputs.shape[2:])
        seen = {"seen": torch.tensor(inputs.shape[2:], device=self.device)} if self.graph.seen else {}
        if (batch := self.graph.batch) > 1:  # an image alone is repeated
            fed = {name: value.expand(batch, *value.shape[1:]).contiguous() for name, value in fed.items()}
        try:
            found = self.run(fed | seen)
        except KNetError:
            raise
        except Exception as error:  # runtimes' errors have no common class
            if memory_asked(error):
                raise
            raise damaged(self.path, error, "run") from error
        expected = {"owner", "scores", "labels", "kernels"} if self.merges else {"mask_logits"}
        expected |= {"class_logits"} if not self.merges and self.card.task != "semantic" else set()
        expected |= {"kernels", "embeddings"} if self.embeds else set()
        if not expected <= found.keys():
            raise CheckpointError(
                f"The graph in '{self.path}' does not give {', '.join(sorted(expected - found.keys()))}, as its card "
                "says; export the model again."
            )
        if batch > 1:
            found = {name: value[: len(inputs)] for name, value in found.items()}
        self._check_outputs(found, len(inputs), fed["images"], resized)
        # Maps are cut to what they cover of the image without the fixed size's padding.
        return {name: value[..., :rows, :columns] if value.ndim >= 4 else value for name, value in found.items()}

    def _check_outputs(
        self, found: Mapping[str, Tensor], batch: int, images: Tensor, resized: tuple[int, int] | None
    ) -> None:
        """Raises `CheckpointError` unless the outputs have the shapes and types that the graph's card implies."""
        clip, stride = self.card.task == "clip", self.graph.stride
        cells: Shape = tuple(-(-side // stride) for side in images.shape[2:])
        frames: Shape = (len(images),) if clip else ()
        batch = 1 if clip else batch
        masks = found["scores" if self.merges else "mask_logits"].shape[1:2]
        shapes: dict[str, Shape] = {
            "mask_logits": (batch, *masks, *frames, *cells),
            "class_logits": (batch, *masks, None),
            "semantic_logits": (batch, None, *cells),
            "kernels": (batch, *(masks if self.graph.previous is None else self.graph.previous[1:2]), None),
            "embeddings": (batch, *masks, None),
            "owner": (batch, *(resized or ())),
            "scores": (batch, *masks),
            "labels": (batch, *masks),
        }
        for name, value in found.items():
            if name not in shapes:
                continue
            want, whole = shapes[name], name in ("owner", "labels")
            same = len(want) == value.ndim and all(b in (None, a) for a, b in zip(value.shape, want, strict=True))
            kind = value.dtype in (torch.int32, torch.int64) if whole else value.is_floating_point()
            if not (same and kind and value.numel()):
                text = "x".join("N" if side is None else str(side) for side in want)
                raise CheckpointError(
                    f"The graph in '{self.path}' gives {name} of {'x'.join(map(str, value.shape))} {value.dtype}, and "
                    f"its card needs {text} {'whole' if whole else 'floating-point'} numbers; export the model again."
                )
        if masks and masks[0] < len(self.stuff):
            raise CheckpointError(
                f"The graph in '{self.path}' has {masks[0]} masks for {len(self.stuff)} classes of stuff; export the "
                "model again."
            )

    def _check_classes(self, classes: int, at_most: bool = False) -> None:
        known = len(self.card.categories)
        if classes > known or (classes < known and not at_most):
            raise CheckpointError(
                f"The graph in '{self.path}' knows {classes} classes, its card {known}; export the model again."
            )

    def embed(self, kernels: Tensor) -> Tensor:
        """The kernels themselves, as the graph's linked kernels are embeddings already."""
        return kernels

    def fitted(self, inputs: Tensor) -> Tensor:
        """The images, padded to the file's fixed size if it has one."""
        (height, width), size = inputs.shape[2:], self.graph.size
        if size is None or size == (height, width):
            return inputs
        if height > size[0] or width > size[1]:
            raise ConfigError(
                f"'{self.path}' takes images of {size[0]}x{size[1]} pixels (height x width), and this one "
                f"is {height}x{width} when the network sees it; give a smaller --size, or export the model for this "
                f"size (--size {height}x{width}) or for any (--dynamic)."
            )
        if self.graph.filled:
            raise ConfigError(
                f"'{self.path}' takes images that fill {size[0]}x{size[1]} pixels (height x width), and this one is "
                f"{height}x{width} when the network sees it; export the model without --filled, or for this size."
            )
        return F.pad(inputs, (0, size[1] - width, 0, size[0] - height))


def existing(path: Path) -> str:
    """The path of a file that exists. Raises `CheckpointError` for others."""
    if not is_file(path):
        raise CheckpointError(f"There is no file '{path}'; give the path of a file that `knet export` wrote.")
    return str(path)


@contextmanager
def opening(path: Path) -> Iterator[None]:
    """Whatever a runtime raises while it opens a file becomes a `CheckpointError`; its errors have no common class.

    Too little memory becomes a `PredictionError`: older runtimes take it already then.
    """
    try:
        with enough_memory(f"what '{path}' computes", "export the model at a smaller size"):
            yield
    except KNetError:
        raise
    except Exception as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception, verb: str = "opened") -> CheckpointError:
    """The error for a file that its runtime cannot open or run."""
    reason = str(error).strip().splitlines()[-1].strip()[:300] if str(error).strip() else type(error).__name__
    return CheckpointError(f"The file '{path}' cannot be {verb} ({reason}); export or copy it again.")


def read_card(path: Path, text: str | None) -> tuple[Card, GraphCard]:
    """The card from its JSON, and its part about the graph. Raises `CheckpointError` if one is missing."""
    card = None if text is None else Card.read(text, str(path))
    if card is None or card.graph is None:
        raise CheckpointError(
            f"'{path}' does not say which model and classes it holds, so it was not written by `knet export`; export "
            "the model with it."
        )
    return card, card.graph


def own_precision(path: Path, graph: GraphCard, precision: str) -> str:
    """The precision of the file. Raises `ConfigError` if another one is asked for."""
    if precision not in ("auto", graph.precision):
        raise ConfigError(
            f"'{path}' computes in {graph.precision} and cannot in {precision}; leave --precision out, or export the "
            "model again with another (knet export --precision)."
        )
    return graph.precision
