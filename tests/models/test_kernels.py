"""Laws of the shared idea."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from knet.models.decoder import KernelDecoder
from knet.models.kernels import AdaptiveUpdate, Interaction, Stage, group_features, predict_masks


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_mask_is_the_dot_product_of_its_kernel_with_every_pixel() -> None:
    kernels, features = rand(2, 5, 8), rand(2, 8, 3, 4, seed=1)
    masks = predict_masks(kernels, features)
    assert masks.is_contiguous()
    assert torch.allclose(masks[1, 3, 2, 0], kernels[1, 3] @ features[1, :, 2, 0])


@given(seed=st.integers(0, 1000), value=st.floats(-3, 3))
@settings(max_examples=20, deadline=None)
def test_mean_pooling_of_a_constant_is_the_constant(seed: int, value: float) -> None:
    masks = rand(1, 4, 6, 7, seed=seed)
    group = group_features(masks, torch.full((1, 3, 6, 7), value), "mean")
    filled = (masks.sigmoid() > 0.5).any(dim=3).any(dim=2)
    expected = torch.where(filled[..., None], value, 0.0).expand(1, 4, 3)
    assert torch.allclose(group, expected, atol=1e-5)


def test_pooling_of_all_kinds_by_hand() -> None:
    masks = torch.tensor([[[[5.0, -5.0]], [[1.0, 2.0]]]])  # kernel 0 has pixel 0, kernel 1 both
    features = torch.tensor([[[[10.0, 20.0]]]])
    assert group_features(masks, features, "sum").flatten().tolist() == [10, 30]
    assert group_features(masks, features, "mean").flatten().tolist() == [10, 15]
    share = masks.softmax(1).flatten(2) @ features.flatten(2).transpose(1, 2)
    assert torch.allclose(group_features(masks, features, "softmax"), share)


def test_a_pixel_on_the_threshold_is_outside_the_mask() -> None:
    masks = torch.tensor([[[[0.0, 1e-9, 1.0]]]])  # sigmoid of 1e-9 is 0.5 in float32
    features = torch.ones(1, 1, 1, 3)
    assert group_features(masks, features, "sum").item() == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_group_features_of_a_large_half_precision_map_neither_overflow_nor_vanish(dtype: torch.dtype) -> None:
    features = torch.full((1, 2, 128, 256), 30.0, dtype=dtype)
    masks = torch.ones(1, 3, 128, 256, dtype=dtype)
    assert group_features(masks, features, "mean").allclose(torch.tensor(30.0))
    assert group_features(masks, features, "sum").allclose(torch.tensor(30.0 * 128 * 256))


def test_half_precision_pooling_is_float32_under_autocast() -> None:
    features, masks = rand(1, 8, 16, 16), rand(1, 3, 16, 16, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        inside = group_features(masks, features, "mean")
    assert torch.equal(inside, group_features(masks, features, "mean"))


def test_permuting_kernels_permutes_everything() -> None:
    stage = Stage(16, 5, "mean", transform=False, hidden=32).eval()
    features, kernels, masks = rand(1, 16, 6, 8), rand(1, 7, 16, seed=1), rand(1, 7, 6, 8, seed=2)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    plain = stage(features, kernels, masks)
    permuted = stage(features, kernels[:, order], masks[:, order])
    for before, after in zip(plain[:3], permuted[:3], strict=True):
        assert torch.allclose(before[:, order], after, atol=1e-5)


def test_masks_pass_no_gradient_through_hard_pooling() -> None:
    masks = rand(1, 4, 5, 5).requires_grad_()
    features = rand(1, 3, 5, 5, seed=1).requires_grad_()
    group_features(masks, features, "mean").sum().backward()
    assert masks.grad is None
    assert features.grad is not None


def test_interaction_with_other_kernels_as_memory() -> None:
    interaction = Interaction(16, heads=4, hidden=32).eval()
    kernels = rand(2, 5, 16)
    assert torch.allclose(interaction(kernels), interaction(kernels, kernels))
    assert interaction(kernels, rand(2, 9, 16, seed=1)).shape == kernels.shape


def test_a_transform_is_applied_before_pooling_and_prediction() -> None:
    stage = Stage(8, 2, "sum", transform=True, hidden=16).eval()
    features, kernels, masks = rand(1, 8, 4, 4), rand(1, 3, 8, seed=1), rand(1, 3, 4, 4, seed=2)
    _, masks_out, _, seen = stage(features, kernels, masks)
    assert torch.equal(seen, stage.transform(features))
    assert masks_out.shape == masks.shape


def test_the_update_ignores_a_group_whose_gate_is_shut() -> None:
    update = AdaptiveUpdate(8).eval()
    with torch.no_grad():
        update.group_gate_norm.weight.zero_()
        update.group_gate_norm.bias.fill_(-1e4)
        update.kernel_gate_norm.weight.zero_()
    kernels = rand(1, 3, 8)
    assert torch.allclose(update(rand(1, 3, 8, seed=1), kernels), update(rand(1, 3, 8, seed=2), kernels), atol=1e-6)


def test_kernels_wider_than_the_update_are_updated_part_by_part() -> None:
    update = AdaptiveUpdate(8).eval()
    group, kernels = rand(2, 5, 16), rand(2, 5, 16, seed=1)
    parts = [update(group[..., part], kernels[..., part]) for part in (slice(0, 8), slice(8, 16))]
    assert torch.allclose(update(group, kernels), torch.cat(parts, dim=-1), atol=1e-6)


def test_the_decoder_gives_an_output_for_the_initial_masks_and_one_a_stage() -> None:
    decoder = KernelDecoder(channels=16, kernels=6, classes=4, stages=3, hidden=32)
    outputs = decoder(rand(2, 16, 8, 8))
    assert [output.class_logits is None for output in outputs] == [True, False, False, False]
    assert outputs[-1].mask_logits.shape == (2, 6, 8, 8)
    assert outputs[-1].class_logits.shape == (2, 6, 4)
    # Official, in no paper: the first stage's kernels are the learned ones plus the initial masks' group features.
    group = group_features(outputs[0].mask_logits, outputs[0].features, "mean")
    assert torch.allclose(outputs[0].kernels, decoder.kernels + group)
