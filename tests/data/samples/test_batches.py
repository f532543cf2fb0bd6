from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_panoptic import TinyPanoptic

from knet.data.readers.coco_panoptic import CocoPanoptic
from knet.data.samples.batches import Batch, BatchPlan, Draw, TrainingSet, collate, load_batches
from knet.data.samples.transforms import TrainAugmentation
from knet.errors import ConfigError, DataError


def make_set(tiny: TinyPanoptic, seed: int = 3, skip: int = 0) -> TrainingSet:
    reader = CocoPanoptic(tiny.images, tiny.json, tiny.masks)
    return TrainingSet(reader, TrainAugmentation([16, 20, 30], 90, (16, 16)), seed, skip)


def equal(one: Batch, other: Batch) -> bool:
    images = all(torch.equal(a, b) for a, b in zip(one.images, other.images, strict=True))
    targets = zip(one.targets, other.targets, strict=True)
    same = all(torch.equal(a.id_map, b.id_map) and torch.equal(a.labels, b.labels) for a, b in targets)
    return images and same and one.positions == other.positions


@given(st.integers(1, 12), st.integers(1, 7), st.integers(0, 2**40), st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_a_later_start_continues_the_same_plan(length: int, batch: int, seed: int, start: int) -> None:
    whole = list(islice(BatchPlan(length, batch, seed), start + 5))
    assert list(islice(BatchPlan(length, batch, seed, start), 5)) == whole[start:]
    flat = [draw for draws in whole for draw in draws]
    assert [(draw.iteration, draw.position) for draw in flat] == [
        (iteration, position) for iteration in range(start + 5) for position in range(batch)
    ]
    for epoch in range(len(flat) // length):
        seen = [draw.image for draw in flat[epoch * length : (epoch + 1) * length]]
        assert Counter(seen) == Counter(range(length))


def test_processes_share_a_batch() -> None:
    whole = list(islice(BatchPlan(10, 6, 1), 4))
    parts = [list(islice(BatchPlan(10, 6, 1, rank=rank, world=3), 4)) for rank in range(3)]
    assert [parts[0][i] + parts[1][i] + parts[2][i] for i in range(4)] == whole


def test_orders_differ_by_epoch_and_seed() -> None:
    plan = list(islice(BatchPlan(50, 50, 1), 2))
    assert [draw.image for draw in plan[0]] != [draw.image for draw in plan[1]]
    assert plan[0] != next(iter(BatchPlan(50, 50, 2)))


def test_luck_depends_on_seed_iteration_and_position_only(tiny: TinyPanoptic) -> None:
    training_set = make_set(tiny)
    first = training_set[Draw(4, 1, 0)]
    training_set[Draw(0, 0, 1)]
    assert torch.equal(first.image, training_set[Draw(4, 1, 0)].image)
    others = [training_set[Draw(4, 2, 0)], training_set[Draw(5, 1, 0)], make_set(tiny, 4)[Draw(4, 1, 0)]]
    assert not any(torch.equal(first.image, other.image) for other in others)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_sees_the_same_batches(tiny: TinyPanoptic, workers: int) -> None:
    training_set = make_set(tiny)
    whole = list(islice(load_batches(training_set, BatchPlan(2, 3, 3)), 4))
    resumed = list(islice(load_batches(training_set, BatchPlan(2, 3, 3, 2), workers), 2))
    assert all(equal(one, other) for one, other in zip(whole[2:], resumed, strict=True))
    images, targets = whole[0].images, whole[0].targets
    assert [image.dtype for image in images] == [torch.uint8] * 3
    assert [tuple(target.id_map.shape) for target in targets] == [tuple(image.shape[1:]) for image in images]


def test_collate_keeps_sizes(tiny: TinyPanoptic) -> None:
    training_set = make_set(tiny)
    samples = [training_set[Draw(0, position, 0)] for position in range(2)]
    batch = collate(samples)
    assert batch.images[1] is samples[1].image and batch.targets[0] is samples[0].target
    assert len(batch) == 2 and batch.positions == [0, 1] and batch.part(1, 2).positions == [1]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named(tiny: TinyPanoptic, workers: int) -> None:
    training_set = make_set(tiny)
    (tiny.images / "1.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        list(islice(load_batches(training_set, BatchPlan(2, 4, 0), workers), 2))
    message = str(caught.value)
    assert message.startswith(f"The image {tiny.images / '1.png'} cannot be read")
    assert "\n" not in message


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_may_be_left_out(tiny: TinyPanoptic, workers: int) -> None:
    training_set = make_set(tiny, skip=1)
    sound = next(load_batches(training_set, BatchPlan(2, 4, 0)))
    assert not sound.faults
    (tiny.images / "1.png").write_bytes(b"")
    batch = next(load_batches(training_set, BatchPlan(2, 4, 0), workers))
    assert list(batch.faults) == ["1"] and "1.png cannot be read" in batch.faults["1"]
    changed = [not torch.equal(a, b) for a, b in zip(batch.images, sound.images, strict=True)]
    assert any(changed) and not all(changed)  # the other image stands in its place


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shares": 0, "batch": 1, "seed": 0}, "empty"),
        ({"shares": 5, "batch": 0, "seed": 0}, "batch of 0"),
        ({"shares": 5, "batch": 3, "seed": 0, "world": 2}, "3 does not divide among 2"),
        ({"shares": 5, "batch": 4, "seed": 0, "world": 2, "rank": 2}, "does not divide"),
        ({"shares": 5, "batch": 8, "seed": 0, "world": 2, "parts": 3}, "4 images to each of 2 processes.*accumulate=3"),
        ({"shares": 5, "batch": 4, "seed": -1}, "seed -1"),
        ({"shares": 5, "batch": 4, "seed": 0, "start_iteration": -1}, "start iteration -1"),
    ],
)
def test_bad_plan(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BatchPlan(**options)


def test_streams_of_order_and_samples_are_apart() -> None:
    # numpy pads seeds with zeros: without the leading stream number these two would be one stream.
    assert np.random.default_rng([0, 5]).random() == np.random.default_rng([0, 5, 0]).random()
    assert np.random.default_rng([1, 0, 5]).random() != np.random.default_rng([2, 0, 5, 0]).random()
