"""K-Net's merging, by hand and as laws."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from knet.merge.panoptic import number_segments
from knet.merge.sorted import best_instances, enlarge, instances, merge_sorted, panoptic_classes, to_image
from knet.preprocess import ImageSizes

THINGS = torch.tensor([True, True, False])


def logit(p: float) -> float:
    return float(torch.tensor(p).logit())


def test_resizing_cuts_the_padding_away() -> None:
    mask = torch.full((1, 4, 4), -20.0)
    mask[:, :2, :3] = 20.0  # the image fills 16 x 24 of 32 x 32 pixels
    grid = enlarge(mask)
    assert to_image(grid, ImageSizes((32, 32), (14, 22), (14, 22)))(grid[0]).shape == (14, 22)
    assert to_image(grid, ImageSizes((32, 32), (14, 20), (7, 10)))(grid[0]).min() > 0.9
    assert to_image(grid, ImageSizes((32, 32), (32, 32), (32, 32)))(grid[0]).min() < 0.1


def test_stuff_kernels_keep_their_own_class() -> None:
    class_logits = torch.tensor(
        [[1.0, 2.0, 9.0, 9.0], [0.0, -1.0, 9.0, 9.0], [9.0, 9.0, 0.0, 3.0], [9.0, 9.0, 1.0, -3.0]]
    )
    scores, labels = panoptic_classes(class_logits, stuff=[2, 3])
    assert labels.tolist() == [1, 0, 2, 3]
    assert torch.allclose(scores, torch.tensor([2.0, 0.0, 0.0, -3.0]).sigmoid())
    scores, labels = panoptic_classes(class_logits[:, [2, 3, 0, 1]], stuff=[0, 1])  # stuff may come first in a table
    assert labels.tolist() == [3, 2, 0, 1]


def test_the_merging_by_hand() -> None:
    probabilities = torch.tensor(
        [
            [[0.9, 0.9, 0.6, 0.2, 0.0, 0.0]],  # wins pixels 0 and 1 of the three above 0.5: a share of 2 / 3
            [[0.0, 0.0, 0.9, 0.9, 0.0, 0.0]],  # keeps all that is its own
            [[0.0, 0.0, 0.0, 0.0, 0.9, 0.0]],  # a thing with a low score: its pixel becomes void, not stuff
            [[0.1, 0.1, 0.1, 0.1, 0.1, 0.9]],  # stuff with a low score stays
        ]
    )
    scores, labels = torch.tensor([0.7, 0.9, 0.2, 0.1]), torch.tensor([0, 1, 0, 2])
    merged = merge_sorted(probabilities, scores, labels, THINGS, score=0.3, overlap=0.6)
    assert merged.scores.tolist() == sorted(scores.tolist(), reverse=True)
    id_map, rows, kernel_of = number_segments(merged, THINGS)
    assert id_map.tolist() == [[2, 2, 1, 1, 0, 3]]
    assert [(number, label) for number, label, _ in rows] == [(1, 1), (2, 0), (3, 2)]
    assert kernel_of == {1: 1, 2: 0, 3: 3}
    strict = merge_sorted(probabilities, scores, labels, THINGS, score=0.3, overlap=0.7)
    assert (strict.owner == torch.tensor([[-1, -1, 0, 0, -1, 3]])).all()


def test_a_share_of_exactly_the_threshold_is_kept() -> None:
    probabilities = torch.tensor([[[0.9, 0.9, 0.9, 0.6, 0.6]], [[0.0, 0.0, 0.0, 0.9, 0.9]]])
    merged = merge_sorted(probabilities, torch.tensor([0.8, 0.9]), torch.tensor([0, 1]), THINGS, 0.0, 0.6)
    assert (merged.owner >= 0).all()  # 3 of 5 pixels, and 3 / 5 is not below 0.6


def test_a_mask_that_wins_pixels_but_is_nowhere_above_half_is_void() -> None:
    merged = merge_sorted(torch.full((1, 2, 2), 0.4), torch.tensor([0.9]), torch.tensor([0]), THINGS, 0.0, 0.0)
    assert (merged.owner == -1).all()


@given(seed=st.integers(0, 10_000), score=st.floats(0, 1), overlap=st.floats(0, 1))
@settings(max_examples=50)
def test_kept_masks_own_what_they_won_and_nothing_else_has_an_owner(seed: int, score: float, overlap: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    probabilities, scores = torch.rand(6, 5, 7, generator=generator), torch.rand(6, generator=generator)
    labels = torch.randint(0, 3, (6,), generator=generator)
    merged = merge_sorted(probabilities, scores, labels, THINGS, score, overlap)
    order = scores.argsort(descending=True)
    assert torch.equal(merged.labels, labels[order])
    best = (scores[:, None, None] * probabilities)[order].argmax(0)
    assert torch.equal(merged.owner, torch.where(merged.owner < 0, -1, best))
    for place in range(6):
        won, owned = int((best == place).sum()), int((merged.owner == place).sum())
        large = int((probabilities[order[place]] >= 0.5).sum())
        kept = won > 0 and large > 0 and won / large >= overlap
        kept = kept and (not THINGS[merged.labels[place]] or bool(merged.scores[place] >= score))
        assert owned == (won if kept else 0)


def test_masks_with_equal_scores_keep_their_order() -> None:
    merged = merge_sorted(torch.eye(40)[:, None], torch.full((40,), 0.5), torch.zeros(40, dtype=int), THINGS, 0.1, 0.5)
    assert merged.kernels.tolist() == list(range(40)) and merged.owner.tolist() == [list(range(40))]


def test_a_kernel_may_be_several_objects_and_low_scores_may_be_left_out() -> None:
    class_logits = torch.tensor([[2.0, 1.0], [-3.0, 0.0]])
    scores, labels, kernels = best_instances(class_logits, count=3)
    assert (labels.tolist(), kernels.tolist()) == ([0, 1, 1], [0, 0, 1])
    assert torch.allclose(scores, torch.tensor([2.0, 1.0, 0.0]).sigmoid())
    assert len(best_instances(class_logits, count=100)[0]) == 4
    mask_logits = torch.tensor([[[logit(0.6)]], [[logit(0.4)]]])
    found = instances(mask_logits, class_logits, ImageSizes((2, 2), (2, 2), (3, 3)), pack=np.copy, score=0.3)
    assert [mask is not None and mask.all() for mask in found.masks] == [True, True, False]
    assert (found.best == 1).all()
    nothing = instances(mask_logits, class_logits, ImageSizes((2, 2), (2, 2), (3, 3)), pack=np.copy, score=0.99)
    assert not nothing.masks
    assert (nothing.best == 0).all()


def test_a_hundred_objects_are_given_unless_another_number_is_asked_for() -> None:
    class_logits, sizes = torch.arange(150.0)[:, None] / 50, ImageSizes((2, 2), (2, 2), (2, 2))
    for options, count in (({}, 100), ({"count": 120}, 120), ({"count": 3}, 3)):
        found = instances(torch.ones(150, 1, 1), class_logits, sizes, pack=np.copy, **options)
        assert found.kernels.tolist() == list(range(149, 149 - count, -1)) and len(found.masks) == count
        assert len(best_instances(class_logits, **options)[0]) == count


def test_a_probability_of_one_half_is_outside_an_instance() -> None:
    found = instances(torch.zeros(1, 2, 2), torch.ones(1, 1), ImageSizes((4, 4), (4, 4), (4, 4)), pack=np.copy)
    assert found.masks == [None]
