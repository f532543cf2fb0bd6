"""Exported models: what the graphs that `knet export` wrote have in common, whichever runtime runs them.

Each file carries the model's card (see `knet.inference.load.describe`) with one entry more, `graph`: what the file
computes in (`precision`), the `size` that it takes (None for any), and what is asked of a network otherwise.
"""

from __future__ import annotations

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from knet.errors import CheckpointError, ConfigError
from knet.merge.panoptic import MergedMasks
from knet.models.clip import clip_result
from knet.models.network import Network
from knet.structures import Output

_PACKAGES = {  # optional ones, and what pip has to be told
    **dict.fromkeys(("onnx", "onnxscript", "onnxruntime"), "'knet[export]'"),
    "openvino": "'knet[openvino]'",
    "tensorrt": "tensorrt",
}


def need(*modules: str) -> None:
    """Raises: ConfigError that says what to install if one of these optional packages is missing."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(
                f"This needs the package {module}, which is not installed ({error}); install it with: "
                f"pip install {_PACKAGES[module]}"
            ) from error


@dataclass(slots=True)
class MergedOutput(Output):
    """The output of a graph with the merge inside, for one image."""

    merged: MergedMasks | None = None


class GraphEngine(ABC):
    """An exported graph as an `Engine`: what all formats share.

    Attributes:
        card: the model's card, as in the file. merges: whether the merge is inside.
        Others as of `inference.engines.engine.Engine`.
    """

    name: str
    net: Network | None = None

    def __init__(self, path: Path, card: dict[str, Any], precision: str, device: str = "cpu"):
        graph = card["graph"]
        self.path, self.card, self.precision = path, card, precision
        self.device = torch.device(device)
        self.stuff: Sequence[int] = graph["stuff"]
        self.embeds: bool = graph["embeds"]
        self.merges: bool = graph["merge_inside"]
        self._stride: int = graph["stride"]
        self.fixed_size = None if graph["size"] is None else (int(graph["size"][0]), int(graph["size"][1]))
        self._previous: list[int] | None = graph["previous"]

    @abstractmethod
    def run(self, inputs: dict[str, Tensor]) -> Mapping[str, Tensor]:
        """The graph's inputs by name -> its outputs by name. Contiguous tensors on the engine's device."""

    def __call__(
        self, inputs: Tensor, previous: Tensor | None = None, resized: tuple[int, int] | None = None
    ) -> list[Output]:
        """See `Engine`; of one image at a time. Of models for clips the images are the frames of one clip, (T,3,h,w),
        and the output is that of the clip.

        Raises:
            ConfigError: an image that is larger than the fixed size of the file.
        """
        if self.merges and resized is None:
            resized = (inputs.shape[2], inputs.shape[3])
        out = self._run(inputs, previous, resized if self.merges else None)
        none = torch.empty(0)
        output = MergedOutput(
            kernels=out.get("kernels", none),
            mask_logits=out.get("mask_logits", none),
            class_logits=out.get("class_logits"),
            features=none,
            semantic_logits=out.get("semantic_logits"),
            linked=out.get("embeddings"),
        )
        if self.merges:
            owner, scores, labels = (out[name][0] for name in ("owner", "scores", "labels"))
            areas = torch.bincount(owner.flatten().long() + 1, minlength=len(scores) + 1)[1:]
            output.merged = MergedMasks(owner, areas, labels.long(), scores, torch.arange(len(scores)))
        return [output]

    def merged(self, output: Output, score: float, overlap: float) -> MergedMasks | None:
        """See `Engine`."""
        own = self.card["score"], self.card["overlap"]
        if self.merges and (score, overlap) != own:
            raise ConfigError(
                f"This file merges inside, with score {own[0]} and overlap {own[1]}, not {score} and {overlap}; leave "
                "the thresholds out, or export without --merge-inside."
            )
        return output.merged if isinstance(output, MergedOutput) else None

    def look(self, frame: Tensor) -> tuple[Tensor, ...]:
        """See `Engine`: the frame itself, since a graph sees all of them at once."""
        return (frame,)

    def link(self, frames: list[tuple[Tensor, ...]]) -> tuple[Tensor, Tensor]:
        """See `Engine`."""
        clip = torch.cat([frame for (frame,) in frames])
        frames.clear()
        return clip_result(self(clip))

    def _run(self, inputs: Tensor, previous: Tensor | None, resized: tuple[int, int] | None) -> dict[str, Tensor]:
        fed = {"images": self.fitted(inputs).float().contiguous()}
        if self._previous is not None:
            zeros = torch.zeros(self._previous, device=self.device)
            fed["previous"] = zeros if previous is None else previous.float().contiguous()
        if resized is not None:
            fed["like"] = torch.zeros((1, *resized), dtype=torch.uint8, device=self.device)
        rows, columns = (-(-side // self._stride) for side in inputs.shape[2:])
        # Maps without what the fixed size added to the image.
        found = self.run(fed).items()
        return {name: value[..., :rows, :columns] if value.ndim >= 4 else value for name, value in found}

    def embed(self, kernels: Tensor) -> Tensor:
        """The graph embeds by itself: what its outputs call linked kernels are embeddings. (n,C) -> (n,C) float32"""
        return kernels

    def fitted(self, inputs: Tensor) -> Tensor:
        """Padded to the fixed size, where the file has one."""
        height, width = inputs.shape[2:]
        if self.fixed_size is None:
            return inputs
        rows, columns = self.fixed_size
        if height > rows or width > columns:
            raise ConfigError(
                f"'{self.path}' takes images of {rows}x{columns} pixels (height x width), and this one "
                f"is {height}x{width} when the network sees it; give a smaller --size, or export the model for this "
                f"size (--size {height}x{width}) or for any (--dynamic)."
            )
        return F.pad(inputs, (0, columns - width, 0, rows - height))


def existing(path: Path) -> str:
    """The path, if there is a file. Raises: CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"There is no file '{path}'; give the path of a file that `knet export` wrote.")
    return str(path)


def damaged(path: Path, error: Exception) -> CheckpointError:
    """The error for a file that a runtime refuses."""
    reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    return CheckpointError(f"The file '{path}' cannot be opened ({reason}); export or copy it again.")


def read_card(path: Path, text: str | None) -> dict[str, Any]:
    """The card from its JSON. Raises: CheckpointError if there is none."""
    card = None if text is None else json.loads(text)
    if not isinstance(card, dict) or "graph" not in card:
        raise CheckpointError(
            f"'{path}' does not say which model and classes it holds, so it was not written by `knet export`; export "
            "the model with it."
        )
    return card


def own_precision(path: Path, card: dict[str, Any], precision: str) -> str:
    """The precision of the file. Raises: ConfigError if another one is wanted."""
    own: str = card["graph"]["precision"]
    if precision not in ("auto", own):
        raise ConfigError(
            f"'{path}' computes in {own} and cannot in {precision}; leave --precision out, or export the model again "
            "with another (knet export --precision)."
        )
    return own
