"""What runs a network: a torch module, or the same network as an exported file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

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
    """

    name: str
    device: torch.device
    precision: str
    stuff: Sequence[int]
    embeds: bool

    @property
    def net(self) -> Network | None:
        """The torch module with the weights as they were given; None for an exported model."""

    def __call__(self, inputs: Tensor, previous: Tensor | None = None) -> list[Output]:
        """What the network says. (B,3,h,w) float32, kernels (B,N,C) -> Outputs

        The images are normalised and padded; `previous` are the last output's kernels for the frame before, of networks
        that are linked to it. The last output is the result. Of the first, trackers read `semantic_logits`.

        Raises:
            ConfigError: an exported model was made for another size.
        """

    def embed(self, kernels: Tensor) -> Tensor:
        """The linked kernels of objects to what tells one from another, where `embeds`. (n,C) -> (n,C) float32"""
