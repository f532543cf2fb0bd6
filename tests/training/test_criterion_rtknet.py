"""The criterion: the original's losses, matches and gradients, and the laws it adds to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from knet.errors import DataError
from knet.structures import Output, Target
from knet.training.criterion import Truth, prepare
from knet.training.criterion_rtknet import Criterion
from knet.training.losses import IGNORE

CASES = ["void", "full_cover", "one_empty", "more_gt_than_kernels", "mostly_void", "all_empty"]
N, K, C = 7, 5, 8


def golden_case(data: np.lib.npyio.NpzFile, case: str) -> tuple[list[Output], Truth, dict[str, Tensor]]:
    """The outputs and the truth of a golden case, both on the losses' grid, and the tensors that get gradients."""

    def leaf(key: str, upsample: bool = True) -> Tensor:
        tensor = torch.from_numpy(data[f"{case}/{key}"].astype(np.float32))
        if upsample:
            tensor = F.interpolate(tensor, (64, 64), mode="bilinear", align_corners=False)
        leaves[key.removeprefix("small/")] = tensor.requires_grad_()
        return tensor

    leaves: dict[str, Tensor] = {}
    features, semantic = leaf("small/feature_map"), leaf("small/seg_mask_pred")
    outputs = []
    for s in range(1, 10):
        if f"{case}/small/pred_masks/s{s}" not in data:
            break
        classes = leaf(f"pred_logits/s{s}", upsample=False) if s > 1 else None
        masks = leaf(f"small/pred_masks/s{s}")
        outputs.append(Output(torch.zeros(2, 12, 8), masks, classes, features, semantic if s == 1 else None))
    counts = [len(data[f"{case}/labels{b}"]) for b in (0, 1)]
    masks, labels = torch.zeros(2, max(counts), 64, 64), torch.zeros(2, max(counts), dtype=torch.int64)
    for b, count in enumerate(counts):
        masks[b, :count] = torch.from_numpy(data[f"{case}/masks{b}"]) / 4
        labels[b, :count] = torch.from_numpy(data[f"{case}/labels{b}"])
    semantic_map = torch.from_numpy(data[f"{case}/sem_seg"].astype(np.int64))
    semantic_map[semantic_map == int(data[f"{case}/ignore_label"])] = IGNORE
    return outputs, Truth(masks, labels, semantic_map, counts), leaves


@pytest.mark.parametrize("case", CASES)
def test_losses_matches_and_gradients_are_the_originals(goldens: Path, case: str) -> None:
    data = np.load(goldens / "rtknet" / "criterion_cases.npz")
    outputs, truth, leaves = golden_case(data, case)
    criterion = Criterion()
    losses = criterion.compute(outputs, truth, torch.from_numpy(data[f"{case}/noise"]))
    expected = {k.split("/")[-1]: float(data[k]) for k in data if k.startswith(f"{case}/loss/")}
    assert losses.keys() == expected.keys()
    if case == "all_empty":  # the original's mask and dice losses are NaN and its class loss 4e9: see the next test
        expected = {name: losses[name].item() if "cls" in name else np.nan_to_num(v) for name, v in expected.items()}
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-5, abs=1e-8), name
    for s, stage in enumerate(criterion.match(outputs, truth), start=1):
        for b, match in enumerate(stage):
            np.testing.assert_array_equal(np.stack(match), data[f"{case}/match/s{s}/image{b}"])
    torch.stack(list(losses.values())).sum().backward()
    norms = {k.split("gradnorm/")[1]: float(data[k]) for k in data if k.startswith(f"{case}/gradnorm/")}
    assert norms.keys() == (leaves.keys() if case != "all_empty" else set())
    for name, norm in norms.items():
        gradient = leaves[name].grad
        assert gradient is not None and gradient.norm().item() == pytest.approx(norm, rel=1e-4), name


def make(
    sizes: list[tuple[int, int]], counts: list[int], seed: int = 0, stages: int = 3
) -> tuple[list[Output], list[Target]]:
    """Random outputs for the padded batch (multiples of 32) and targets of the given image sizes and counts."""
    g = torch.Generator().manual_seed(seed)
    B, (h, w) = len(sizes), (-(-max(side) // 32) * 4 for side in zip(*sizes, strict=True))

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g).requires_grad_()

    features = leaf(B, C, h, w)
    outputs = [Output(leaf(B, N, C), leaf(B, N, h, w), leaf(B, N, K) if s else None, features) for s in range(stages)]
    outputs[0].semantic_logits = leaf(B, K, h, w)
    targets = []
    for (height, width), count in zip(sizes, counts, strict=True):
        blocks = torch.randint(0, count + 1, (-(-height // 8), -(-width // 8)), generator=g)
        ids = blocks.repeat_interleave(8, 0).repeat_interleave(8, 1)[:height, :width]
        targets.append(Target(ids.int(), torch.randint(0, K, (count,), generator=g)))
    return outputs, targets


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def gradients(outputs: list[Output]) -> list[Tensor]:
    leaves = [t for o in outputs for t in (o.mask_logits, o.class_logits, o.features, o.semantic_logits)]
    return [t.grad for t in leaves if t is not None and t.grad is not None]


def test_a_batch_of_unlike_images_gives_finite_losses_with_gradients_everywhere() -> None:
    outputs, targets = make([(64, 96), (33, 50), (17, 9)], [4, 9, 0])
    losses = Criterion()(outputs, targets)
    assert list(losses)[:2] == ["loss_seg", "loss_inst_disc"] and "s1_loss_cls" not in losses
    assert {f"s{s}_loss_{k}" for s in (2, 3) for k in ("cls", "mask", "dice", "rank")} < losses.keys()
    total(losses).backward()
    assert len(gradients(outputs)) == 9 and all(g.isfinite().all() and g.any() for g in gradients(outputs))


def test_without_any_target_losses_are_finite_and_teach_only_that_there_is_nothing() -> None:
    outputs, targets = make([(64, 64), (64, 64)], [0, 0])
    losses = Criterion()(outputs, targets)
    assert {k for k, v in losses.items() if v} == {"s2_loss_cls", "s3_loss_cls"} and total(losses).isfinite()
    total(losses).backward()
    assert all(g.isfinite().all() for g in gradients(outputs))
    assert outputs[0].mask_logits.grad is not None and not outputs[0].mask_logits.grad.any()


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (32, 40)])
def test_small_images_work(size: tuple[int, int]) -> None:
    outputs, targets = make([size], [2])
    losses = Criterion()(outputs, targets)
    total(losses).backward()
    assert total(losses).isfinite()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), height=st.integers(1, 70), width=st.integers(1, 70), count=st.integers(0, 5))
def test_targets_are_resized_as_the_official_code_does(seed: int, height: int, width: int, count: int) -> None:
    g = torch.Generator().manual_seed(seed)
    target = Target(
        torch.randint(0, count + 1, (height, width), generator=g), torch.randint(0, K, (count,), generator=g)
    )
    truth = prepare([target], (96, 72))
    padding = (0, 72 - width, 0, 96 - height)
    masks = F.pad((target.id_map == torch.arange(1, count + 1)[:, None, None]).float(), padding)
    semantic = F.pad(torch.cat([torch.tensor([IGNORE]), target.labels])[target.id_map], padding, value=IGNORE)
    if count:
        quarter = F.interpolate(masks[None], (24, 18), mode="bilinear", align_corners=False)
        torch.testing.assert_close(truth.masks, quarter)
    nearest = F.interpolate(semantic[None, None].float(), (24, 18), mode="nearest")[0]
    assert torch.equal(truth.semantic, nearest.long()) and truth.counts == [count]


def test_a_target_larger_than_the_batch_is_refused() -> None:
    outputs, targets = make([(64, 64)], [3])
    targets[0].id_map = torch.zeros(65, 64, dtype=torch.int32)
    with pytest.raises(DataError, match="65"):
        Criterion()(outputs, targets)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_losses_do_not_depend_on_the_order_of_kernels(seed: int) -> None:
    outputs, targets = make([(64, 64), (40, 64)], [4, 2], seed)
    noise = torch.rand(2, 256)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    moved = [
        Output(
            o.kernels, o.mask_logits[:, order], None if o.class_logits is None else o.class_logits[:, order], o.features
        )
        for o in outputs
    ]
    moved[0].semantic_logits = outputs[0].semantic_logits
    before, after = Criterion()(outputs, targets, noise), Criterion()(moved, targets, noise)
    for name in before:
        torch.testing.assert_close(before[name], after[name], rtol=1e-4, atol=1e-6, msg=name)


def perfect(targets: list[Target], size: tuple[int, int]) -> list[Output]:
    """What a network would say that knows the answer: kernel t finds segment t."""
    truth = prepare(targets, size)
    B, T = truth.labels.shape
    masks = F.pad(truth.masks, (0, 0, 0, 0, 0, N - T)) * 100 - 50
    classes = torch.full((B, N, K), -50.0)
    for b, target in enumerate(targets):
        classes[b, torch.arange(len(target.labels)), target.labels] = 50
    return [Output(torch.zeros(B, N, C), masks, None, masks), Output(torch.zeros(B, N, C), masks, classes, masks)]


def test_the_perfect_answer_costs_nothing() -> None:
    _, targets = make([(64, 64)], [4])
    criterion = Criterion(stride=4, instance_weight=0)  # it has no zero: a pixel is never like itself alone
    outputs = perfect(targets, (64, 64))
    losses = criterion(outputs, targets)
    assert "loss_seg" not in losses  # in evaluation a network has no auxiliary prediction
    assert total(losses) < 2e-2
    for (match,) in criterion.match(outputs, criterion.prepare(outputs, targets)):
        assert torch.equal(match.kernels, match.segments)


def test_a_batch_without_void_still_ranks_all_its_kernels() -> None:
    _, targets = make([(64, 64)], [4])
    targets[0].id_map = targets[0].id_map.clamp(min=1)
    outputs = perfect(targets, (64, 64))
    wrong = outputs[0].mask_logits.clone()
    wrong[:, 3] = -50  # the highest kernel misses its segment, which only the rank loss of that kernel may notice
    outputs[0].mask_logits = wrong.requires_grad_()
    loss = Criterion(stride=4)(outputs, targets)["s1_loss_rank"]
    loss.backward()
    assert wrong.grad is not None and (wrong.grad[0, 3][targets[0].id_map[::4, ::4] == 4] < 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_outputs_under_autocast(dtype: torch.dtype) -> None:
    outputs, targets = make([(64, 96), (64, 96)], [5, 3])
    noise = torch.rand(2, 16 * 24)
    exact = Criterion()(outputs, targets, noise)
    for output in outputs:
        for name in ("mask_logits", "class_logits", "features", "semantic_logits"):
            if getattr(output, name) is not None:
                setattr(output, name, getattr(output, name).detach().to(dtype).requires_grad_())
    with torch.autocast("cpu", torch.bfloat16):
        losses = Criterion()(outputs, targets, noise)
        total(losses).backward()
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, exact[name], rtol=5e-2, atol=1e-2, msg=name)
    assert all(g.isfinite().all() for g in gradients(outputs))


def test_numbers_that_are_none_do_not_stop_the_matching_and_are_counted() -> None:
    outputs, targets = make([(64, 64)], [3])
    with torch.no_grad():
        outputs[1].mask_logits[0, 2, 0, 0] = float("nan")
        outputs[2].class_logits[0] = float("nan")  # type: ignore[index]
    criterion = Criterion()
    truth = criterion.prepare(outputs, targets)
    matches = criterion.match(outputs, truth)
    assert criterion.invalid_costs == 3 + 3 * N and [len(m.kernels) for (m,) in matches] == [3, 3, 0]
    assert 2 not in matches[1][0].kernels
    losses = criterion(outputs, targets)
    assert losses["s3_loss_mask"] == 0 and losses["s3_loss_cls"].isnan() and criterion.invalid_costs == 2 * (3 + 3 * N)


def test_weights_scale_their_losses() -> None:
    outputs, targets = make([(64, 64)], [3])
    noise = torch.rand(1, 256)
    ones = Criterion(class_weight=1, mask_weight=1, dice_weight=1, rank_weight=1)(outputs, targets, noise)
    default = Criterion()(outputs, targets, noise)
    factors = {"cls": 2.0, "mask": 1.0, "dice": 4.0, "rank": 0.1, "seg": 1.0, "disc": 1.0}
    for name in ones:
        torch.testing.assert_close(default[name], ones[name] * factors[name.split("_")[-1]])


def test_parts_of_a_batch_have_the_mean_of_their_losses_equal_to_that_of_the_whole() -> None:
    """What is divided by counts: the semantic loss of parts in one process chooses its pixels in each part."""
    outputs, targets = make([(64, 96)] * 4, [3, 0, 9, 1], seed=3)
    noise = torch.rand(4, 16 * 24)
    whole = Criterion()(outputs, targets, noise)
    parts = []
    for part in (slice(0, 2), slice(2, 4)):
        rows = [
            Output(
                o.kernels[part],
                o.mask_logits[part],
                None if o.class_logits is None else o.class_logits[part],
                o.features[part],
            )
            for o in outputs
        ]
        parts.append(Criterion()(rows, targets[part], noise[part], Criterion().count(targets, N, parts=2)))
    for name in parts[0]:
        torch.testing.assert_close((parts[0][name] + parts[1][name]) / 2, whole[name], rtol=1e-5, atol=1e-7)


def test_matching_may_look_at_some_pixels_only() -> None:
    _, targets = make([(64, 64)], [4])
    outputs = perfect(targets, (64, 64))
    truth = Criterion(stride=4).prepare(outputs, targets)
    order = torch.tensor([2, 0, 3, 1, *range(4, outputs[0].mask_logits.shape[1])])
    for output in outputs:
        output.mask_logits = output.mask_logits[:, order]
    few = Criterion(stride=4, match_pixels=64)
    for stage in few.compute(outputs, truth), few.compute(outputs, truth, torch.rand(1, 256)):
        assert stage["s1_loss_dice"] < 1e-2  # every kernel was given its own segment
    assert total(Criterion(match_pixels=10_000)(outputs, targets)).isfinite()


def test_no_weight_no_instance_loss() -> None:
    outputs, targets = make([(64, 64)], [3])
    assert "loss_inst_disc" not in Criterion(instance_weight=0)(outputs, targets)
    outputs[0].semantic_logits = None
    assert {"loss_seg", "loss_inst_disc"} & Criterion()(outputs, targets).keys() == {"loss_inst_disc"}
