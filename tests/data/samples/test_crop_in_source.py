"""The training augmentation makes only the window it shows; here it meets the plain way, which makes everything."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.nn import functional as F

from knet.data.samples.color import random_color
from knet.data.samples.transforms import TrainAugmentation, Window, choose_window, resize_ids, resize_image
from knet.errors import ConfigError
from knet.preprocess import resized_size
from knet.structures import Sample, SegmentInfo, Target

THINGS = [False, True, True]  # road, and an arrow to the left and one to the right, which a mirror swaps
FLIPS = (0, 2, 1)
LABEL_OF = {3: 0, 70000: 1, 5: 2, 2**24 - 1: 1, 9: 2}
CROWD = 9


def make_sample(height: int, width: int, seed: int) -> Sample:
    """Noise, and patches of void, road, four things and a crowd; not every segment of the list is visible."""
    rng = np.random.default_rng(seed)
    grid = rng.choice([0, *LABEL_OF], (int(rng.integers(1, 9)), int(rng.integers(1, 9))))
    id_map = grid[np.ix_(*(np.arange(n) * k // n for n, k in zip((height, width), grid.shape, strict=True)))]
    segments = [SegmentInfo(id_, label, id_ == CROWD) for id_, label in LABEL_OF.items()]
    return Sample("s", rng.integers(0, 256, (height, width, 3), np.uint8), id_map.astype(np.int32), segments)


def whole_image(sample: Sample, size: tuple[int, int]) -> torch.Tensor:
    image = torch.from_numpy(sample.image).permute(2, 0, 1)[None]
    return F.interpolate(image, size, mode="bilinear", antialias=True)[0]


def whole_ids(sample: Sample, size: tuple[int, int]) -> np.ndarray:
    """As the official code resizes ids: torch's nearest pixel, in float32, which holds 24 bits."""
    ids = torch.from_numpy(sample.id_map).float()[None, None]
    return F.interpolate(ids, size, mode="nearest")[0, 0].int().numpy()


def plain_window(ids: np.ndarray, crop: list[int], corners: np.ndarray) -> tuple[int, int]:
    """The official rule: a window is good if the centre of a thing that it shows lies in it; else the tenth."""
    for top, left in corners.tolist():
        for id_ in np.unique(ids[top : top + crop[0], left : left + crop[1]]).tolist():
            if id_ in LABEL_OF and THINGS[LABEL_OF[id_]] and id_ != CROWD:
                y, x = (np.rint(axis.mean()) for axis in np.nonzero(ids == id_))
                if top <= y < top + crop[0] and left <= x < left + crop[1]:
                    return top, left
    return tuple(corners[-1].tolist())


def plain_augmentation(
    sample: Sample, rng: np.random.Generator, options: dict[str, Any]
) -> tuple[torch.Tensor, np.ndarray, list[int]]:
    """Everything resized, then cut: image (3,h,w), id map of the target (h,w), labels."""
    short_edge = options["short_edges"][int(rng.integers(len(options["short_edges"])))]
    size = resized_size(sample.id_map.shape, short_edge, options["max_size"])
    image, ids = whole_image(sample, size), whole_ids(sample, size)
    crop = [min(edge, whole) for edge, whole in zip(options["crop"], size, strict=True)]
    corners = rng.integers(0, [whole - edge + 1 for whole, edge in zip(size, crop, strict=True)], (10, 2))
    top, left = plain_window(ids, crop, corners) if options["instance_crop"] else tuple(corners[0].tolist())
    image = image[:, top : top + crop[0], left : left + crop[1]]
    ids = ids[top : top + crop[0], left : left + crop[1]]
    if options["color"]:
        image = random_color(image, rng)
    labels = [segment.label for segment in sample.segments]
    if options["flip"] and rng.random() < 0.5:
        image, ids = image.flip(-1), ids[:, ::-1]
        labels = [options["flip_labels"][label] for label in labels] if options["flip_labels"] else labels
    if options["pad"]:
        below, right = (max(edge - whole, 0) for edge, whole in zip(options["pad"], ids.shape, strict=True))
        image, ids = F.pad(image, (0, right, 0, below), value=128), np.pad(ids, ((0, below), (0, right)))
    shown = [
        number for number, segment in enumerate(sample.segments) if (ids == segment.id).sum() >= 2 and not segment.crowd
    ]
    target = sum(
        ((ids == sample.segments[number].id) * (place + 1) for place, number in enumerate(shown)), np.zeros_like(ids)
    )
    return image, target, [labels[number] for number in shown]


def compare(sample: Sample, seed: int, options: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Both ways with equal luck: ids, labels and the numbers drawn must be equal. Gives the two images."""
    rng, plain_rng = np.random.default_rng(seed), np.random.default_rng(seed)
    image, target = TrainAugmentation(**options)(sample, THINGS, rng)
    plain_image, plain_target, plain_labels = plain_augmentation(sample, plain_rng, options)
    assert np.array_equal(target.id_map.numpy(), plain_target)
    assert target.labels.tolist() == plain_labels
    assert rng.random() == plain_rng.random()
    assert image.shape == plain_image.shape
    return image, plain_image


edges = st.integers(1, 90)


@given(
    sample=st.builds(make_sample, st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32)),
    seed=st.integers(0, 2**32),
    options=st.fixed_dictionaries(
        {
            "short_edges": st.lists(edges, min_size=1, max_size=4),
            "max_size": st.integers(20, 180),
            "crop": st.tuples(edges, edges),
            "flip": st.booleans(),
            "color": st.just(False),
            "pad": st.none() | st.tuples(edges, edges),
            "instance_crop": st.booleans(),
            "flip_labels": st.sampled_from([None, FLIPS]),
        }
    ),
)
def test_equal_to_resizing_everything(sample: Sample, seed: int, options: dict[str, Any]) -> None:
    image, plain_image = compare(sample, seed, options)
    assert int((image.int() - plain_image.int()).abs().max()) <= 1


@pytest.mark.parametrize("seed", range(12))
def test_equal_to_resizing_everything_in_colour(seed: int) -> None:
    options = {
        "short_edges": [64, 77, 128, 180, 256], "max_size": 512, "crop": (64, 128), "flip": True, "color": True,
        "pad": None, "instance_crop": True, "flip_labels": FLIPS,
    }  # fmt: skip
    image, plain_image = compare(make_sample(128, 256, seed), seed, options)
    assert (image != plain_image).float().mean() < 1e-3  # a step of 1 before the colours may be a larger one after


@given(
    st.tuples(st.integers(1, 130), st.integers(1, 130)),
    st.tuples(st.integers(1, 130), st.integers(1, 130)),
    st.integers(0, 2**32),
)
@example((100, 100), (101, 99), 5)  # some windows need as many pixels of the source as they have themselves
@example((64, 96), (96, 64), 0)
def test_a_window_is_the_part_of_the_whole(before: tuple[int, int], size: tuple[int, int], seed: int) -> None:
    sample, rng = make_sample(*before, seed), np.random.default_rng(seed)
    image, id_map = torch.from_numpy(sample.image).permute(2, 0, 1), torch.from_numpy(sample.id_map)
    image_whole, ids_whole = whole_image(sample, size), whole_ids(sample, size)
    for _ in range(4):
        top, left = (int(rng.integers(edge)) for edge in size)
        bottom, right = int(rng.integers(top, size[0])) + 1, int(rng.integers(left, size[1])) + 1
        window = Window(top, left, bottom, right)
        part = resize_image(image, size, window)
        assert int((part.int() - image_whole[:, top:bottom, left:right].int()).abs().max()) <= 1
        assert np.array_equal(resize_ids(id_map, size, window).numpy(), ids_whole[top:bottom, left:right])
    assert torch.equal(resize_image(image, size), image_whole)


@pytest.mark.parametrize("row", [0, 1, 500, 996, 998])
def test_a_window_that_is_as_large_in_the_source(row: int) -> None:
    # The few rows that this window needs are as many as they become: torch would take them as they are.
    sample = make_sample(1000, 3, 0)
    image = torch.from_numpy(sample.image).permute(2, 0, 1)
    expected = whole_image(sample, (1001, 3))[:, row : row + 3]
    assert torch.equal(resize_image(image, (1001, 3), Window(row, 0, row + 3, 3)), expected)


def test_a_thing_that_shrinking_leaves_out_of_the_window_does_not_count() -> None:
    id_map = torch.zeros(32, 32, dtype=torch.int32)
    for corner in (id_map[:2, :2], id_map[:2, -2:], id_map[-2:, :2], id_map[-2:, -2:]):
        corner.fill_(5)
    windows = [(5, 5), (0, 5), (5, 0)]
    id_map[16, 16] = 5  # stays: half the size takes the even rows and columns
    assert choose_window(id_map, (16, 16), (6, 6), [5], windows) == 0
    id_map[16, 16], id_map[17, 17] = 0, 5
    assert choose_window(id_map, (16, 16), (6, 6), [5], windows) == 2


def test_without_instance_crop_the_first_window_is_taken() -> None:
    id_map = np.zeros((40, 40), np.int32)
    id_map[:4, :4] = 5
    columns = np.broadcast_to(np.arange(40, dtype=np.uint8)[None, :, None], (40, 40, 3))
    sample = Sample("s", np.ascontiguousarray(columns), id_map, [SegmentInfo(5, 2)])

    def lefts(instance_crop: bool) -> list[int]:
        augment = TrainAugmentation([40], 40, (8, 8), flip=False, color=False, instance_crop=instance_crop)
        return [int(augment(sample, THINGS, np.random.default_rng(seed))[0][0, 0, 0]) for seed in range(60)]

    def first_left(seed: int) -> int:
        rng = np.random.default_rng(seed)
        rng.integers(1)
        return int(rng.integers(0, [33, 33], (10, 2))[0, 1])

    assert lefts(False) == [first_left(seed) for seed in range(60)]
    assert sum(left <= 2 for left in lefts(True)) > sum(left <= 2 for left in lefts(False))


def test_a_flip_swaps_left_and_right_classes() -> None:
    sample = make_sample(16, 16, 0)
    sample.id_map[:] = 3
    sample.id_map[:, :8] = 70000  # the left half has label 1

    def augment(seed: int, flip_labels: tuple[int, ...] | None) -> Target:
        options = {"color": False, "flip_labels": flip_labels}
        return TrainAugmentation([16], 16, (16, 16), **options)(sample, THINGS, np.random.default_rng(seed))[1]

    seen = set()
    for seed in range(20):
        target = augment(seed, FLIPS)
        half = int(target.id_map[0, 0]) == 2  # segment 2 of the target is the one on the left
        flipped = not half
        assert target.labels.tolist() == [0, 2 if flipped else 1]
        assert augment(seed, None).labels.tolist() == [0, 1]
        seen.add(flipped)
    assert seen == {False, True}


@pytest.mark.parametrize("flip_labels", [(0, 2), (1, 2, 0), (0, 2, 2), (0, 1, 3)])
def test_labels_of_a_mirror_image_must_go_both_ways(flip_labels: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="flip_labels"):
        TrainAugmentation([16], 16, (16, 16), flip_labels=flip_labels)
