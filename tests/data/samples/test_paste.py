"""Objects of one image in another: ids are exact, and only the object's pixels change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_panoptic import TinyPanoptic

from knet.data.readers.coco_panoptic import CocoPanoptic
from knet.data.samples.camera import random_camera
from knet.data.samples.paste import LEAST, ObjectPaste, cut_out, paste
from knet.structures import Sample, SegmentInfo


def street(seed: int = 0) -> Sample:
    """60x80 pixels: road from row 30, above it nothing, and a car that stands on it."""
    image = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), np.uint8)
    id_map = np.zeros((60, 80), np.int32)
    id_map[30:] = 4
    id_map[28:52, 10:40] = 9
    return Sample("s", image, id_map, [SegmentInfo(4, 0), SegmentInfo(9, 1)], frozenset({0}), (2,))


class Streets:
    """A reader of two such images."""

    def __init__(self, tiny: TinyPanoptic):
        self.categories = CocoPanoptic(None, tiny.json, tiny.masks).categories

    def __len__(self) -> int:
        return 2

    def name(self, index: int) -> str:
        return str(index)

    def read(self, index: int) -> Sample:
        return street(index)


@given(st.integers(-5, 70), st.integers(-20, 100), st.floats(0.2, 2.0), st.integers(0, 99))
def test_ids_are_exact(row: int, column: int, scale: float, seed: int) -> None:
    before = street()
    rng = np.random.default_rng(seed)
    mask = rng.random((12, 9)) < 0.6
    after = paste(before, rng.integers(0, 256, (12, 9, 3), np.uint8), mask, 1, scale, (row, column))
    if after is before:
        return
    new = after.segments[-1]
    pasted = after.id_map == new.id
    assert new.label == 1 and not new.crowd and pasted.any()
    assert new.id not in {0, 4, 9}
    assert np.array_equal(after.id_map[~pasted], before.id_map[~pasted])
    assert np.array_equal(after.image[~pasted], before.image[~pasted])
    assert {segment.id for segment in after.segments} == set(np.unique(after.id_map).tolist()) - {0}
    assert after.ignored == before.ignored and after.unlabelled == before.unlabelled
    assert np.array_equal(before.image, street().image) and np.array_equal(before.id_map, street().id_map)


def test_a_hidden_segment_is_gone() -> None:
    before = street()
    after = paste(before, np.zeros((60, 80, 3), np.uint8), np.ones((60, 80), bool), 1, 1.0, (60, 40))
    assert [segment.label for segment in after.segments] == [1]
    assert (after.id_map == after.segments[0].id).all()


def test_an_object_in_its_own_size_is_the_object() -> None:
    source = street(1)
    object_, mask = cut_out(source, 9)
    assert object_.shape == (24, 30, 3) and mask.all()
    after = paste(street(), object_, mask, 1, 1.0, (55, 50))
    pasted = after.id_map == after.segments[-1].id
    assert pasted.sum() == mask.sum() and pasted[31:55, 35:65].all()
    inner = after.image[34:52, 38:62]
    assert np.abs(inner.astype(int) - object_[3:21, 3:27]).max() <= 1


def test_objects_stand_on_their_ground(tiny: TinyPanoptic) -> None:
    own = ObjectPaste(Streets(tiny), [0, 1], onto=[0], count=3)
    several = 0
    for seed in range(40):
        after = own(street(5), np.random.default_rng(seed))
        several += len(after.segments) > 3
        for segment in after.segments[2:]:
            rows = np.flatnonzero((after.id_map == segment.id).any(1))
            assert rows[-1] >= 30  # a foot on the road, where it was not hidden by the next object
            assert len(rows) <= 1.4 * (rows[-1] - 29 + 1)  # as tall as what reaches about to the horizon
    assert several


def test_only_whole_objects_are_taken(tiny: TinyPanoptic) -> None:
    reader = Streets(tiny)
    assert len(ObjectPaste(reader, [0], [0], 3)._find()[1]) == 1
    cut = street()
    cut.id_map[28:52, 0:40] = 9
    reader.read = lambda index: cut  # type: ignore[method-assign]
    assert ObjectPaste(reader, [0], [0], 3)._find() == {}
    small = street()
    small.id_map[small.id_map == 9] = 4
    small.id_map[40 : 40 + LEAST - 1, 20:30] = 9
    reader.read = lambda index: small  # type: ignore[method-assign]
    assert ObjectPaste(reader, [0], [0], 3)._find() == {}


def test_the_same_luck_gives_the_same_sample(tiny: TinyPanoptic) -> None:
    one, other = (ObjectPaste(Streets(tiny), [0, 1], [], 3)(street(), np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(one.id_map, other.id_map) and np.array_equal(one.image, other.image)


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_cameras_change_colours_only(chance: float) -> None:
    image = torch.from_numpy(street().image).permute(2, 0, 1).contiguous()
    changed = random_camera(image, chance, np.random.default_rng(0))
    assert changed.shape == image.shape and changed.dtype == torch.uint8
    assert torch.equal(changed, image) == (chance == 0)
    assert torch.equal(changed, random_camera(image, chance, np.random.default_rng(0)))


def test_a_camera_draws_the_same_whatever_happens() -> None:
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    left = []
    for chance in (0.0, 0.01):
        rng = np.random.default_rng(3)
        random_camera(image, chance, rng)
        left.append(rng.random())
    assert left[0] == left[1]
