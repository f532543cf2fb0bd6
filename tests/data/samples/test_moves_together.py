"""Image and masks move together, whatever the augmentation does: the image shows by its colour what each pixel is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from knet.data.samples.transforms import TrainAugmentation
from knet.structures import Sample, SegmentInfo

LEVEL = np.array([0, 40, 80, 120, 160, 200], np.uint8)  # of void and of the segments 1 to 5
THINGS = [False, False, True, True]


def made(seed: int, height: int, width: int) -> Sample:
    """A map of large blocks, and an image that is bright where the segment's number is high."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 6, (height, width))
    ids = blocks.repeat(16, 0).repeat(16, 1).astype(np.int32)
    image = LEVEL[ids][:, :, None].repeat(3, 2)
    segments = tuple(SegmentInfo(i, int(rng.integers(0, 4)), False) for i in range(1, 6) if (ids == i).any())
    return Sample("blocks", image, ids, segments)


@st.composite
def augmentations(draw: Any) -> TrainAugmentation:
    low = draw(st.integers(40, 70))
    between = draw(st.booleans())
    edges = [low, low + draw(st.integers(0, 60))] if between else [low, 2 * low]
    return TrainAugmentation(
        edges,
        draw(st.integers(60, 300)),
        draw(st.sampled_from([None, (32, 48), (64, 40)])),
        flip=draw(st.booleans()),
        color=False,
        pad=draw(st.sampled_from([None, (70, 90)])),
        pad_color=(0, 0, 0),
        instance_crop=draw(st.booleans()),
        between=between,
        ratio=draw(st.sampled_from([(1.0, 1.0), (0.7, 1.6)])),
        antialias=draw(st.booleans()),
        largest_class=draw(st.sampled_from([None, 0.75])),
    )


@given(seed=st.integers(0, 2**32 - 1), height=st.integers(3, 7), width=st.integers(3, 7), augment=augmentations())
@settings(max_examples=60, deadline=None)
def test_image_and_masks_move_together(seed: int, height: int, width: int, augment: TrainAugmentation) -> None:
    sample = made(seed, height, width)
    image, target = augment(sample, THINGS, np.random.default_rng(seed))
    assert image.shape[1:] == target.id_map.shape and image.dtype == torch.uint8
    ids = target.id_map.float()[None, None]
    reach = 9  # rows and columns over which resizing may mix colours, where an image is made smaller
    around = F.pad(ids, [reach // 2] * 4, value=-1)  # what a crop has cut off may have been mixed in as well
    largest, smallest = F.max_pool2d(around, reach, 1), -F.max_pool2d(-around, reach, 1)
    inside = (largest == ids) & (smallest == ids) & (ids > 0)
    shown = image[0][inside[0, 0]]
    numbers = target.id_map[inside[0, 0]].long()
    for number in numbers.unique().tolist():
        levels = shown[numbers == number]
        assert levels.max() - levels.min() <= 1  # one segment shows one colour
        original = int(np.abs(LEVEL.astype(int) - int(levels[0])).argmin())
        assert abs(int(LEVEL[original]) - int(levels[0])) <= 1
        (label,) = (segment.label for segment in sample.segments if segment.id == original)
        assert int(target.labels[number - 1]) == label


@pytest.mark.parametrize("seed", range(4))
def test_a_mirror_image_is_that_of_both(seed: int) -> None:
    """Asymmetric samples, flipped or not: the same luck with and without a flip gives mirror images of each other."""
    sample = made(seed, 4, 5)
    plain = TrainAugmentation([64], 200, None, flip=False, color=False)(sample, THINGS, np.random.default_rng(seed))
    found = [
        TrainAugmentation([64], 200, None, flip=True, color=False)(sample, THINGS, np.random.default_rng(luck))
        for luck in range(12)
    ]
    mirrored = [not torch.equal(image, plain[0]) for image, _ in found]
    assert True in mirrored and False in mirrored
    for (image, target), flipped in zip(found, mirrored, strict=True):
        assert torch.equal(image.flip(-1) if flipped else image, plain[0])
        assert torch.equal(target.id_map.flip(-1) if flipped else target.id_map, plain[1].id_map)
