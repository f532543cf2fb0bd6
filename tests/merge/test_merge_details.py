"""Where a merge draws its lines: thresholds that are met exactly, single pixels, masks of no use."""

import numpy as np
import pytest
import torch

from knet.merge.panoptic import MergedMasks, merge_panoptic, number_segments
from knet.merge.sorted import enlarge, instances, panoptic_classes
from knet.preprocess import ImageSizes


def logits(rows: list[list[float]]) -> torch.Tensor:
    """Masks of one row of pixels by their probabilities."""
    return torch.tensor(rows).logit(eps=1e-6)[:, None]


@pytest.mark.parametrize(("overlap", "kept"), [(0.5, True), (0.5001, False), (0.4999, True)])
def test_a_mask_that_keeps_exactly_the_share_that_is_asked_for_stays(overlap: float, kept: bool) -> None:
    masks = logits([[0.6, 0.6, 0.6, 0.6], [0.9, 0.9, 0.0, 0.0]])  # the first wins 2 of its 4 pixels
    merged = merge_panoptic(masks, torch.tensor([0.9, 0.9]), torch.tensor([0, 1]), (1, 4), 0.1, overlap)
    assert merged.owner.tolist() == [[1, 1, 0, 0] if kept else [1, 1, -1, -1]]
    assert merged.areas.tolist() == [2 if kept else 0, 2]


def test_a_segment_may_be_a_single_pixel() -> None:
    masks = logits([[0.9, 0.0, 0.0], [0.0, 0.9, 0.9]])
    merged = merge_panoptic(masks, torch.tensor([0.9, 0.9]), torch.tensor([0, 1]), (1, 3), 0.1, 0.5)
    assert merged.owner.tolist() == [[0, 1, 1]] and merged.areas.tolist() == [1, 2]


@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_a_mask_that_is_nowhere_above_a_half_is_void(overlap: float) -> None:
    masks = logits([[0.4, 0.4, 0.0], [0.0, 0.0, 0.9]])
    merged = merge_panoptic(masks, torch.tensor([0.9, 0.9]), torch.tensor([0, 1]), (1, 3), 0.1, overlap)
    assert merged.owner.tolist() == [[-1, -1, 1 if overlap else -1]]  # the official code: a limit of 0 keeps nothing


def test_the_score_that_is_asked_for_is_enough() -> None:
    masks = logits([[0.9, 0.0, 0.0], [0.0, 0.9, 0.0], [0.0, 0.0, 0.9]])
    scores = torch.tensor([0.5, 0.25, 0.75])
    merged = merge_panoptic(masks, scores, torch.tensor([0, 1, 2]), (1, 3), 0.5, 0.5)
    assert merged.kernels.tolist() == [0, 2] and merged.owner[0, [0, 2]].tolist() == [0, 1]


def test_numbers_scores_and_kernels_of_segments() -> None:
    owner = torch.tensor([[0, 1, 2, 3, 5, -1]], dtype=torch.int32)
    areas, labels = torch.tensor([1, 1, 1, 1, 0, 1]), torch.tensor([0, 1, 0, 1, 1, 0])
    scores = torch.tensor([0.5, 0.25, 0.75, 0.125, 0.875, 0.25])
    merged = MergedMasks(owner, areas, labels, scores, torch.tensor([7, 6, 5, 4, 3, 2]))
    id_map, rows, kernel_of = number_segments(merged, torch.tensor([False, True]))
    assert id_map.tolist() == [[1, 2, 1, 3, 1, 0]]  # the fifth mask owns nothing, those after it count all the same
    assert rows == [(1, 0, 0.75), (2, 1, 0.25), (3, 1, 0.125)]
    assert kernel_of == {1: 2, 2: 6, 3: 4}


def test_only_the_best_candidates_of_things_take_part() -> None:
    class_logits = torch.tensor([[2.0, 1.5, 0.0], [1.0, -1.0, 0.0], [0.0, 0.0, 3.0]])
    scores, labels = panoptic_classes(class_logits, stuff=[2], thing_candidates=2)
    assert labels.tolist() == [0, 0, 2]
    assert scores[1] == 0 and torch.allclose(scores[[0, 2]], torch.tensor([2.0, 3.0]).sigmoid())
    assert panoptic_classes(class_logits, [2], thing_candidates=3)[0][1] == torch.tensor(1.0).sigmoid()


def test_an_object_that_covers_a_part_of_the_image_has_its_mask() -> None:
    mask_logits = torch.full((2, 4, 4), -9.0)
    mask_logits[0, :, :2], mask_logits[1, :, 1:] = 9.0, 9.0
    class_logits = torch.tensor([[1.0], [2.0]])
    found = instances(mask_logits, class_logits, ImageSizes((16, 16), (16, 16), (16, 16)), pack=np.copy)
    assert found.kernels.tolist() == [1, 0] and found.labels.tolist() == [0, 0]
    first, second = found.masks
    assert first[:, 5:].all() and not first[:, :3].any() and second[:, :7].all() and not second[:, 9:].any()
    assert (found.best[:, 5:] == 1).all() and (found.best[:, :3] == 2).all()
    assert (found.best == np.where(first, 1, np.where(second, 2, 0))).all()


def test_a_score_that_is_asked_for_is_enough_for_an_object() -> None:
    class_logits = torch.tensor([[0.0], [-1.0]])
    found = instances(torch.ones(2, 2, 2), class_logits, ImageSizes((4, 4), (4, 4), (4, 4)), pack=np.copy, score=0.5)
    assert found.scores.tolist() == [0.5]


def test_grids_are_enlarged_by_what_is_asked_for() -> None:
    assert enlarge(torch.zeros(3, 4, 5)).shape == (3, 8, 10)
    assert enlarge(torch.zeros(3, 4, 5), 4).shape == (3, 16, 20)
    assert enlarge(torch.zeros(0, 4, 5), 4).shape == (0, 16, 20)
    assert enlarge(torch.zeros(1, 4, 5, dtype=torch.bfloat16)).dtype == torch.float32
