"""Video K-Net for clips: the numbers of the original, the network by itself, and from frames to a submission."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import knet
from knet.data.categories import load_categories
from knet.data.files.masks import pack_mask, unpack_mask
from knet.errors import ConfigError, DataError
from knet.inference.clip import segment_clip
from knet.inference.load import describe_official, segmenter_for
from knet.inference.results.youtube_vis import youtube_vis_results
from knet.inference.segmenter import Segmenter
from knet.merge.clip import ClipObject, clip_objects
from knet.merge.sorted import enlarge, to_image
from knet.models.clip import ClipKNet, clip_result, is_clip
from knet.models.zoo import entry
from knet.preprocess import ImageSizes, normalize_and_pad
from knet.runs.evaluate import evaluate
from knet.structures import Output
from knet.weights.load import load_strict, read_checkpoint

MODEL = "video-knet-r50-youtube-vis"
GOLDEN = "vk_vis_r50_eval_seed72_96x160.npz"
KERNELS, LOGITS = 2e-4, 1e-3  # the README of the goldens


@pytest.fixture(scope="module")
def golden(goldens: Any) -> Any:
    return np.load(goldens.file("video_knet", GOLDEN))


@pytest.fixture(scope="module")
def segmenter(goldens: Any, official_checkpoint: Any, golden: Any) -> Segmenter:
    net = knet.create(MODEL)
    seed = json.loads(bytes(golden["info"]))["seed"]
    checkpoint = official_checkpoint("manifest_vis_r50.json", seed, "video_knet")
    load_strict(net, read_checkpoint(checkpoint).state, str(checkpoint))
    return segmenter_for(net, describe_official(MODEL))


def test_every_stage_is_the_originals(segmenter: Segmenter, golden: Any) -> None:
    images = [torch.from_numpy(image).permute(2, 0, 1) for image in golden["images"]]
    with torch.no_grad():
        initial, *stages = segmenter.net(normalize_and_pad(images, entry(MODEL).preprocessing))
    frames, clips = stages[:3], stages[3:]
    found = {"rpn_masks_every4": initial.mask_logits[:, ::4], "frame2_kernels": frames[2].kernels}
    for s, (frame, clip) in enumerate(zip(frames, clips, strict=True)):
        found |= {f"frame{s}_cls": frame.class_logits, f"frame{s}_masks_every8": frame.mask_logits[:, ::8]}
        found |= {f"clip{s}_kernels": clip.kernels, f"clip{s}_masks_every8": clip.mask_logits[:, ::8].transpose(1, 2)}
        if s < 2:
            found[f"clip{s}_cls"] = clip.class_logits
    found["clip2_kernels"] = clips[2].kernels.transpose(1, 2)  # a set for each frame
    assert clips[2].class_logits is None
    # The golden has the sums that enter the first stage instead of what we call its kernels.
    assert found.keys() == {key for key in golden if key.startswith(("rpn", "frame", "clip"))} - {"rpn_kernels"}
    for name, tensor in found.items():
        tolerance = KERNELS if name.endswith("kernels") else LOGITS
        np.testing.assert_allclose(tensor.numpy(), golden[name], rtol=0, atol=tolerance, err_msg=name)


def test_results_are_the_originals(segmenter: Segmenter, golden: Any) -> None:
    """A row of the original is (identity, 0, 0, 0, 0, score) in one frame; the identity is the rank."""
    objects = segment_clip(segmenter, golden["images"], size="image")
    assert len(objects) == 10
    masks = np.unpackbits(golden["res_mask"], axis=-1)[..., : golden["images"].shape[2]].astype(bool)
    rows = zip(golden["res_frame"], golden["res_class"], golden["res_row"], masks, strict=True)
    equal = []
    for frame, label, row, expected in rows:
        ours = objects[int(row[0])]
        assert ours.label == label
        assert ours.score == pytest.approx(float(row[5]), abs=1e-5)
        rle = ours.masks[frame]
        equal.append((np.zeros_like(expected) if rle is None else unpack_mask(rle)) == expected)
    assert np.mean(equal) >= 0.9999


def tiny(seed: int = 0, **arguments: Any) -> ClipKNet:
    torch.manual_seed(seed)
    options: dict[str, Any] = {"classes": 5, "backbone": "timm/resnet18", "kernels": 6, "channels": 32, **arguments}
    return ClipKNet(**options).eval()


def look(net: ClipKNet, images: Tensor) -> list[Output]:
    with torch.no_grad():
        return net(images)


def test_the_form_of_the_outputs() -> None:
    net = tiny(stages=2, clip_stages=4).train()
    outputs = net(torch.randn(2, 3, 3, 64, 96))
    assert [is_clip(output) for output in outputs] == [False] * 3 + [True] * 4
    assert outputs[0].semantic_logits is not None and outputs[0].semantic_logits.shape == (6, 5, 8, 12)
    assert outputs[2].mask_logits.shape == (6, 6, 8, 12)
    for output in outputs[3:]:
        assert output.mask_logits.shape == (2, 6, 3, 8, 12)
        assert output.features.shape == (2, 32, 3, 8, 12)
    assert [tuple(output.kernels.shape) for output in outputs[3:]] == [(2, 6, 32)] * 3 + [(2, 6, 3, 32)]
    classes, masks = clip_result(outputs[3:])
    assert classes is outputs[5].class_logits and masks is outputs[6].mask_logits
    with pytest.raises(ConfigError, match="clip_stages=1"):
        tiny(clip_stages=1)


def test_a_clip_alone_is_as_a_clip_in_a_batch() -> None:
    net, images = tiny(), torch.randn(2, 3, 3, 64, 64)
    both = clip_result(look(net, images)[4:])
    for b, clip in enumerate(images):
        for whole, alone in zip(both, clip_result(look(net, clip)[4:]), strict=True):
            torch.testing.assert_close(whole[b], alone[0], rtol=1e-4, atol=1e-4)


def test_the_order_of_frames_means_nothing() -> None:
    net, images, order = tiny(), torch.randn(4, 3, 64, 64), [2, 0, 3, 1]
    classes, masks = clip_result(look(net, images)[4:])
    moved_classes, moved_masks = clip_result(look(net, images[order])[4:])
    torch.testing.assert_close(moved_classes, classes, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moved_masks, masks[:, :, order], rtol=1e-4, atol=1e-4)


def test_a_frame_many_times_says_what_it_says_once() -> None:
    """Group features are means over frames, not sums."""
    net, image = tiny(), torch.randn(1, 3, 64, 64)
    classes, masks = clip_result(look(net, image)[4:])
    more_classes, more_masks = clip_result(look(net, image.expand(5, -1, -1, -1))[4:])
    torch.testing.assert_close(more_classes, classes, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(more_masks, masks.expand(-1, -1, 5, -1, -1), rtol=1e-4, atol=1e-4)


@given(st.integers(0, 2**16), st.integers(1, 3), st.integers(0, 12), st.floats(0, 1))
@settings(max_examples=20)
def test_objects_are_the_best_pairs_with_the_masks_of_their_kernels(
    seed: int, frames: int, count: int, score: float
) -> None:
    g = torch.Generator().manual_seed(seed)
    N, K, sizes = 4, 3, ImageSizes((32, 64), (27, 50), (40, 61))
    classes = 2 * torch.randn(N, K, generator=g)
    logits = torch.randn(N, frames, 4, 8, generator=g) - 1
    objects = clip_objects(classes, logits, sizes, pack_mask, score, count)
    expected = sorted(((float(classes[n, k].sigmoid()), n, k) for n in range(N) for k in range(K)), reverse=True)
    expected = [pair for pair in expected[:count] if pair[0] >= score]
    assert [(found.score, found.kernel, found.label) for found in objects] == expected
    for found in objects:
        for frame, rle in enumerate(found.masks):
            grid = enlarge(logits[found.kernel, frame][None])
            mask = to_image(grid, sizes)(grid[0]).numpy() > 0.5
            assert (rle is None) == (not mask.any())
            assert rle is None or (unpack_mask(rle) == mask).all()
        assert len(found.masks) == frames
    for last in objects[-1:]:  # as certain as is asked for is enough
        assert clip_objects(classes, logits, sizes, pack_mask, last.score, count) == objects


@pytest.fixture(scope="module")
def small() -> Segmenter:
    return segmenter_for(tiny(classes=40), describe_official(MODEL), size=64)


def film(frames: int = 3, size: tuple[int, int] = (48, 80)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, *size, 3), dtype=np.uint8)


def test_frames_one_by_one_are_as_the_clip_at_once(small: Segmenter) -> None:
    frames = film()
    objects = segment_clip(small, (frame for frame in frames))
    inputs = torch.cat([small.prepare(frame, 64)[0] for frame in frames])
    classes, masks = (x[0] for x in clip_result(look(small.net, inputs)[4:]))  # type: ignore[arg-type]
    expected = clip_objects(classes, masks, small.prepare(frames[0], 64)[1], pack_mask)
    assert [(o.label, o.kernel) for o in objects] == [(o.label, o.kernel) for o in expected]
    assert [o.score for o in objects] == pytest.approx([o.score for o in expected], abs=1e-5)
    assert len(segment_clip(small, film(1), count=3)) == 3
    assert segment_clip(small, frames, score=1.0) == []


def test_what_is_no_clip(small: Segmenter, tiny_weights: Path) -> None:
    with pytest.raises(DataError, match="no frames"):
        segment_clip(small, [])
    with pytest.raises(DataError, match=r"Frame 2 of the clip has \(40, 80\) pixels"):
        segment_clip(small, [*film(2), *film(1, (40, 80))])
    with pytest.raises(ConfigError, match="is not for clips"):
        segment_clip(knet.load(tiny_weights, device="cpu"), film())
    with pytest.raises(ConfigError, match=r"all frames of a clip at once.*segment_clip"):
        small(film()[0])
    with pytest.raises(ConfigError, match=r"The data cannot be \[\]"):
        evaluate(small, [])  # type: ignore[arg-type]


def test_submission_to_youtube_vis() -> None:
    mask = np.zeros((5, 7), bool)
    mask[1:3, 2:6] = True
    categories = load_categories("youtube_vis")
    objects = [ClipObject(0.9, 0, 3, [None, pack_mask(mask)]), ClipObject(0.5, 39, 1, [None, None])]
    rows = youtube_vis_results(7, objects, categories)
    (row,) = json.loads(json.dumps(rows))  # an object that is nowhere is no row
    assert row.keys() == {"video_id", "score", "category_id", "segmentations"}
    assert (row["video_id"], row["score"], row["category_id"]) == (7, 0.9, 1)
    empty, rle = row["segmentations"]
    assert empty is None
    assert (unpack_mask({**rle, "counts": rle["counts"].encode()}) == mask).all()
