"""Kernels in detail: where they begin, what is exact in half precision, links to the frame before, runs of classes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from knet.errors import ConfigError
from knet.models.decoder import KernelDecoder, PriorLink, class_kernels, refine, stuff_labels
from knet.models.kernels import AdaptiveUpdate, Interaction, Link, LinkedStage, Stage, exact_modules, mlp, sums


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def opened(link: PriorLink) -> PriorLink:
    with torch.no_grad():
        link.gate.copy_(rand(len(link.gate), seed=9))
    return link


@given(labels=st.lists(st.integers(0, 11), min_size=1, max_size=8, unique=True))
@settings(max_examples=60)
def test_kernels_of_classes_are_the_rows_of_the_classifier(labels: list[int]) -> None:
    classifier, logits = nn.Conv2d(4, 12, 1), rand(2, 12, 3, 5)
    kernels, masks = class_kernels(classifier, logits, labels)
    assert torch.equal(kernels, classifier.weight.flatten(1)[labels].expand(2, -1, -1))
    assert torch.equal(masks, logits[:, labels])


def test_stuff_is_among_the_classes() -> None:
    assert stuff_labels((0, 1, 2), 3) == [0, 1, 2] and stuff_labels((), 3) == []
    for wrong in ((3,), (-1, 0)):
        with pytest.raises(ConfigError, match=r"not all among the 3 classes; give stuff= the labels \(0 to 2\)"):
            stuff_labels(wrong, 3)


def test_a_decoder_is_as_published_unless_something_else_is_asked_for() -> None:
    with torch.device("meta"):
        decoder, stage = KernelDecoder(), Stage(256, 19, "mean", False)
        link, linked = Link(256), LinkedStage(256, 19, "sum", False)
    assert decoder.kernels.shape == (100, 256) and len(decoder.stages) == 4 and decoder.pooling == "mean"
    for one in (*decoder.stages, stage, linked):
        assert isinstance(one.transform, nn.Identity) and one.to_class[-1].out_features == 19
    for interaction in (*(one.interaction for one in decoder.stages), link.interaction, linked.link.interaction):
        assert interaction.expand.out_features == 2048 and interaction.attention.num_heads == 8
    assert not link.exact and link.update is None and linked.fusion is None and linked.link.update is None
    assert isinstance(Stage(8, 2, "mean", transform=True, hidden=8).transform, nn.Conv2d)
    with torch.device("meta"):
        assert PriorLink(256).interaction.expand.out_features == 2048 and not PriorLink(256).exact
        assert AdaptiveUpdate().channels == (alone := Interaction()).attention.embed_dim == 256
    assert alone.expand.out_features == 2048 and alone.attention.num_heads == 8


def test_how_weights_begin() -> None:
    torch.manual_seed(0)
    decoder = KernelDecoder(64, 50, classes=4, stages=1, hidden=256)
    assert decoder.kernels.std().item() == pytest.approx(math.sqrt(2 / 50), rel=0.05)
    stage = decoder.stages[0]
    probability = stage.to_class[-1].bias.sigmoid()
    assert torch.allclose(probability, torch.full((4,), 0.01), atol=1e-6)
    for linear in (stage.update.from_group, stage.interaction.expand, stage.to_mask[0], stage.to_class[-1]):
        limit = math.sqrt(6 / sum(linear.weight.shape))
        assert 0.9 * limit < linear.weight.abs().max() <= limit
    inner = stage.interaction.attention.out_proj.weight.abs().max()
    assert inner <= 1 / math.sqrt(64) < math.sqrt(6 / 128)  # as torch's attention begins
    assert Stage(8, None, "mean", False, hidden=8).to_class is None
    head = mlp(8, 3)
    assert head[0].bias is None and head[-1].bias is not None and head[-1].out_features == 3


@pytest.mark.parametrize("exact", [True, False])
def test_what_is_exact_is_float32_also_under_autocast(exact: bool) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        parts: list[tuple[Any, int]] = [
            (AdaptiveUpdate(16, exact), 2),
            (opened(PriorLink(16, 32, exact)), 2),
            (Link(16, 32, update=True, exact=exact), 3),
        ]
        for part, count in parts:
            values = [rand(1, 5, 16, seed=seed) for seed in range(count)]
            plain = part(*values)
            with torch.autocast("cpu", torch.bfloat16):
                found = part(*values)
                from_half = part(*(value.bfloat16() for value in values))
            assert torch.equal(found, plain) == exact, type(part)
            assert (from_half.dtype == torch.float32) >= exact
            assert torch.allclose(found.float(), plain, atol=0.3)
            rounded = part(*(value.bfloat16().float() for value in values))
            assert torch.equal(from_half, rounded) == exact


def test_only_sums_need_exact_layers() -> None:
    assert sums("sum") and sums("softmax") and not sums("mean")
    for pooling, exact in (("sum", True), ("softmax", True), ("mean", False)):
        stage = LinkedStage(8, 2, pooling, False, hidden=8, link="update", fusion=True)
        assert {stage.update.exact, stage.link.exact, stage.fusion.exact, stage.link.update.exact} == {exact}  # type: ignore[union-attr]
        found = exact_modules(stage)
        assert (stage.update.from_group in found) == exact and stage.to_mask[0] not in found
        assert (stage.link.interaction.expand in found) == exact


@pytest.mark.parametrize("exact", [False, True])
def test_the_link_in_front_of_the_stages(exact: bool) -> None:
    link, kernels, previous = PriorLink(16, 32, exact), rand(1, 4, 16), rand(1, 6, 16, seed=1)
    assert torch.equal(link(kernels, previous), kernels)  # its gate is closed
    expected = kernels + opened(link).gate * link.interaction(kernels, previous)
    assert torch.equal(link(kernels, previous), expected) and not torch.equal(expected, kernels)


def test_kernels_attend_to_those_of_the_frame_before() -> None:
    kernels, previous, group = rand(1, 4, 16), rand(1, 4, 16, seed=1), rand(1, 4, 16, seed=2)
    plain, updated = Link(16, 32), Link(16, 32, update=True)
    assert torch.equal(plain(kernels, previous, group), plain.interaction(kernels, previous))
    expected = updated.interaction(kernels, updated.update(group, previous))  # type: ignore[misc]
    assert torch.equal(updated(kernels, previous, group), expected)


@pytest.mark.parametrize("fusion", [False, True])
def test_a_linked_stage_in_the_first_frame_and_later(fusion: bool) -> None:
    torch.manual_seed(0)
    stage = LinkedStage(16, 3, "mean", False, hidden=32, fusion=fusion)
    inputs = rand(1, 16, 6, 6), rand(1, 4, 16, seed=1), rand(1, 4, 6, 6, seed=2)
    first, later = stage(*inputs), stage(*inputs, rand(1, 4, 16, seed=3))
    assert torch.equal(first[4], first[0]) and not torch.equal(later[4], later[0])
    assert torch.equal(first[0], later[0]) != fusion  # else masks and classes know nothing of it
    assert torch.equal(first[2], later[2]) != fusion


def test_the_frame_before_reaches_linked_stages_only() -> None:
    torch.manual_seed(0)
    stages = [Stage(16, 3, "mean", False, hidden=32), LinkedStage(16, 3, "mean", False, hidden=32)]
    inputs = rand(1, 16, 6, 6), rand(1, 4, 16, seed=1), rand(1, 4, 6, 6, seed=2)
    outputs = refine(stages, *inputs, rand(1, 4, 16, seed=3))
    assert outputs[0].linked is None and outputs[1].linked is not None
    assert torch.equal(outputs[0].kernels, stages[0](*inputs)[0])


def test_initial_kernels_carry_the_frame_before_and_are_joined_by_fixed_ones() -> None:
    torch.manual_seed(0)
    decoder = KernelDecoder(16, 4, classes=3, stages=1, hidden=32)
    features, elsewhere, previous = rand(2, 16, 6, 6), rand(2, 16, 6, 6, seed=1), rand(2, 7, 16, seed=2)
    plain = decoder(features, previous=previous)[0]
    assert torch.equal(plain.kernels, decoder(features)[0].kernels)  # nothing in it knows what to do with them
    decoder.carry = nn.Linear(16, 16)
    carried = decoder(features, previous=previous)[0]
    base = decoder.kernels + decoder.carry(previous[:, :4])
    assert torch.allclose(carried.mask_logits, torch.einsum("bnc,bchw->bnhw", base, features), atol=1e-5)
    assert torch.equal(decoder(features)[0].mask_logits, plain.mask_logits)  # a first frame
    localized = decoder(features, elsewhere)[0]
    expected = torch.einsum("nc,bchw->bnhw", decoder.kernels, elsewhere)
    assert torch.allclose(localized.mask_logits, expected, atol=1e-5) and localized.features is elsewhere
    decoder.link = opened(PriorLink(16, 32))
    linked = decoder(features, previous=previous)[0]
    assert torch.allclose(linked.kernels, decoder.link(carried.kernels, previous), atol=1e-6)
    fixed = rand(2, 3, 16, seed=4), rand(2, 3, 6, 6, seed=5)
    joined = decoder(features, fixed=fixed)
    assert joined[0].kernels.shape == (2, 4, 16) and joined[1].kernels.shape == (2, 7, 16)
    direct = decoder.stages[0](
        features, torch.cat((joined[0].kernels, fixed[0]), 1), torch.cat((joined[0].mask_logits, fixed[1]), 1)
    )
    assert torch.equal(joined[1].mask_logits, direct[1])


def test_settings_that_do_not_exist() -> None:
    with pytest.raises(ConfigError, match="channels=12 do not divide among 8 attention heads"):
        Interaction(12)
    with pytest.raises(ConfigError, match="There is no pooling 'max'; it is one of: mean, sum, softmax"):
        Stage(8, 2, "max", False)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="There is no link 'none'; it is one of: attention, update"):
        LinkedStage(8, 2, "mean", False, link="none", hidden=8)  # type: ignore[arg-type]


def test_update_and_interaction_are_their_equations() -> None:
    torch.manual_seed(0)
    update, interaction = AdaptiveUpdate(16), Interaction(16, 4, 32)
    group, kernels, memory = (rand(1, 5, 16, seed=seed) for seed in range(3))
    psi_1, psi_3 = update.from_group(group).split(16, dim=-1)
    psi_2, psi_4 = update.from_kernel(kernels).split(16, dim=-1)
    gate_group = update.group_gate_norm(update.group_gate(psi_1 * psi_2)).sigmoid()
    gate_kernel = update.kernel_gate_norm(update.kernel_gate(psi_1 * psi_2)).sigmoid()
    mixed = gate_group * update.group_norm(psi_3) + gate_kernel * update.kernel_norm(psi_4)
    torch.testing.assert_close(update(group, kernels), update.out_norm(update.out(mixed)).relu())
    for seen_from, other in ((memory, memory), (None, kernels)):
        seen = interaction.attention_norm(kernels + interaction.attention(kernels, other, other)[0])
        expected = interaction.ffn_norm(seen + interaction.contract(interaction.expand(seen).relu()))
        torch.testing.assert_close(interaction(kernels, seen_from), expected)
