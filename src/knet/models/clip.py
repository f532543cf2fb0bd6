"""Video K-Net for whole clips (Li et al., CVPR 2022): the objects of a video, each with its masks in all frames.

    frames --K-Net--> kernels of every frame --mean--> one set of kernels a clip --clip stages--> one tube of masks each

A kernel that is refined on all frames at once is one object in all of them, so nothing has to be tracked afterwards.
The authors use this program for YouTube-VIS (`knet_vis`, `KNetTrack`); no paper describes it.

Shapes: B clips, T frames each, N kernels, C channels, H x W the images, h x w the feature map, K classes.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from knet.errors import ConfigError
from knet.models.image import KNet
from knet.models.kernels import Stage, group_features
from knet.structures import Output


class ClipStage(Stage):
    """A stage that sees all frames of a clip: a kernel's group feature is the mean of those in each frame."""

    def forward(
        self, features: Tensor, kernels: Tensor, mask_logits: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """(B,C,T,h,w), (B,N,C), (B,N,T,h,w) -> kernels, mask logits, class logits (B,N,K), transformed features"""
        features = self.transform(features.flatten(2, 3)).view(features.shape)  # a 1x1 convolution sees no borders
        group = group_features(mask_logits, features, self.pooling) / features.shape[2]
        return self.renew(group, kernels, features)


class ClipKNet(KNet):
    """K-Net on every frame, then stages over the whole clip.

    All clip stages but the last refine one set of kernels for the clip and predict its classes. The last one copies
    the kernels to every frame, where each adapts to what it finds there, and predicts masks only; the classes are those
    of the stage before.

    Args:
        classes: K, all of them countable.
        backbone, kernels, stages, channels, drop_path: see `KNet`; `kernels` is the largest number of objects.
        clip_stages: number of kernel updates over the clip, at least 2.

    Raises:
        ConfigError: unknown backbone, or too few clip stages.
    """

    def __init__(
        self,
        classes: int,
        backbone: str = "r50",
        kernels: int = 100,
        stages: int = 3,
        clip_stages: int = 3,
        channels: int = 256,
        drop_path: float | None = None,
    ):
        super().__init__(classes, (), backbone, kernels, stages, channels, drop_path=drop_path)
        if clip_stages < 2:
            raise ConfigError(f"clip_stages={clip_stages} is too few: the last needs one before it; give 2 or more.")
        clip = [ClipStage(channels, classes, "sum", transform=True) for _ in range(clip_stages - 1)]
        self.clip_stages = nn.ModuleList([*clip, Stage(channels, None, "sum", transform=True)])

    def forward(self, images: Tensor) -> list[Output]:
        """Segments clips. (B,T,3,H,W), or (T,3,H,W) for one, normalised RGB, H and W multiples of 32 -> [Output, ...]

        These are the outputs of `KNet.forward` for all frames, those of the first clip first; then those of `link`.
        """
        clips = images if images.ndim == 5 else images[None]
        B, T = clips.shape[:2]
        outputs, features = self.look(clips.flatten(0, 1))
        last = outputs[-1]
        tubes = (x.unflatten(0, (B, T)).transpose(1, 2) for x in (features, last.kernels, last.mask_logits))
        return [*outputs, *self.link(*tubes)]

    def look(self, images: Tensor) -> tuple[list[Output], Tensor]:
        """Segments single frames. (B,3,H,W) -> the outputs of `KNet.forward`, and the features (B,C,h,w) for `link`"""
        localization, semantics = self.features(images)
        return self.decode(localization, semantics), localization + semantics

    def link(self, features: Tensor, kernels: Tensor, mask_logits: Tensor) -> Iterator[Output]:
        """From the last output of `look` to one Output a clip stage, see `Output`. (B,C,T,h,w), (B,N,T,C), (B,N,T,h,w)

        The last one has kernels (B,N,T,C) and no class logits.
        """
        T = features.shape[2]
        kernels = kernels.mean(2)
        *clip_stages, frame_stage = self.clip_stages
        for stage in clip_stages:
            kernels, mask_logits, class_logits, seen = stage(features, kernels, mask_logits)
            yield Output(kernels, mask_logits, class_logits, seen)
        copied = kernels[:, :, None].expand(-1, -1, T, -1)
        frames = (x.transpose(1, 2).flatten(0, 1) for x in (features, copied, mask_logits))
        kernels, mask_logits, _, seen = frame_stage(*frames)
        kernels, mask_logits, seen = (x.unflatten(0, (-1, T)).transpose(1, 2) for x in (kernels, mask_logits, seen))
        yield Output(kernels, mask_logits, None, seen)


def clip_result(outputs: Iterable[Output]) -> tuple[Tensor, Tensor]:
    """The result among the outputs of clips. -> class logits (B,N,K), mask logits (B,N,T,h,w)"""
    classes = masks = torch.empty(0)
    for output in outputs:
        masks = output.mask_logits
        classes = classes if output.class_logits is None else output.class_logits
    return classes, masks


def is_clip(output: Output) -> bool:
    """Whether an output is that of clips, with an axis of frames, and not that of single frames."""
    return output.mask_logits.ndim == 5
