"""What training on frames that belong together adds to a network and its losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from knet.data.samples.pairs import PairTargets
from knet.structures import Output
from knet.training.criterion import Counts, Outputs
from knet.training.criterion_video import VideoCriterion


class TwoFrames(nn.Module):
    """Calls a video network on a frame and, before, on the one that it is linked to."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, key: Tensor, reference: Tensor) -> list[Output]:
        """(B,3,H,W) twice -> the outputs for the key frames, and after them those for the reference frames.

        The reference frames are looked at as first frames; gradients go through the link to them, as in the official
        code.
        """
        before = self.net(reference)
        return [*self.net(key, before[-1].kernels), *before]


class WholeClips(nn.Module):
    """Calls a network for clips on the frames of a batch of them, T each."""

    def __init__(self, net: nn.Module, frames: int):
        super().__init__()
        self.net, self.frames = net, frames

    def forward(self, images: Tensor) -> list[Output]:
        """(B*T,3,H,W) -> the network's outputs"""
        return self.net(images.unflatten(0, (-1, self.frames)))


@dataclass(slots=True)
class PairLosses:
    """The losses of `TwoFrames`, as a training step asks for them.

    criterion: the losses of a video network · embed: see `VideoCriterion`.
    """

    criterion: VideoCriterion
    embed: Callable[[Tensor], Tensor]

    def __call__(
        self,
        outputs: Outputs,
        targets: PairTargets,
        noise: Tensor | None = None,
        counts: tuple[Counts, Counts] | None = None,
    ) -> dict[str, Tensor]:
        """Weighted scalar losses in float32."""
        half = len(outputs) // 2
        return self.criterion(outputs[:half], outputs[half:], *targets, noise, counts, embed=self.embed)

    def count(self, targets: PairTargets, kernels: int, parts: int = 1) -> tuple[Counts, Counts]:
        """What the losses of a batch are divided by."""
        return self.criterion.count(targets.key, targets.reference, kernels, parts)

    @property
    def invalid_costs(self) -> int:
        """Matching costs that were not finite since the criterion was made."""
        return self.criterion.invalid_costs
