"""K-Net's losses for semantic segmentation: the original's losses and gradients, and laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import knet
from knet.errors import DataError
from knet.models.zoo import entry
from knet.preprocess import normalize_and_pad
from knet.structures import Output, Target
from knet.training.criterion_semantic import SemanticCriterion
from knet.weights import openmmlab_semantic
from knet.weights.load import load_strict, read_checkpoint
from rounding import exact

CASES = [
    ("knet-fcn-r50-ade20k", "train_seg_fcn_r50_96x128", ""),
    ("knet-fcn-r50-ade20k", "train_seg_fcn_r50_96x128", "bn_train/"),  # batch norms with statistics of the batch
    ("knet-upernet-swint-ade20k", "train_seg_upernet_swint_96x128", ""),
]


def target_of(label_map: np.ndarray) -> Target:
    """A segment for each class, 255 = void."""
    labels = [label for label in np.unique(label_map).tolist() if label != 255]
    ids = sum((label_map == label) * number for number, label in enumerate(labels, start=1))
    return Target(torch.from_numpy(np.asarray(ids, np.int32)), torch.tensor(labels))


@pytest.mark.parametrize(("model", "golden", "prefix"), CASES, ids=lambda name: name)
@exact
def test_losses_and_gradients_are_the_originals(
    model: str, golden: str, prefix: str, goldens: Any, official_checkpoint: Any
) -> None:
    data = np.load(goldens / "knet" / f"{golden}.npz")
    net: Any = knet.create(model)
    checkpoint = official_checkpoint(str(data["manifest"]), int(data["seed"]), "knet")
    load_strict(net, read_checkpoint(checkpoint).state, str(checkpoint))
    net.eval().training = True  # the goldens are without dropout
    for module in net.modules():
        if prefix and isinstance(module, nn.BatchNorm2d):
            module.train()
    images = [torch.from_numpy(data[f"image{b}"]).permute(2, 0, 1) for b in (0, 1)]
    outputs = net(normalize_and_pad(images, entry(model).preprocessing))
    targets = [target_of(data[f"gt_sem_seg{b}"]) for b in (0, 1)]
    losses = SemanticCriterion(stride=net.stride)(outputs, targets)
    expected = {f"s{s + 1}_loss_seg": float(data[f"{prefix}loss/decode.loss_ce.s{s}"]) for s in range(4)}
    expected["loss_seg"] = float(data[f"{prefix}loss/aux.loss_ce"])
    assert losses.keys() == expected.keys()
    for key, value in expected.items():
        assert losses[key].item() == pytest.approx(value, rel=1e-4), key
    torch.stack(list(losses.values())).sum().backward()
    norms = data[f"{prefix}grad_norms"]
    state = {str(key): torch.tensor(number) for number, key in enumerate(data["grad_names"])}
    numbers = {key: int(number) for key, number in openmmlab_semantic.translate_semantic(state).items()}
    gradients = dict(net.named_parameters())
    assert numbers.keys() == gradients.keys()
    # What the original's float32 is away from float64: up to 0.3 %, with statistics of two small images up to 1.7 %.
    tolerance = 2e-2 if prefix else 3e-3
    for key, number in numbers.items():
        if norms[number] > 1e-6 * norms.max():  # smaller ones are zero in exact arithmetic
            assert gradients[key].grad.norm().item() == pytest.approx(norms[number], rel=tolerance), key
    for key in data:
        if prefix and key.startswith("bn_train/after/"):
            expected = {key.removeprefix("bn_train/after/"): torch.from_numpy(data[key])}
            ((ours, values),) = openmmlab_semantic.translate_semantic(expected).items()
            torch.testing.assert_close(net.state_dict()[ours].float(), values.float(), rtol=1e-4, atol=1e-5)


def random_batch(sizes: list[tuple[int, int]], stride: int = 8, K: int = 5) -> tuple[list[Output], list[Target]]:
    g = torch.Generator().manual_seed(0)
    B, (h, w) = len(sizes), (-(-max(side) // 32) * 32 // stride for side in zip(*sizes, strict=True))
    logits = [torch.randn(B, K, h, w, generator=g).requires_grad_() for _ in range(4)]
    outputs = [Output(torch.zeros(B, K, 8), one, None, one) for one in logits[:3]]
    outputs[0].semantic_logits = logits[3]
    return outputs, [target_of(torch.randint(0, K, size, generator=g).numpy()) for size in sizes]


@pytest.mark.parametrize("stride", [4, 8, 32])
def test_images_of_unlike_sizes_and_strides(stride: int) -> None:
    outputs, targets = random_batch([(64, 96), (33, 50)], stride)
    losses = SemanticCriterion(stride=stride)(outputs, targets)
    torch.stack(list(losses.values())).sum().backward()
    for output in outputs:
        assert output.mask_logits.grad is not None and output.mask_logits.grad.isfinite().all()
    # Padding teaches nothing; resizing lets its cells reach half a cell into the image.
    assert not outputs[0].mask_logits.grad[1, :, -(-33 // stride) + 1 :].any()  # type: ignore[index]


def test_an_image_without_labels_costs_nothing_and_half_of_them_cost_half() -> None:
    outputs, targets = random_batch([(64, 64), (64, 64)])
    criterion = SemanticCriterion()
    whole = criterion(outputs, targets)["s1_loss_seg"]
    parts = [
        criterion(
            outputs,
            [
                t if b == kept else Target(torch.zeros(64, 64, dtype=torch.int32), t.labels[:0])
                for b, t in enumerate(targets)
            ],
        )["s1_loss_seg"]
        for kept in (0, 1)
    ]
    assert whole.item() == pytest.approx(parts[0].item() + parts[1].item(), rel=1e-5)
    nothing = [Target(torch.zeros(64, 64, dtype=torch.int32), torch.zeros(0, dtype=torch.int64))] * 2
    assert not any(loss.item() for loss in criterion(outputs, nothing).values())


def test_an_image_larger_than_the_batch_is_refused() -> None:
    outputs, targets = random_batch([(64, 64)])
    targets[0].id_map = torch.zeros(65, 64, dtype=torch.int32)
    with pytest.raises(DataError, match="65"):
        SemanticCriterion()(outputs, targets)
