"""Void and classes that nobody labelled: no loss of any kind of network looks at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from knet.structures import Output, Target
from knet.training.criterion_clip import ClipCriterion
from knet.training.criterion_image import KNetCriterion
from knet.training.criterion_rtknet import Criterion
from knet.training.criterion_semantic import SemanticCriterion

N, K, C = 6, 4, 8
HIDDEN = (slice(None), slice(None), slice(2, 4), slice(0, 6))  # cells of the logits that show void alone


def target(value: int = -1) -> Target:
    """64x64 pixels: class 0 in the upper half, an object of class 3, and void from column 0 to 48 of rows 16 to 32."""
    id_map = torch.ones(64, 64, dtype=torch.int32)
    id_map[32:] = 0
    id_map[40:56, 8:40] = 2
    id_map[12:36, 0:52] = value
    return Target(id_map, torch.tensor([0, 3]), (1,))


def outputs(images: int, tubes: int = 0) -> list[Output]:
    generator = torch.Generator().manual_seed(1)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    features, semantic = leaf(images, C, 8, 8), leaf(images, K, 8, 8)
    found = [Output(leaf(images, N, C), leaf(images, N, 8, 8), None, features, semantic)]
    found += [Output(leaf(images, N, C), leaf(images, N, 8, 8), leaf(images, N, K), features) for _ in range(2)]
    if tubes:
        clips = images // tubes
        for classes in (leaf(clips, N, K), None):
            found.append(Output(leaf(clips, N, C), leaf(clips, N, tubes, 8, 8), classes, features))
    return found


def of_rtknet(targets: list[Target]) -> tuple[list[Output], dict[str, Tensor]]:
    found = outputs(len(targets))
    return found, Criterion(pixels=64)(found, targets, torch.rand(len(targets), 256))


def of_knet(targets: list[Target]) -> tuple[list[Output], dict[str, Tensor]]:
    found = outputs(len(targets))
    return found, KNetCriterion()(found, targets)


def of_semantic(targets: list[Target]) -> tuple[list[Output], dict[str, Tensor]]:
    found = [
        Output(o.kernels, torch.randn(len(targets), K, 8, 8).requires_grad_(), None, o.features, o.semantic_logits)
        for o in outputs(len(targets))
    ]
    return found, SemanticCriterion()(found, targets)


def of_clip(targets: list[Target]) -> tuple[list[Output], dict[str, Tensor]]:
    found = outputs(len(targets), tubes=2)
    return found, ClipCriterion(frames=2)(found, targets)


FAMILIES: list[Callable[[list[Target]], Any]] = [of_rtknet, of_knet, of_semantic, of_clip]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_gradient_from_what_is_ignored(family: Callable[[list[Target]], Any]) -> None:
    found, losses = family([target(), target()])
    torch.stack(list(losses.values())).sum().backward()
    for output in found:
        for logits in (output.mask_logits, output.semantic_logits):
            if logits is not None:
                gradient = logits.grad.flatten(0, -5) if logits.dim() > 4 else logits.grad
                assert gradient[..., 2:4, 0:6].abs().max() < 1e-9
                assert gradient.abs().max() > 1e-6


@pytest.mark.parametrize("family", [of_rtknet, of_knet, of_clip])  # semantic pixels without a class never count
def test_void_that_is_not_ignored_teaches_masks_to_be_empty(family: Callable[[list[Target]], Any]) -> None:
    found, losses = family([target(0), target(0)])
    torch.stack(list(losses.values())).sum().backward()
    assert max(output.mask_logits.grad[..., 2:4, 0:6].abs().max() for output in found) > 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_no_gradient_for_a_class_that_nobody_labelled(family: Callable[[list[Target]], Any]) -> None:
    found, losses = family([target(), target()])
    torch.stack(list(losses.values())).sum().backward()
    for output in found:
        for logits, dim in ((output.class_logits, 2), (output.semantic_logits, 1)):
            if logits is not None:
                assert logits.grad.select(dim, 1).abs().max() < 1e-9
                assert logits.grad.select(dim, 0).abs().max() > 1e-6


@pytest.mark.parametrize("family", [of_rtknet, of_knet])
def test_a_kernel_that_shows_void_is_told_nothing_about_its_class(family: Callable[[list[Target]], Any]) -> None:
    values = {}
    for value in (-1, 0):
        found = outputs(1)
        with torch.no_grad():
            for output in found:
                output.mask_logits[:, 0] = -9
                output.mask_logits[0, 0, 2:4, 0:6] = 9
        criterion: Any = Criterion(pixels=64) if family is of_rtknet else KNetCriterion()
        losses = criterion(found, [target(value)], torch.rand(1, 256))
        torch.stack(list(losses.values())).sum().backward()
        values[value] = found[-1].class_logits.grad[0, 0].abs().max().item()
    assert values[-1] < 1e-9 < 1e-4 < values[0]


def test_nothing_changes_where_nothing_is_ignored() -> None:
    whole = torch.ones(64, 64, dtype=torch.int32)
    whole[32:] = 2
    noise = torch.rand(1, 256)
    plain, marked = (
        Criterion(pixels=64)(outputs(1), [Target(whole, torch.tensor([0, 3]), hidden)], noise) for hidden in ((), (1,))
    )
    for name in plain:
        assert torch.equal(plain[name], marked[name]) == (not name.endswith(("cls", "seg")))
