"""Short clips to learn whole videos from: several frames near each other, in which a number means the same object.

Source: Video K-Net's official code for YouTube-VIS (`knet_vis`): a key frame and four others up to two frames away.
"""

from collections.abc import Sequence

import torch

from knet.data.samples.batches import Batch, Draw, Item, collate
from knet.data.samples.near_frames import ClipSource, NearFrames
from knet.data.samples.transforms import Augmented, TrainAugmentation
from knet.errors import ConfigError
from knet.structures import Target


def collate_clips(clips: Sequence[Sequence[Item]]) -> Batch:
    """Makes a batch of the frames of clips; those of a clip follow each other."""
    return collate([item for clip in clips for item in clip])


class ClipSet(NearFrames):
    """Augmented clips for the `Draw`s of a `BatchPlan`, drawn as by `NearFrames`. Any two calls are independent.

    A clip has `frames` frames in their order, at most `reach` from its key frame. It is replaced by another one if its
    key frame shares no object with the others.
    """

    collate = staticmethod(collate_clips)

    def __init__(
        self,
        reader: ClipSource,
        augmentation: TrainAugmentation,
        seed: int,
        skip: int = 0,
        frames: int = 5,
        reach: int = 2,
    ):
        if not 2 <= frames <= 2 * reach + 1:
            raise ConfigError(f"Clips of {frames} frames, up to {reach} from a key frame: give 2 to {2 * reach + 1}.")
        offsets = [offset for offset in range(-reach, reach + 1) if offset]
        super().__init__(reader, augmentation, seed, skip, offsets, frames - 1)

    def __getitem__(self, draw: Draw) -> list[Item]:
        """An item for each frame. Their targets have equal `labels`; an object may have no pixel in some of them."""
        found = self.draw(draw, lambda frames: len(frames[0].segments) > 0)
        order = sorted(range(len(found.frames)), key=lambda place: found.indices[place])
        frames = [found.frames[place] for place in order]
        targets = unite_targets(frames)
        return [
            Item(frame.image, target, draw.position, found.faults)
            for frame, target in zip(frames, targets, strict=True)
        ]


def unite_targets(frames: Sequence[Augmented]) -> list[Target]:
    """Gives the frames' targets one list of labels: those of all segments in any frame, in order of appearance.

    What no loss looks at, -1, stays as it is.
    """
    order: dict[int, int] = {}
    labels: list[int] = []
    for frame in frames:
        for segment, label in zip(frame.segments, frame.target.labels.tolist(), strict=True):
            if segment.id not in order:
                order[segment.id] = len(order) + 1
                labels.append(label)
    united = []
    for frame in frames:
        value_of = torch.tensor([0, *(order[segment.id] for segment in frame.segments)], dtype=torch.int32)
        given = frame.target.id_map
        id_map = torch.where(given < 0, given, value_of[given.clamp(min=0).long()])
        united.append(Target(id_map, torch.tensor(labels, dtype=torch.int64), frame.target.unlabelled))
    return united
