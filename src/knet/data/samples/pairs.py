"""Pairs of frames to learn tracking from: a key frame and a reference frame near it in the same clip.

Both frames get the same augmentation, and it is known which objects they share. Source: the data sets of Video K-Net's
official code (`ref_seq_index`), which draw each frame's reference once for a whole run; here it is drawn each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from knet.data.samples.batches import Batch, Draw, Item, collate
from knet.data.samples.near_frames import ClipSource, NearFrames
from knet.data.samples.transforms import Augmented, TrainAugmentation
from knet.structures import Target

OFFSETS = (-2, -1, 1, 2)


@dataclass(slots=True)
class PairItem:
    """Two augmented frames of a clip, which has the number `clip` in the data set.

    `matches` (T,) int64 is, for each segment of the key's target, the index of the same object in the reference's; -1
    for objects that are not there, and for stuff.
    """

    key: Item
    reference: Item
    matches: Tensor
    clip: int


class PairTargets(NamedTuple):
    """The targets of key and reference frames, and each pair's `matches` and `clip` (see `PairItem`)."""

    key: list[Target]
    reference: list[Target]
    matches: list[Tensor]
    clips: list[int]


@dataclass(slots=True)
class PairBatch:
    """The pairs of a process in an iteration: `key` and `reference` frames in the same order, matches, clips."""

    key: Batch
    reference: Batch
    matches: list[Tensor]
    clips: list[int]

    def __len__(self) -> int:
        return len(self.key)

    @property
    def frames(self) -> list[list[Tensor]]:
        """What the network is called with: the key frames, and the reference frames."""
        return [self.key.images, self.reference.images]

    @property
    def targets(self) -> PairTargets:
        """What a network should find in both."""
        return PairTargets(self.key.targets, self.reference.targets, self.matches, self.clips)

    @property
    def positions(self) -> list[int]:
        """Positions in the whole batch."""
        return self.key.positions

    @property
    def faults(self) -> dict[str, str]:
        """The frames that could not be read: name -> what is wrong."""
        return self.key.faults

    def part(self, start: int, stop: int) -> PairBatch:
        """The pairs from `start` up to `stop`."""
        key, reference = self.key.part(start, stop), self.reference.part(start, stop)
        return PairBatch(key, reference, self.matches[start:stop], self.clips[start:stop])

    def pin_memory(self) -> PairBatch:
        """The same in page-locked memory (called by torch's DataLoader)."""
        matches = [one.pin_memory() for one in self.matches]
        return PairBatch(self.key.pin_memory(), self.reference.pin_memory(), matches, self.clips)

    def to(self, device: object) -> PairBatch:
        """The same on another device, copied without waiting where the memory is pinned."""
        matches = [one.to(device, non_blocking=True) for one in self.matches]  # type: ignore[call-overload]
        return PairBatch(self.key.to(device), self.reference.to(device), matches, self.clips)


def collate_pairs(items: Sequence[PairItem]) -> PairBatch:
    """Makes a batch of pairs."""
    key, reference = (collate([getattr(item, which) for item in items]) for which in ("key", "reference"))
    return PairBatch(key, reference, [item.matches for item in items], [item.clip for item in items])


class PairSet(NearFrames):
    """Augmented pairs of frames for the `Draw`s of a `BatchPlan`, as `NearFrames`. Any two calls are independent.

    A pair that has no object in common after augmentation is replaced by that of another key frame, as in the official
    code; after 100 in a row the data set is given up.

    Args:
        offsets: how many frames away the reference may be; one that exists is drawn.
        compatible: whether a frame's offset is drawn once for the run, and frames where it leads out of the clip are
            left out, as in Video K-Net's code.
    """

    collate = staticmethod(collate_pairs)

    def __init__(
        self,
        reader: ClipSource,
        augmentation: TrainAugmentation,
        seed: int,
        skip: int = 0,
        offsets: Sequence[int] = OFFSETS,
        compatible: bool = False,
    ):
        super().__init__(reader, augmentation, seed, skip, offsets, 1, compatible)

    def __getitem__(self, draw: Draw) -> PairItem:
        """The pair; `DataError` as `NearFrames.draw`."""
        things = self.things
        found = self.draw(draw, lambda frames: bool((match_objects(frames[0], frames[1], things) >= 0).any()))
        key, reference = found.frames
        first = Item(key.image, key.target, draw.position, found.faults)
        second = Item(reference.image, reference.target, draw.position, {})
        return PairItem(first, second, match_objects(key, reference, things), found.clip)


def match_objects(key: Augmented, reference: Augmented, things: Sequence[bool]) -> Tensor:
    """The matches of a `PairItem`. -> (T,) int64"""
    places = {segment.id: index for index, segment in enumerate(reference.segments) if things[segment.label]}
    return torch.tensor([places.get(segment.id, -1) for segment in key.segments], dtype=torch.int64)
