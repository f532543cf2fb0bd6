"""Objects as connected regions."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from knet.merge.panoptic import MergedMasks, number_segments
from knet.merge.regions import as_regions

THINGS = torch.tensor([False, True, True])


def merged(owner: list[list[int]], labels: list[int]) -> MergedMasks:
    """Masks with the scores 0.9, 0.8, ... and the kernels 10, 11, ..."""
    pixels = torch.tensor(owner, dtype=torch.int32)
    areas = torch.bincount(pixels[pixels >= 0].long(), minlength=len(labels))
    count = torch.arange(len(labels))
    return MergedMasks(pixels, areas, torch.tensor(labels), 0.9 - 0.1 * count, 10 + count)


def test_a_mask_in_two_places_is_two_objects_and_touching_masks_stay_two() -> None:
    found = as_regions(merged([[1, 0, 0, 1, 2], [1, 0, 0, 1, 2], [3, 3, 3, 2, 2]], [0, 1, 1, 2]), THINGS, 1)
    id_map, rows, kernel_of = number_segments(found, THINGS)
    assert id_map.tolist() == [[2, 1, 1, 3, 4], [2, 1, 1, 3, 4], [5, 5, 5, 4, 4]]
    assert [(label, round(score, 1)) for _, label, score in rows] == [(0, 0.9), (1, 0.8), (1, 0.8), (1, 0.7), (2, 0.6)]
    assert kernel_of == {1: 10, 2: 11, 3: 11, 4: 12, 5: 13}


def test_specks_become_void_and_stuff_stays() -> None:
    found = as_regions(merged([[1, 0, 1, 1], [0, 0, -1, 1]], [0, 1]), THINGS, 2)
    assert number_segments(found, THINGS)[0].tolist() == [[0, 1, 2, 2], [1, 1, 0, 2]]


def test_an_image_without_things_or_masks() -> None:
    only_stuff = merged([[0, -1]], [0])
    assert number_segments(as_regions(only_stuff, THINGS, 1), THINGS)[0].tolist() == [[1, 0]]
    empty = MergedMasks(torch.full((2, 2), -1, dtype=torch.int32), *(torch.zeros(0, dtype=torch.int64),) * 4)
    assert number_segments(as_regions(empty, THINGS, 1), THINGS)[0].tolist() == [[0, 0], [0, 0]]


def test_a_small_part_goes_to_the_object_it_touches() -> None:
    found = as_regions(merged([[0, 0, 1, 2, 2], [0, 0, -1, 2, 2]], [1, 1, 1]), THINGS, 2)
    assert number_segments(found, THINGS)[0].tolist() == [[1, 1, 1, 2, 2], [1, 1, 0, 2, 2]]


def test_small_parts_that_touch_are_an_object_together() -> None:
    found = as_regions(merged([[0, 1, -1, 2], [-1, 1, -1, -1]], [1, 1, 1]), THINGS, 3)
    id_map, _, kernel_of = number_segments(found, THINGS)
    assert id_map.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0]]
    assert kernel_of == {1: 11}  # which has most of it


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_regions_stay_covered_and_large_parts_stay_apart(seed: int, smallest: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 4)
    owner = rng.integers(-1, 4, (7, 9))
    found = as_regions(merged(owner.tolist(), labels.tolist()), THINGS, smallest)
    new, kinds = found.owner.numpy(), found.labels.numpy()
    class_of = np.append(labels, -1)[owner]
    assert (np.append(kinds, -1)[new][new >= 0] == class_of[new >= 0]).all()
    assert (new[class_of == 0] == owner[class_of == 0]).all()
    assert found.areas.tolist() == np.bincount(new[new >= 0], minlength=len(kinds)).tolist()
    for label in (1, 2):
        regions, count = ndimage.label(class_of == label, np.ones((3, 3)))
        for region in range(1, count + 1):
            inside = new[regions == region]
            assert (inside == -1).all() == (inside.size < smallest) == (inside == -1).any()
    objects = list[int]()
    for mask in np.flatnonzero(labels):
        parts, count = ndimage.label(owner == mask, np.ones((3, 3)))
        large = [parts == part for part in range(1, count + 1) if (parts == part).sum() >= smallest]
        for part in large:
            assert len(np.unique(new[part])) == 1
            objects.append(int(new[part][0]))
    assert len(objects) == len(set(objects))
