"""The panoptic merge against the original's cases, and the laws every merge obeys."""

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from knet.merge.panoptic import MergedMasks, best_class, merge_panoptic, number_segments


def official_ids(merged: MergedMasks, last_stuff: int) -> np.ndarray:
    """label * 1000 + position among the kept masks; position 0 for stuff; -1 for void."""
    ids = merged.labels * 1000 + torch.where(merged.labels <= last_stuff, 0, torch.arange(len(merged.labels)))
    return torch.where(merged.owner < 0, -1, ids[merged.owner]).numpy()


def test_every_case_of_the_original(goldens: Any) -> None:
    data = np.load(goldens / "rtknet" / "postproc_cases.npz")
    compared = 0
    for case in sorted({key.split("/")[0] for key in data}):
        classes, masks = (torch.from_numpy(data[f"{case}/{key}"]) for key in ("mask_cls", "mask_logits"))
        scores, labels = best_class(classes)
        if not data[f"{case}/use_sigmoid"]:  # a head with softmax and a last class "no object", which is dropped
            scores, labels = classes.softmax(-1).max(-1)
            objects = labels != int(data[f"{case}/num_classes"])
            scores, labels, masks = scores[objects], labels[objects], masks[objects]
        size = (masks.shape[1], masks.shape[2])
        for (score, overlap), expected in zip(data[f"{case}/thresholds"], data[f"{case}/panoptic"], strict=True):
            merged = merge_panoptic(masks, scores, labels, size, float(score), float(overlap))
            ours = official_ids(merged, int(data[f"{case}/last_stuff_id"]))
            np.testing.assert_array_equal(ours, expected, err_msg=f"{case} {score} {overlap}")
            compared += 1
    assert compared == 38


@st.composite
def scenes(draw: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[int, int], float, float]:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    n = draw(st.integers(1, 12))
    masks = torch.randn(n, draw(st.integers(1, 6)), draw(st.integers(1, 6)), generator=generator) * 4
    scores = torch.rand(n, generator=generator)
    labels = torch.randint(0, 5, (n,), generator=generator)
    size = (draw(st.integers(1, 20)), draw(st.integers(1, 20)))
    return masks, scores, labels, size, draw(st.floats(0, 1)), draw(st.floats(0, 1))


THINGS = torch.tensor([False, False, True, True, True])


@given(scenes())
@settings(max_examples=80, deadline=None)
def test_every_pixel_has_one_segment_and_every_segment_one_class(scene: Any) -> None:
    merged = merge_panoptic(*scene)
    owner = merged.owner.clone()
    id_map, rows, kernel_of = number_segments(merged, THINGS)
    ids = [row[0] for row in rows]
    assert ids == list(range(1, len(ids) + 1))
    assert set(id_map.unique().tolist()) - {0} == set(ids)  # no segment without a pixel, no pixel without a segment
    stuff = [label for _, label, _ in rows if not THINGS[label]]
    assert len(stuff) == len(set(stuff))
    for number, label, _ in rows:
        owners = owner[id_map == number].unique()
        assert (merged.labels[owners] == label).all()
        assert not THINGS[label] or len(owners) == 1
        assert kernel_of[number] in merged.kernels[owners]
    assert ((id_map == 0) == (owner < 0)).all()
    assert tuple(id_map.shape) == scene[3]


@given(scenes())
@settings(max_examples=40, deadline=None)
def test_filtering_before_the_resize_changes_nothing(scene: Any) -> None:
    masks, scores, labels, size, score, overlap = scene
    early = merge_panoptic(masks, scores, labels, size, score, overlap)
    full = F.interpolate(masks[None], size, mode="bilinear", align_corners=False)[0]
    late = merge_panoptic(full, scores, labels, size, score, overlap)
    assert torch.equal(early.owner, late.owner)


@given(scenes())
@settings(max_examples=40, deadline=None)
def test_a_higher_overlap_threshold_only_makes_pixels_void(scene: Any) -> None:
    masks, scores, labels, size, score, overlap = scene
    low = merge_panoptic(masks, scores, labels, size, score, max(overlap / 2, 1e-6)).owner
    high = merge_panoptic(masks, scores, labels, size, score, max(overlap, 2e-6)).owner
    assert ((high == low) | (high == -1)).all()


def test_the_best_mask_stays_however_uncertain() -> None:
    merged = merge_panoptic(
        torch.full((2, 2, 2), 3.0), torch.tensor([0.1, 0.2]), torch.tensor([0, 1]), (4, 4), 0.9, 0.5
    )
    assert merged.scores.tolist() == torch.tensor([0.2]).tolist()
    assert (merged.owner == 0).all()


def test_ties_go_to_the_first_mask() -> None:
    merged = merge_panoptic(torch.full((3, 2, 2), 3.0), torch.full((3,), 0.5), torch.tensor([2, 3, 4]), (2, 2), 0, 0.5)
    assert (merged.owner == 0).all()


def test_channels_last_masks_give_the_same_result() -> None:
    masks = torch.randn(1, 6, 5, 7, generator=torch.Generator().manual_seed(0))
    strange = masks.to(memory_format=torch.channels_last)[0]
    scores, labels = torch.rand(6), torch.arange(6) % 5
    plain = merge_panoptic(masks[0], scores, labels, (20, 28), 0.1, 0.3)
    assert torch.equal(plain.owner, merge_panoptic(strange, scores, labels, (20, 28), 0.1, 0.3).owner)


def test_padding_is_cut_away_or_stretched_over_the_image() -> None:
    """The left half of a padded image is the image: its one mask ends in the middle of it."""
    masks = torch.full((2, 4, 8), -9.0)
    masks[0, :, :2], masks[1, :, 2:] = 9, 9
    scene = masks, torch.tensor([0.9, 0.8]), torch.tensor([0, 1]), (32, 32), 0.1, 0.1
    assert (merge_panoptic(*scene, padded=(32, 64)).owner[:, :15] == 0).all()
    assert (merge_panoptic(*scene, padded=(32, 64)).owner[:, 17:] == 1).all()
    assert (merge_panoptic(*scene).owner[:, 9:] == 1).all()  # as the official code: the mask is half as wide


def test_best_class_is_a_sigmoid_of_each_class() -> None:
    scores, labels = best_class(torch.tensor([[0.0, 2.0, -1.0]], dtype=torch.float16))
    assert labels.tolist() == [1]
    assert scores.dtype == torch.float32
    assert abs(scores.item() - 0.8808) < 1e-3
