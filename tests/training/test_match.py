"""Laws of the matching: costs by their definition, one-to-one assignments, and costs that are not numbers."""

from __future__ import annotations

import math
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from knet.training.match import Match, assign, class_cost, dice_cost, last_owners, mask_cost, matching_cost, owners

B, N, T, K = 2, 6, 3, 4


@pytest.fixture
def case() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mask logits, class logits, masks, labels."""
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(B, N, 5, 7, generator=generator) * 4,
        torch.randn(B, N, K, generator=generator),
        torch.randint(0, 5, (B, T, 5, 7), generator=generator) / 4,
        torch.randint(0, K, (B, T), generator=generator),
    )


def test_costs_are_what_their_definitions_say(case: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    logits, classes, masks, labels = case
    cost = matching_cost(logits, classes, masks, labels)
    for b in range(B):
        for n in range(N):
            for t in range(T):
                truth, p = masks[b, t], logits[b, n].sigmoid()
                high, low = p.clamp(min=0.01), p.clamp(min=0.001)
                mask = -(high * truth + (1 - high) * (1 - truth)).mean()
                dice = -2 * (low * truth).sum() / (low.square().sum() + truth.square().sum() + 0.002)
                q = classes[b, n, labels[b, t]].sigmoid()
                focal = -0.25 * (1 - q) ** 2 * torch.log(q) + 0.75 * q**2 * torch.log(1 - q)
                torch.testing.assert_close(cost[b, n, t], 2 * focal + mask + 4 * dice)


def test_a_stage_without_classes_has_no_class_cost(case: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    logits, classes, masks, labels = case
    difference = matching_cost(logits, classes, masks, labels) - matching_cost(logits, None, masks, labels)
    torch.testing.assert_close(difference, 2 * class_cost(classes, labels), atol=1e-5, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_the_right_mask_is_the_cheapest(seed: int) -> None:
    masks = (torch.rand(1, 4, 6, 6, generator=torch.Generator().manual_seed(seed)) > 0.5).float()
    masks[0, :, 0] = torch.eye(4, 6)  # all different, none empty
    for cost in (mask_cost(masks, masks), dice_cost(masks, masks)):
        assert (cost >= -1 - 1e-5).all() and (cost <= 1e-5).all()
        assert (cost[0].diagonal() < -0.999).all() and (cost[0].argmin(0) == torch.arange(4)).all()


def test_half_precision_costs_are_float32_also_under_autocast(case: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    logits, classes, masks, labels = case
    for dtype in (torch.float16, torch.bfloat16):
        half = (logits * 20).to(dtype), (classes * 20).to(dtype)
        with torch.autocast("cpu", torch.bfloat16):
            cost = matching_cost(*half, masks, labels)
        assert cost.dtype == torch.float32 and cost.isfinite().all()
        torch.testing.assert_close(cost, matching_cost(half[0].float(), half[1].float(), masks, labels))


def test_no_cost_comes_near_the_one_of_invalid_numbers() -> None:
    worst = matching_cost(
        torch.full((1, 1, 2, 2), 1e4), torch.full((1, 1, K), -1e4), torch.zeros(1, 1, 2, 2), torch.zeros(1, 1).long()
    )
    assert worst.abs().max() < 60


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), kernels=st.integers(1, 9), segments=st.integers(0, 9))
def test_assignments_are_one_to_one_complete_and_follow_the_kernels(seed: int, kernels: int, segments: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    cost = torch.randn(1, kernels, segments + 2, generator=generator)
    cost[..., segments:] = -100  # padding looks cheap but must not be taken
    ((match,),), invalid = assign([cost], [segments])
    assert invalid == 0 and len(match.kernels) == len(match.segments) == min(kernels, segments)
    assert match.kernels.dtype == match.segments.dtype == torch.int64
    assert match.kernels.tolist() == sorted(set(match.kernels.tolist()))
    assert len(set(match.segments.tolist())) == len(match.segments) and (match.segments < segments).all()
    order = torch.randperm(kernels, generator=generator)
    ((moved,),), _ = assign([cost[:, order]], [segments])
    pairs = set(zip(match.kernels.tolist(), match.segments.tolist(), strict=True))
    assert {(int(order[k]), int(s)) for k, s in zip(moved.kernels, moved.segments, strict=True)} == pairs


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), kernels=st.integers(1, 9), segments=st.integers(0, 9), data=st.data())
def test_held_pairs_stay_and_the_others_are_matched_among_themselves(
    seed: int, kernels: int, segments: int, data: st.DataObject
) -> None:
    generator = torch.Generator().manual_seed(seed)
    cost = 50 * torch.randn(1, kernels, segments, generator=generator)
    number = data.draw(st.integers(0, min(kernels, segments)))
    held = Match(torch.randperm(kernels, generator=generator)[:number], torch.randperm(segments)[:number])
    ((match,),), _ = assign([cost], [segments], [held])
    pairs = set(zip(*(x.tolist() for x in match), strict=True))
    given_pairs = set(zip(*(x.tolist() for x in held), strict=True))
    assert given_pairs <= pairs and len(pairs) == min(kernels, segments)
    rows = [k for k in range(kernels) if k not in held.kernels]
    columns = [s for s in range(segments) if s not in held.segments]
    ((rest,),), _ = assign([cost[:, rows][..., columns]], [len(columns)])
    assert {(rows[k], columns[s]) for k, s in zip(*(x.tolist() for x in rest), strict=True)} == pairs - given_pairs


def test_invalid_costs_are_counted_and_avoided() -> None:
    cost = torch.zeros(2, 4, 2)
    cost[0, 0], cost[0, 1, 0] = math.nan, math.inf
    cost[0, 2, 0] = -math.inf
    matches, invalid = assign([cost, torch.zeros(2, 4, 2)], [2, 2])
    assert invalid == 4 and [len(stage) for stage in matches] == [2, 2]
    assert dict(zip(*(x.tolist() for x in matches[0][0]), strict=True)).get(3) == 0
    assert 0 not in matches[0][0].kernels


def test_nothing_but_invalid_costs_gives_no_matches() -> None:
    cost = torch.stack([torch.full((4, 2), math.nan), torch.zeros(4, 2)])
    ((broken, sound),), invalid = assign([cost], [2, 2])
    assert invalid == 8 and len(broken.kernels) == 0 and len(sound.kernels) == 2


def test_what_is_held_stays_also_where_nothing_can_be_compared() -> None:
    held = Match(torch.tensor([3, 1]), torch.tensor([0, 1]))
    ((match,),), _ = assign([torch.full((1, 4, 3), math.nan)], [3], [held])
    assert match.kernels.tolist() == [1, 3] and match.segments.tolist() == [1, 0]


def test_all_costs_travel_to_the_host_in_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = []
    to_host = Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda self: copies.append(self.shape) or to_host(self))
    matches, _ = assign([torch.rand(3, 5, 4) for _ in range(5)], [4, 0, 2])
    assert len(copies) == 1 and [[len(m.kernels) for m in stage] for stage in matches] == [[4, 0, 2]] * 5


def test_a_pixel_is_owned_by_the_largest_mask_and_by_the_lower_kernel_on_ties() -> None:
    masks = torch.tensor([[0.5, 0.25, 0.5, 0.0], [0.5, 0.75, 0.25, 0.25]])[:, None]
    assert owners(torch.tensor([3, 8]), masks, nobody=-1).tolist() == [[3, 8, 3, -1]]
    assert owners(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2, 2), nobody=-1).tolist() == [[-1, -1], [-1, -1]]


def test_matches_are_as_cheap_as_any_other(case: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    cost = matching_cost(*case)
    (stage,), _ = assign([cost], [T, T])
    for b, match in enumerate(stage):
        best = cost[b][match.kernels, match.segments].sum()
        for seed in range(50):
            kernels = np.random.default_rng(seed).permutation(N)[:T]
            assert best <= cost[b][kernels, np.arange(T)].sum() + 1e-6


@given(seed=st.integers(0, 2**31), count=st.integers(0, 4))
def test_the_last_mask_that_touches_a_pixel_owns_it(seed: int, count: int) -> None:
    g = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, 3, 5, generator=g) * (torch.rand(count, 3, 5, generator=g) > 0.5)
    values = torch.randint(0, 50, (count,), generator=g)
    painted = torch.full((3, 5), -1)
    for value, mask in zip(values, masks, strict=True):
        painted[mask > 0] = value
    assert torch.equal(last_owners(values, masks, -1), painted)


def test_k_nets_cost_takes_probabilities_as_they_are() -> None:
    logits = torch.full((1, 2, 4, 4), -50.0)
    logits[0, 0, :2] = 50
    masks = torch.zeros(1, 1, 4, 4)
    masks[0, 0, :2] = 1
    labels = torch.zeros(1, 1, dtype=torch.int64)
    plain = matching_cost(logits, None, masks, labels, floors=(0.0, 0.0))[0, :, 0]
    assert plain.tolist() == pytest.approx([-1 - 4 * 16 / 16.002, -0.5], abs=1e-5)
    assert (matching_cost(logits, None, masks, labels)[0, :, 0] != plain).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), kernels=st.integers(1, 6), segments=st.integers(1, 6))
def test_no_assignment_at_all_is_cheaper(seed: int, kernels: int, segments: int) -> None:
    cost = torch.randint(-9, 10, (1, kernels, segments), generator=torch.Generator().manual_seed(seed)).float()
    ((match,),), _ = assign([cost], [segments])
    found = cost[0][match.kernels, match.segments].sum().item()
    few = min(kernels, segments)
    every = [
        sum(cost[0][k, s].item() for k, s in zip(rows, columns, strict=True))
        for rows in combinations(range(kernels), few)
        for columns in permutations(range(segments), few)
    ]
    assert found == min(every)
