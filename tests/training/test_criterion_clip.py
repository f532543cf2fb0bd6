"""The losses of clips: the original's losses and gradients, and laws."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import knet
from knet.errors import DataError
from knet.models.zoo import entry
from knet.preprocess import normalize_and_pad
from knet.structures import Output, Target
from knet.training.criterion_clip import ClipCriterion, present
from knet.weights import openmmlab
from knet.weights.load import load_strict, read_checkpoint
from rounding import exact

MODEL = "video-knet-r50-youtube-vis"
GOLDEN = "vk_vis_r50_train_seed81_96x160.npz"


def golden_targets(data: Any) -> list[Target]:
    """A target a frame, each object in a layer of its own; the rows of the golden are (frame, value)."""
    labels = {
        number: label for (_, number), (_, label) in zip(data["ids"].tolist(), data["labels"].tolist(), strict=True)
    }
    place = {number: position for position, number in enumerate(sorted(labels), start=1)}
    layers: list[list[np.ndarray]] = [[] for _ in data["images"]]
    for (frame, number), mask in zip(data["ids"].tolist(), data["masks"], strict=True):
        layers[frame].append(mask.astype(np.int32) * place[number])
    all_labels = torch.tensor([labels[number] for number in sorted(labels)])
    return [Target(torch.from_numpy(np.stack(frame)), all_labels) for frame in layers]


def our_name(name: str) -> str:
    """s0 is the first update, which we count as the second stage."""
    if name.startswith("loss_rpn_"):
        kind = name.removeprefix("loss_rpn_")
        return "loss_seg" if kind == "seg" else f"s1_loss_{kind}"
    stage, _, kind = name.removeprefix("tracker_").partition("_")
    return f"clip{int(stage[1:]) + 1}_{kind}" if name.startswith("tracker_") else f"s{int(stage[1:]) + 2}_{kind}"


@exact
def test_losses_and_gradients_are_the_originals(goldens: Any, official_checkpoint: Any) -> None:
    data = np.load(goldens.file("video_knet", GOLDEN))
    info = json.loads(bytes(data["info"]))
    net = knet.create(MODEL).train()
    checkpoint = official_checkpoint("manifest_vis_r50.json", info["seed"], "video_knet")
    load_strict(net, read_checkpoint(checkpoint).state, str(checkpoint))
    images = [torch.from_numpy(image).permute(2, 0, 1) for image in data["images"]]
    targets = golden_targets(data)
    assert [len(present(target).labels) for target in targets] == [6, 5, 6]  # an object is away in the second frame
    criterion = ClipCriterion(frames=len(images))
    outputs = net(normalize_and_pad(images, entry(MODEL).preprocessing))
    losses = criterion(outputs, targets, None, criterion.count(targets, 100))
    expected = {our_name(name): value for name, value in info["losses"].items() if "pos_acc" not in name}
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value, rel=1e-4), name
    total(losses).backward()
    gradients = {key: parameter.grad for key, parameter in net.named_parameters()}
    names = {openmmlab.rename_image(key): norm for key, norm in info["grad_norms"].items()}
    assert names.keys() == gradients.keys()
    for name, norm in names.items():
        gradient = gradients[name]
        assert (gradient is None) == (norm is None), name
        if gradient is not None:
            # The original's own distance to float64 is not known for this case, in others it is up to 1e-3.
            assert gradient.norm().item() == pytest.approx(norm, rel=1e-3), name


B, T, N, K = 2, 3, 5, 4


def make(objects: list[list[int]], seed: int = 0, frames: int = T) -> tuple[list[Output], list[Target]]:
    """Random outputs of clips of 64 x 32 pixels, and targets in which objects come and go."""
    g = torch.Generator().manual_seed(seed)
    clips, outputs = len(objects), list[Output]()
    for s in range(3):
        masks = torch.randn(clips * frames, N, 4, 8, generator=g).requires_grad_()
        classes = torch.randn(clips * frames, N, K, generator=g).requires_grad_() if s else None
        outputs.append(Output(masks[..., 0], masks, classes, masks))
    outputs[0].semantic_logits = torch.randn(clips * frames, K, 4, 8, generator=g).requires_grad_()
    for s in range(3):
        masks = torch.randn(clips, N, frames, 4, 8, generator=g).requires_grad_()
        classes = torch.randn(clips, N, K, generator=g).requires_grad_() if s < 2 else None
        outputs.append(Output(masks[..., 0], masks, classes, masks))
    targets = []
    for labels in objects:
        for _ in range(frames):
            blocks = torch.randint(0, len(labels) + 1, (4, 8), generator=g)
            ids = blocks.repeat_interleave(8, 0).repeat_interleave(8, 1)
            targets.append(Target(ids.int(), torch.tensor(labels, dtype=torch.int64)))
    return outputs, targets


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


@pytest.mark.parametrize("objects", [[[0, 1, 3], [2]], [[], [1]], [[], []], [[0] * (N + 2), [3, 3]]], ids=str)
def test_any_number_of_objects(objects: list[list[int]]) -> None:
    outputs, targets = make(objects)
    losses = ClipCriterion(frames=T)(outputs, targets)
    of_clips = {f"clip{s}_loss_{name}" for s in (1, 2, 3) for name in ("mask", "dice", "cls")} - {"clip3_loss_cls"}
    of_frames = {f"s{s}_loss_{name}" for s in (1, 2, 3) for name in ("mask", "dice", "cls")} - {"s1_loss_cls"}
    assert losses.keys() == {"loss_seg"} | of_frames | of_clips
    total(losses).backward()
    assert total(losses).isfinite()
    for output in outputs:
        gradient = output.mask_logits.grad
        assert gradient is not None and gradient.isfinite().all()
        assert gradient.any() == any(objects)


def test_the_last_stage_keeps_the_matches_of_the_one_before() -> None:
    outputs, targets = make([[0, 1, 3], [2, 2]])
    criterion = ClipCriterion(frames=T)
    truth = criterion.tubes(outputs, targets)
    assert truth.masks.shape == (B, 3, T, 8, 16)
    first, second, last = criterion.match_clips(outputs[3:], truth)
    assert last is second
    outputs[4].mask_logits = outputs[4].mask_logits.flip(1)  # a stage is matched by what it makes itself
    outputs[4].class_logits = outputs[4].class_logits.flip(1)  # type: ignore[union-attr]
    again_first, again_second, _ = criterion.match_clips(outputs[3:], truth)
    for one, other in zip(first, again_first, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    for one, other in zip(second, again_second, strict=True):
        assert dict(zip(*map(Tensor.tolist, reversed(one)), strict=True)) == {
            segment: N - 1 - kernel for kernel, segment in zip(*map(Tensor.tolist, other), strict=True)
        }


def test_the_right_tube_costs_nothing() -> None:
    """A kernel that has its object's masks in all frames; and the same with the masks of two frames swapped."""
    outputs, targets = make([[2]])
    for number, target in enumerate(targets):
        target.id_map = torch.zeros(32, 64, dtype=torch.int32)
        target.id_map[:, 16 * number : 16 * number + 16] = 1
    grid = torch.stack([target.id_map[::4, ::4] for target in targets]).float() * 100 - 50
    tube = torch.full((1, N, T, 8, 16), -50.0)
    tube[0, 1] = grid
    classes = torch.full((1, N, K), -50.0)
    classes[0, 1, 2] = 50
    right = [Output(tube[..., 0], tube, c, tube) for c in (classes, None)]
    swapped = [Output(o.kernels, o.mask_logits[:, :, [1, 0, 2]], o.class_logits, o.features) for o in right]
    criterion = ClipCriterion(frames=T)
    for clips, smallest, largest in ((right, 0, 1e-3), (swapped, 1, 100)):
        losses = criterion([*outputs[:3], *clips], targets)
        assert smallest <= total({k: v for k, v in losses.items() if k.startswith("clip")}).item() <= largest


def test_parts_of_a_batch_have_the_mean_of_their_losses_equal_to_that_of_the_whole() -> None:
    """But for the semantic branch, whose pixels are counted in each part."""
    outputs, targets = make([[0, 1, 3], [2]])
    criterion = ClipCriterion(frames=T)
    whole, counts = criterion(outputs, targets), criterion.count(targets, N, parts=B)

    def part(x: Any, b: int) -> Any:
        return None if x is None else x[b * len(x) // B : (b + 1) * len(x) // B]

    parts = []
    for b in range(B):
        rows = [Output(o.kernels, part(o.mask_logits, b), part(o.class_logits, b), o.features) for o in outputs]
        parts.append(criterion(rows, targets[b * T : (b + 1) * T], None, counts))
    for name, loss in whole.items():
        if name != "loss_seg":
            torch.testing.assert_close((parts[0][name] + parts[1][name]) / 2, loss, msg=name)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.booleans())
@settings(max_examples=50)
def test_objects_that_are_away_leave_and_the_others_keep_their_pixels_and_labels(ids: list[int], layered: bool) -> None:
    target = Target(torch.tensor([ids], dtype=torch.int32), torch.arange(10, 16))
    if layered:
        layers = torch.stack([target.id_map, target.id_map.flip(1)])
        target = Target(layers, target.labels)
    seen = present(target)
    assert len(seen.labels) == len(set(ids) - {0})
    assert seen.id_map.shape == target.id_map.shape and seen.id_map.dtype == target.id_map.dtype
    before = torch.cat((torch.tensor([-1]), target.labels))[target.id_map.long()]
    after = torch.cat((torch.tensor([-1]), seen.labels))[seen.id_map.long()]
    assert torch.equal(before, after)


def test_targets_that_are_no_clips() -> None:
    outputs, targets = make([[0, 1], [2]])
    criterion = ClipCriterion(frames=T)
    with pytest.raises(DataError, match="5 targets are no whole number of clips of 3 frames"):
        criterion.count(targets[:5], N)
    with pytest.raises(DataError, match="Target 2 has other labels than the first of its clip"):
        criterion.count([*targets[1:], targets[0]], N)
    with pytest.raises(DataError, match="clips of 3 frames, the losses are for 5"):
        ClipCriterion()(outputs, targets)
