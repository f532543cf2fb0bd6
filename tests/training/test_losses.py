"""Laws of the losses: textbook formulas, borders, gradients, and half precision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from knet.training.losses import (
    IGNORE,
    dice_loss,
    focal_loss,
    instance_discrimination_loss,
    mask_loss,
    rank_loss,
    sample_pixels,
    segment_index,
    semantic_loss,
)

seeds = st.integers(0, 2**31)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def partition(B: int, T: int, h: int, w: int, seed: int = 0) -> Tensor:
    """Masks (B,T,h,w) of 0 or 1 that do not overlap and leave some pixels void."""
    ids = torch.randint(0, T + 1, (B, 1, h, w), generator=torch.Generator().manual_seed(seed))
    return (ids == torch.arange(1, T + 1)[:, None, None]).float()


def test_focal_loss_is_the_textbook_formula() -> None:
    logits, targets = random(2, 5, 3), (random(2, 5, 3, seed=1) > 1).float()
    p = logits.sigmoid()
    positive = -0.25 * (1 - p) ** 2 * p.log()
    negative = -0.75 * p**2 * (1 - p).log()
    expected = torch.where(targets > 0, positive, negative).sum()
    torch.testing.assert_close(focal_loss(logits, targets), expected)


def test_focal_loss_without_focus_is_half_the_cross_entropy() -> None:
    logits, targets = random(4, 6), (random(4, 6, seed=1) > 0).float()
    expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / 2
    torch.testing.assert_close(focal_loss(logits, targets, alpha=0.5, gamma=0.0), expected)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, masks=st.integers(1, 5))
def test_perfect_masks_cost_nothing_and_inverted_masks_everything(seed: int, masks: int) -> None:
    truth = partition(1, masks, 6, 7, seed)[0]
    truth = truth[truth.flatten(1).any(1)]
    sure = (truth * 2 - 1) * 50
    assert dice_loss(sure, truth) <= 1e-3 and mask_loss(sure, truth) <= 1e-6
    if len(truth):
        assert dice_loss(-sure, truth) >= 0.999 and mask_loss(-sure, truth) == pytest.approx(50)


def test_dice_loss_counts_small_and_large_masks_alike() -> None:
    truth = torch.zeros(2, 8, 8)
    truth[0, 0, 0] = 1  # found
    truth[1, 2:] = 1  # missed
    logits = torch.full((2, 8, 8), -50.0)
    logits[0, 0, 0] = 50
    assert dice_loss(logits, truth) == pytest.approx(0.5, abs=1e-3)


def test_rank_loss_is_cross_entropy_over_kernels_and_ignored_pixels_are_zeros() -> None:
    logits = random(2, 5, 3, 4).requires_grad_()
    owners = torch.randint(0, 5, (2, 3, 4), generator=torch.Generator().manual_seed(1))
    owners[0, 0] = IGNORE
    loss = rank_loss(logits, owners)
    log_p = logits.detach().log_softmax(1)
    total = sum(
        -log_p[b, owners[b, y, x], y, x] for b in range(2) for y in range(3) for x in range(4) if owners[b, y, x] >= 0
    )
    torch.testing.assert_close(loss.detach(), torch.as_tensor(total / 24))
    loss.backward()
    assert logits.grad is not None and not logits.grad[0, :, 0].any() and logits.grad[0, :, 1].all()


def test_semantic_loss_is_the_hardest_fifth_over_the_labelled_pixels() -> None:
    logits = random(2, 4, 5, 5)
    labels = torch.randint(0, 4, (2, 5, 5), generator=torch.Generator().manual_seed(1))
    labels[1, :2] = IGNORE
    losses = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none").flatten().sort().values
    torch.testing.assert_close(semantic_loss(logits, labels), losses[-10:].sum() / 40)


def naive_instance_loss(features: Tensor, masks: Tensor, temperature: float) -> Tensor:
    """Over all pixels, by the definition: softmax of similarities against the row-normalised same-segment matrix."""
    losses = []
    for feature, mask in zip(F.normalize(features.flatten(2), dim=1), masks.round().flatten(2), strict=True):
        same = mask.T @ mask
        same = same / same.sum(1, keepdim=True).clamp(min=1)
        losses.append(-(same * (feature.T @ feature / temperature).log_softmax(1)).sum(1))
    return torch.stack(losses).mean()


@settings(max_examples=20, deadline=None)
@given(seed=seeds, segments=st.integers(0, 6))
def test_instance_loss_is_its_definition(seed: int, segments: int) -> None:
    features, masks = random(2, 8, 6, 5, seed=seed), partition(2, segments, 6, 5, seed)
    loss = instance_discrimination_loss(features, masks)  # fewer pixels than 4096: all of them, whatever the noise
    torch.testing.assert_close(loss, naive_instance_loss(features, masks, 0.3), atol=1e-5, rtol=1e-5)


def test_instance_loss_falls_when_pixels_of_a_segment_look_alike() -> None:
    masks = partition(1, 3, 8, 8)
    own = F.one_hot(segment_index(masks), 4).movedim(-1, 1).float()
    assert instance_discrimination_loss(own, masks) < instance_discrimination_loss(random(1, 4, 8, 8), masks)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (64, 64)])
def test_instance_loss_takes_images_of_any_size(size: tuple[int, int]) -> None:
    features = random(2, 4, *size).requires_grad_()
    instance_discrimination_loss(features, partition(2, 3, *size)).backward()
    assert features.grad is not None and features.grad.isfinite().all()


def test_pixels_are_drawn_once_void_last_and_small_segments_more_often() -> None:
    segments = torch.zeros(1, 1000, dtype=torch.int64)
    segments[0, :400], segments[0, 400:410] = 1, 2
    torch.manual_seed(0)
    shares = torch.zeros(2)
    for _ in range(200):
        chosen = sample_pixels(segments, None, 2, 100, 0.3)[0]
        assert len(chosen.unique()) == 100 and (segments[0, chosen] > 0).all()
        shares += torch.stack([(segments[0, chosen] == s).sum() for s in (1, 2)]) / torch.tensor([400, 10])
    assert shares[1] > 1.5 * shares[0]
    everything = sample_pixels(segments, None, 2, 4096, 0.3)[0]
    assert (segments[0, everything[:410]] > 0).all() and len(everything) == 1000


def test_noise_decides_the_draw() -> None:
    segments, noise = torch.ones(1, 50, dtype=torch.int64), torch.rand(1, 50)
    assert torch.equal(sample_pixels(segments, noise, 1, 7, 0.3), noise.topk(7).indices)


def test_a_pixel_split_in_two_halves_belongs_to_nobody() -> None:
    masks = torch.tensor([[0.5, 0.75, 0.0, 0.25], [0.5, 0.25, 1.0, 0.25]])[None, :, None]
    assert segment_index(masks).flatten().tolist() == [0, 1, 2, 0]
    assert segment_index(torch.zeros(2, 0, 3, 4)).shape == (2, 3, 4)


LOSSES: dict[str, tuple[Callable[..., Tensor], tuple[int, ...], Tensor]] = {
    "class": (focal_loss, (2, 6, 3), (random(2, 6, 3, seed=5) > 1).double()),
    "mask": (mask_loss, (3, 4, 5), partition(1, 3, 4, 5)[0].double()),
    "dice": (dice_loss, (3, 4, 5), partition(1, 3, 4, 5)[0].double()),
    "rank": (rank_loss, (2, 6, 3, 4), torch.arange(24).view(2, 3, 4) % 6),
    "semantic": (semantic_loss, (2, 6, 3, 4), torch.arange(24).view(2, 3, 4) % 6),
    "instance": (instance_discrimination_loss, (2, 6, 3, 4), partition(2, 3, 3, 4).double()),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_right(name: str) -> None:
    loss, shape, truth = LOSSES[name]
    logits = random(*shape, dtype=torch.float64).requires_grad_()
    assert loss(logits, truth).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda x: loss(x, truth), (logits,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_lifted_also_under_autocast(name: str, dtype: torch.dtype) -> None:
    loss, shape, truth = LOSSES[name]
    truth = truth.float() if truth.is_floating_point() else truth
    logits = (random(*shape) * 30).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(logits, truth)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(logits.detach().float(), truth))
    value.backward()
    assert logits.grad is not None and logits.grad.dtype == dtype and logits.grad.isfinite().all()


def test_losses_of_nothing_are_zeros_with_a_graph() -> None:
    logits = random(2, 5, 4, 4).requires_grad_()
    nothing = torch.full((2, 4, 4), IGNORE)
    losses = [
        mask_loss(logits[0, :0], torch.zeros(0, 4, 4)),
        dice_loss(logits[0, :0], torch.zeros(0, 4, 4)),
        rank_loss(logits, nothing),
        semantic_loss(logits, nothing),
        instance_discrimination_loss(logits, torch.zeros(2, 0, 4, 4)),
        instance_discrimination_loss(logits, torch.zeros(2, 3, 4, 4)),
    ]
    for loss in losses:
        assert loss == 0 and loss.requires_grad
    torch.stack(losses).sum().backward()
    assert logits.grad is not None and not logits.grad.any()


def test_the_dice_loss_of_half_a_pixel_by_hand() -> None:
    """1 - 2 p t / (p^2 + t^2 + 2 eps), where eps is far from nothing beside a single pixel."""
    half, one = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    assert dice_loss(half, one).item() == pytest.approx(1 - 1 / (0.25 + 1 + 0.002), abs=1e-6)
    assert dice_loss(half, one, eps=0.25).item() == pytest.approx(1 - 1 / 1.75, abs=1e-6)
    unsure = torch.full((1, 1, 1), 0.01).logit()
    assert dice_loss(unsure, 0.01 * one).item() == pytest.approx(1 - 0.0002 / 0.0022, abs=1e-5)
