"""What runs a network: a torch module, or the same network as an exported file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from knet.merge.panoptic import MergedMasks
from knet.models.network import Network
from knet.structures import Output

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Engine(Protocol):
    """All that segmenting and tracking ask of a network.

    Attributes:
        name: what runs it, for people: "torch", "onnxruntime", "openvino", ...
        device: where inputs are expected and outputs lie.
        precision: what it computes in: "fp32", "bf16", "fp16", "int8".
        stuff: labels that have kernels of their own, see `RTKNet` and `KNet`; empty where there are none.
        embeds: whether the network was made to track: it is linked to the frame before and has embeddings.
        fixed_size: the only height and width that padded images may have, in files made for one size; else None.
    """

    name: str
    device: torch.device
    precision: str
    stuff: Sequence[int]
    embeds: bool
    fixed_size: tuple[int, int] | None

    @property
    def net(self) -> Network | None:
        """The torch module with the weights as they were given; None for an exported model."""

    def __call__(
        self, inputs: Tensor, previous: Tensor | None = None, resized: tuple[int, int] | None = None
    ) -> list[Output]:
        """What the network says. (B,3,h,w) float32, kernels (B,N,C) -> Outputs

        The last output is the result. Of the first, trackers read `semantic_logits`.

        Args:
            inputs: the images, normalised and padded.
            previous: the last output's kernels for the frame before, of networks that are linked to it.
            resized: height and width of the image without padding, which exported models that merge inside ask for.

        Raises:
            ConfigError: an exported model was made for another size.
        """

    def merged(self, output: Output, score: float, overlap: float) -> MergedMasks | None:
        """The masks of a last output, where the engine has merged them itself; None where that is left to be done.

        Raises:
            ConfigError: it has merged them by other thresholds.
        """

    def look(self, frame: Tensor) -> tuple[Tensor, ...]:
        """Of models for clips: what has to be kept of a frame (1,3,h,w) until the clip has ended."""

    def link(self, frames: list[tuple[Tensor, ...]]) -> tuple[Tensor, Tensor]:
        """What `look` gave of each frame of a clip -> class logits (1,N,K), mask logits (1,N,T,h,w)

        The list is emptied, so that the memory is free before the clip is computed.
        """

    def embed(self, kernels: Tensor) -> Tensor:
        """The linked kernels of objects to what tells one from another, where `embeds`. (n,C) -> (n,C) float32"""
