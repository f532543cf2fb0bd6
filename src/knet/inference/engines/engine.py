"""What runs a network: torch, or the runtime of an exported file."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from knet.merge.panoptic import MergedMasks
from knet.models.network import Network
from knet.structures import Output

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Engine(Protocol):
    """All that segmenting and tracking need of a network.

    Attributes:
        name: the runtime: "torch", "onnxruntime", "openvino" or "tensorrt".
        precision: what it computes in: "fp32", "bf16", "fp16" or "int8".
        stuff: labels with kernels of their own, see `RTKNet` and `KNet`; may be empty.
        embeds: whether the network is made for tracking: linked to the frame before, and with embeddings.
    """

    name: str
    device: torch.device
    precision: str
    stuff: Sequence[int]
    embeds: bool

    @property
    def net(self) -> Network | None:
        """The torch module with its original weights; None for an exported model."""

    def __call__(
        self, inputs: Tensor, previous: Tensor | None = None, resized: tuple[int, int] | None = None
    ) -> list[Output]:
        """Runs the network. (B,3,h,w) float32, (B,N,C) or None -> [Output, ...], of which the last is the result

        Args:
            inputs: normalised, padded images.
            previous: the kernels of the last output for the frame before, for linked networks.
            resized: height and width of the image without padding, for exported models that merge inside.
        """

    def merged(self, output: Output, score: float, overlap: float) -> MergedMasks | None:
        """The merged masks of a last output, None if the engine does not merge. ConfigError if thresholds differ."""

    def look(self, frame: Tensor) -> tuple[Tensor, ...]:
        """For models of clips: what must be kept of a frame (1,3,h,w) until the clip has ended."""

    def link(self, frames: list[tuple[Tensor, ...]]) -> tuple[Tensor, Tensor]:
        """From the results of `look` (emptied to free memory) -> class logits (1,N,K), mask logits (1,N,T,h,w)"""

    def embed(self, kernels: Tensor) -> Tensor:
        """Turns the linked kernels of objects into embeddings, if `embeds`. (n,C) -> (n,C) float32"""
