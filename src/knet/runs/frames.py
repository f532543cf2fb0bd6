"""Networks and losses for frames that belong together: pairs of frames, and clips."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from knet.data.samples.pairs import PairTargets
from knet.structures import Output
from knet.training.criterion import Counts, Outputs
from knet.training.criterion_video import VideoCriterion


class TwoFrames(nn.Module):
    """Calls a video network on reference frames, and then on the key frames that are linked to them."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, key: Tensor, reference: Tensor) -> list[Output]:
        """(B,3,H,W), (B,3,H,W) -> the outputs for the key frames, followed by those for the reference frames

        Reference frames count as first ones of a video. Gradients flow to them through the link, as officially.
        """
        before = self.net(reference)
        return [*self.net(key, before[-1].kernels), *before]


class WholeClips(nn.Module):
    """Calls a clip network on a batch of clips of `frames` frames each."""

    def __init__(self, net: nn.Module, frames: int):
        super().__init__()
        self.net, self.frames = net, frames

    def forward(self, images: Tensor) -> list[Output]:
        """(B*T,3,H,W) -> the network's outputs"""
        return self.net(images.unflatten(0, (-1, self.frames)))


@dataclass(slots=True)
class PairLosses:
    """The losses of `TwoFrames`, see `CriterionLike` for its methods and `VideoCriterion` for `embed`."""

    criterion: VideoCriterion
    embed: Callable[[Tensor], Tensor]

    def __call__(
        self,
        outputs: Outputs,
        targets: PairTargets,
        noise: Tensor | None = None,
        counts: tuple[Counts, Counts] | None = None,
    ) -> dict[str, Tensor]:
        """See `CriterionLike`."""
        half = len(outputs) // 2
        return self.criterion(outputs[:half], outputs[half:], *targets, noise, counts, embed=self.embed)

    def count(self, targets: PairTargets, kernels: int, parts: int = 1) -> tuple[Counts, Counts]:
        """See `CriterionLike`."""
        return self.criterion.count(targets.key, targets.reference, kernels, parts)

    @property
    def invalid_costs(self) -> int:
        """See `CriterionLike`."""
        return self.criterion.invalid_costs
