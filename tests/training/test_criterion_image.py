"""K-Net's losses for things and stuff: the original's losses, matches and gradients, and laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import knet
from knet.models.zoo import entry
from knet.preprocess import normalize_and_pad
from knet.structures import Output, Target
from knet.training.criterion_image import KNetCriterion
from knet.weights import openmmlab
from knet.weights.load import load_strict, read_checkpoint
from rounding import exact

CASES = [
    ("knet-r50-coco-panoptic", "train_det_pan_r50"),
    ("knet-r50-coco-instance", "train_det_ins_r50"),
]


def golden_target(data: Any, b: int, stuff: list[int]) -> Target:
    """Each object in a layer of its own, then each stuff class of the semantic map."""
    shape = data[f"gt_masks{b}_shape"]
    masks = np.unpackbits(data[f"gt_masks{b}_packed"], axis=-1)[..., : shape[-1]].reshape(shape)
    labels = data[f"gt_labels{b}"].astype(np.int64).tolist()
    layers = [torch.from_numpy(mask).int() for mask in masks]
    if stuff:
        semantic = torch.from_numpy(data[f"gt_sem_seg{b}"].astype(np.int32))
        present = [label for label in semantic.unique().tolist() if label in stuff]
        layers += [(semantic == label).int() for label in present]
        labels += present
    layers = [(number * layer).int() for number, layer in enumerate(layers, start=1)]
    return Target(torch.stack(layers or [torch.zeros(*shape[1:], dtype=torch.int32)]), torch.tensor(labels))


@pytest.mark.parametrize(("model", "golden"), CASES, ids=lambda name: name)
@exact
def test_losses_matches_and_gradients_are_the_originals(
    model: str, golden: str, goldens: Any, official_checkpoint: Any
) -> None:
    data = np.load(goldens / "knet" / f"{golden}.npz")
    net: Any = knet.create(model)
    checkpoint = official_checkpoint(str(data["manifest"]), int(data["seed"]), "knet")
    load_strict(net, read_checkpoint(checkpoint).state, str(checkpoint))
    images = [torch.from_numpy(data[f"image{b}"]).permute(2, 0, 1) for b in (0, 1)]
    inputs = normalize_and_pad(images, entry(model).preprocessing)
    assert list(inputs.shape[2:]) == data["padded_shape"].tolist()
    targets = [golden_target(data, b, net.stuff) for b in (0, 1)]
    criterion = KNetCriterion(stuff=tuple(net.stuff))
    outputs = net.train()(inputs)
    losses = criterion(outputs, targets, None, criterion.count(targets, 100))
    expected = {}
    for key in data:
        if key.startswith("loss/loss_rpn_"):
            kind = key.removeprefix("loss/loss_rpn_")
            expected["loss_seg" if kind == "seg" else f"s1_loss_{kind}"] = float(data[key])
        elif key.startswith("loss/s"):  # s0 is the first update, which we count as the second stage
            expected[f"s{int(key[6]) + 2}{key[7:]}"] = float(data[key])
    assert losses.keys() == expected.keys()
    for key, value in expected.items():
        assert losses[key].item() == pytest.approx(value, rel=1e-4), key
    matches = criterion.match(outputs, criterion.split(criterion.prepare(outputs, targets)))
    for s, stage in enumerate(matches):
        for b, match in enumerate(stage):
            for name in (f"s{s}", *(["init"] if s == 0 else [])):  # the initial masks are judged by their own matches
                np.testing.assert_array_equal(np.stack(match), data[f"match/{name}/image{b}"])
    torch.stack(list(losses.values())).sum().backward()
    gradients = {key: p.grad for key, p in net.named_parameters()}
    assert {openmmlab.rename_image(str(key)) for key in data["grad_none"]} == {
        key for key, gradient in gradients.items() if gradient is None
    }
    # The original's own distance to float64 is up to 3e-3.
    for key, norm, double in zip(data["grad_names"], data["grad_norms"], data["grad_norms_float64"], strict=True):
        gradient = gradients[openmmlab.rename_image(str(key))]
        assert gradient is not None
        assert gradient.norm().item() == pytest.approx(norm, rel=3e-3, abs=2 * abs(norm - double) + 1e-6), key


STUFF, N, K = (1, 4), 6, 5


def make(
    sizes: list[tuple[int, int]], labels: list[list[int]], stuff: tuple[int, ...] = STUFF, seed: int = 0
) -> tuple[list[Output], list[Target]]:
    """Random outputs of three stages for the padded batch, and targets with these labels in random blocks."""
    g = torch.Generator().manual_seed(seed)
    B, (h, w) = len(sizes), (-(-max(side) // 32) * 4 for side in zip(*sizes, strict=True))
    outputs = []
    for s in range(3):
        kernels = N + len(stuff) * (s > 0)
        masks, classes = torch.randn(B, kernels, h, w, generator=g), torch.randn(B, kernels, K, generator=g)
        outputs.append(Output(masks[..., 0], masks.requires_grad_(), classes.requires_grad_() if s else None, masks))
    outputs[0].semantic_logits = torch.randn(B, K, h, w, generator=g).requires_grad_()
    targets = []
    for (height, width), own in zip(sizes, labels, strict=True):
        blocks = torch.randint(0, len(own) + 1, (-(-height // 8), -(-width // 8)), generator=g)
        ids = blocks.repeat_interleave(8, 0).repeat_interleave(8, 1)[:height, :width]
        targets.append(Target(ids.int(), torch.tensor(own, dtype=torch.int64)))
    return outputs, targets


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


@pytest.mark.parametrize(
    "labels", [[[0, 1, 2, 4], [3, 3]], [[], [0]], [[1], [4, 4]], [[], []], [[0] * (N + 3), [2]]], ids=str
)
@pytest.mark.parametrize("stuff", [STUFF, ()], ids=["panoptic", "instance"])
def test_any_number_of_things_and_stuff(labels: list[list[int]], stuff: tuple[int, ...]) -> None:
    outputs, targets = make([(64, 96), (33, 50)], labels, stuff)
    losses = KNetCriterion(stuff=stuff)(outputs, targets)
    names = {"mask", "dice", "cls", *(["rank"] if stuff else [])}
    assert losses.keys() == {"loss_seg", *(f"s{s}_loss_{n}" for s in (1, 2, 3) for n in names)} - {"s1_loss_cls"}
    total(losses).backward()
    assert total(losses).isfinite()
    things = any(label not in stuff for own in labels for label in own)
    for output, learns in zip(outputs, (things, any(labels), any(labels)), strict=True):
        assert output.mask_logits.grad is not None and output.mask_logits.grad.isfinite().all()
        assert output.mask_logits.grad.any() == learns
    if not any(labels):  # nothing to find teaches classes alone
        assert {name for name, loss in losses.items() if loss} == {"loss_seg", "s2_loss_cls", "s3_loss_cls"}


def test_stuff_in_pieces_is_as_stuff_in_one() -> None:
    outputs, targets = make([(64, 64)], [[0, 1, 2, 1]])
    ids = targets[0].id_map
    whole = Target(torch.where(ids == 4, 2, ids), torch.tensor([0, 1, 2]))
    criterion = KNetCriterion(stuff=STUFF)
    apart, one = criterion(outputs, targets), criterion(outputs, [whole])
    for name, loss in one.items():
        torch.testing.assert_close(apart[name], loss, msg=name)
    assert criterion.count(targets, N) == criterion.count([whole], N)


def test_layers_say_the_same_as_one_map_where_nothing_overlaps() -> None:
    outputs, targets = make([(64, 96), (40, 64)], [[0, 1, 2], [3]])
    ids = targets[0].id_map
    layers = torch.stack([torch.where(ids == number, ids, 0) for number in (2, 3, 1)])
    criterion = KNetCriterion(stuff=STUFF)
    plain, layered = criterion(outputs, targets), criterion(outputs, [Target(layers, targets[0].labels), targets[1]])
    for name, loss in plain.items():
        assert torch.equal(loss, layered[name]), name


def test_objects_that_overlap_are_all_taught() -> None:
    """Two equal masks in two layers: the right answer shows both, and nothing is left to learn of masks."""
    mask = torch.zeros(64, 64, dtype=torch.int32)
    mask[16:48, 8:40] = 1
    target = Target(torch.stack([mask, 2 * mask]), torch.tensor([0, 2]))
    logits = F.interpolate(mask[None, None].float(), (8, 8), mode="nearest").repeat(1, N, 1, 1) * 100 - 50
    logits[:, 2:] = -50
    classes = torch.full((1, N, K), -50.0)
    classes[0, 0, 0] = classes[0, 1, 2] = 50
    outputs = [Output(logits, logits, c, logits) for c in (None, classes, classes)]
    losses = KNetCriterion()(outputs, [target])
    assert losses["s3_loss_cls"] < 1e-6
    # The grid is finer than the masks' map, so a cell at the edge is between them.
    emptied = [Output(o.mask_logits, torch.where(torch.arange(N)[:, None, None] == 1, -50.0, o.mask_logits),
                      o.class_logits, o.features) for o in outputs]  # fmt: skip
    assert losses["s3_loss_dice"] < 0.5 < KNetCriterion()(emptied, [target])["s3_loss_dice"]


def test_a_stage_is_matched_by_what_enters_it() -> None:
    outputs, targets = make([(64, 64)], [[0, 2, 3]], ())
    criterion = KNetCriterion()
    before = criterion.match(outputs, criterion.split(criterion.prepare(outputs, targets)))
    outputs[-1].mask_logits = outputs[-1].mask_logits.flip(1)  # what the last stage makes changes no match
    after = criterion.match(outputs, criterion.split(criterion.prepare(outputs, targets)))
    assert len(before) == 2
    for one, other in zip(before, after, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one[0], other[0], strict=True))


def test_classes_that_a_kernel_cannot_be_cost_nothing() -> None:
    outputs, targets = make([(64, 64)], [[0, 1, 2, 4]])
    losses = KNetCriterion(stuff=STUFF)(outputs, targets)
    losses["s3_loss_cls"].backward()
    taught = outputs[2].class_logits.grad[0] != 0  # type: ignore[union-attr, index]
    expected = torch.zeros(N + 2, K, dtype=torch.bool)
    expected[:N, [0, 2, 3]] = True
    expected[N, 1] = expected[N + 1, 4] = True
    assert torch.equal(taught, expected)


def test_parts_of_a_batch_have_the_mean_of_their_losses_equal_to_that_of_the_whole() -> None:
    """But for the semantic branch, whose pixels are counted in each part."""
    outputs, targets = make([(64, 64), (64, 64)], [[0, 1, 2, 4], [3, 1]])
    criterion = KNetCriterion(stuff=STUFF)
    whole = criterion(outputs, targets)
    counts = criterion.count(targets, N, parts=2)
    parts = []
    for b in (0, 1):
        rows = [Output(o.kernels, o.mask_logits[b : b + 1], None if o.class_logits is None else
                       o.class_logits[b : b + 1], o.features) for o in outputs]  # fmt: skip
        parts.append(criterion(rows, targets[b : b + 1], None, counts))
    for name, loss in whole.items():
        if name != "loss_seg":
            torch.testing.assert_close((parts[0][name] + parts[1][name]) / 2, loss, msg=name)


def test_half_precision_outputs_under_autocast() -> None:
    outputs, targets = make([(64, 96), (64, 96)], [[0, 1, 2], [3, 4]])
    exact = KNetCriterion(stuff=STUFF)(outputs, targets)
    for output in outputs:
        for name in ("mask_logits", "class_logits", "semantic_logits"):
            if getattr(output, name) is not None:
                setattr(output, name, getattr(output, name).detach().bfloat16().requires_grad_())
    with torch.autocast("cpu", torch.bfloat16):
        losses = KNetCriterion(stuff=STUFF)(outputs, targets)
        total(losses).backward()
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, exact[name], rtol=0.05, atol=1e-2, msg=name)
