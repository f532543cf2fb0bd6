"""`compatible=True` at odd sizes: the steps of the original programs, one after the other in plain torch, as reference.

Networks are small, since their own numbers are compared with the originals' elsewhere (tests/models); here it is what
happens before and after them. Of Video K-Net and of its image model there are the originals' own maps at 120x372 and
120x250 (test_video_goldens.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import knet
from knet.data.files.masks import unpack_mask
from knet.errors import ConfigError
from knet.inference.bench import photo
from knet.inference.identities import VideoState
from knet.inference.segmenter import Segmenter
from knet.preprocess import network_size, prepare, resize_as_opencv
from knet.structures import Preprocessing, Segment
from tiny_models import tiny_file

BUNDLED = "rtknet-lite-street"
VOID = -1
# The image, and the size at which the network sees it: itself, or both sides by OpenMMLab's one factor.
ODD = [((150, 301), "image"), ((97, 203), (150, 301))]


def load(model: str | Path, **options: Any) -> Segmenter:
    return knet.load(model, device="cpu", precision="fp32", **options)


def padded_input(image: Tensor) -> Tensor:
    """(3,h,w) 0..255 -> (1,3,H,W): normalised, then zeros at the right and the bottom to multiples of 32."""
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    x = (image.float() - mean[:, None, None]) / std[:, None, None]
    height, width = x.shape[1:]
    whole = torch.zeros(1, 3, (height + 31) // 32 * 32, (width + 31) // 32 * 32)
    whole[0, :, :height, :width] = x
    return whole


def as_opencv(image: np.ndarray, size: Any) -> Tensor:
    """mmcv's `imrescale`; that `resize_as_opencv` is OpenCV to the bit, tests/test_preprocess_opencv.py knows."""
    x = torch.from_numpy(image).permute(2, 0, 1)
    if size == "image":
        return x
    factor = min(max(size) / max(image.shape[:2]), min(size) / min(image.shape[:2]))
    return resize_as_opencv(x, (int(image.shape[0] * factor + 0.5), int(image.shape[1] * factor + 0.5)))


def resize(maps: Tensor, size: Any) -> Tensor:
    return F.interpolate(maps[None], size=tuple(size), mode="bilinear", align_corners=False)[0]


def equal_pixels(found: Any, theirs: np.ndarray, label_of: dict[int, int]) -> float:
    """The share of pixels that are alike in a result and in a map of label * 1000 + number, `VOID` = -1.

    Segments correspond one to one, with the same classes.
    """
    equal = (found.id_map == 0) & (theirs == VOID)
    taken = set[int]()
    for segment in found.segments:
        mask = found.id_map == segment.id
        values, counts = np.unique(theirs[mask], return_counts=True)
        value = int(values[counts.argmax()])
        assert value // 1000 == label_of[segment.category] and value not in taken
        taken.add(value)
        equal |= mask & (theirs == value)
    assert taken == set(np.unique(theirs).tolist()) - {VOID}
    return float(equal.mean())


def labels_of(segmenter: Segmenter) -> dict[int, int]:
    return {category.id: label for label, category in enumerate(segmenter.categories)}


@torch.inference_mode()
def rtknet_map(segmenter: Segmenter, image: np.ndarray, size: Any, score: float, overlap: float) -> np.ndarray:
    """detectron2's resize and `ImageList`, then `get_prediction` of RT-K-Net, line by line."""
    x = torch.from_numpy(image).permute(2, 0, 1)
    if size != "image":
        short, most = size
        factor = short / min(image.shape[:2])
        height, width = (short, factor * image.shape[1]) if image.shape[0] < image.shape[1] else (factor, short)
        if max(height, width) > most:
            height, width = (side * most / max(height, width) for side in (height, width))
        new = int(height + 0.5), int(width + 0.5)
        picture = Image.fromarray(image).resize(new[::-1], Image.Resampling.BILINEAR)
        x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    last = segmenter.net(padded_input(x))[-1]  # type: ignore[misc]
    masks = resize(last.mask_logits[0], x.shape[1:]).sigmoid()  # the padding is not cut away before
    scores, labels = last.class_logits[0].sigmoid().max(-1)
    keep = scores >= min(score, scores.max().item())
    scores, labels, masks = scores[keep], labels[keep], masks[keep]
    owner = (scores[:, None, None] * masks).argmax(0)
    result = torch.full(owner.shape, VOID)
    for number, label in enumerate(labels.tolist()):
        won, original = owner == number, (masks[number] >= 0.5).sum() * overlap
        if won.sum() > 0 and original > 0 and won.sum() >= original:
            result[won] = label * 1000 + (number if segmenter.categories[label].thing else 0)
    nearest = F.interpolate(result[None, None].double(), size=image.shape[:2], mode="nearest")
    return nearest[0, 0].long().numpy()


@pytest.mark.parametrize(("shape", "size"), ODD)
def test_rtknet(shape: tuple[int, int], size: Any, tiny_weights: Path) -> None:
    image = photo(shape)
    segmenter = load(tiny_weights, compatible=True, size=size)
    theirs = rtknet_map(segmenter, image, size, segmenter.score, segmenter.overlap)
    assert equal_pixels(segmenter.segment(image), theirs, labels_of(segmenter)) >= 0.999
    usual = load(tiny_weights, size=size).segment(image)
    label_map = np.where(theirs < 0, 0, theirs // 1000 + 1)
    names = {category.id: label + 1 for label, category in enumerate(segmenter.categories)}
    ours = np.zeros(shape, np.int64)
    for segment in usual.segments:
        ours[usual.id_map == segment.id] = names[segment.category]
    assert (ours != label_map).mean() > 0.01  # else this test would see nothing


@torch.inference_mode()
def knet_masks(segmenter: Segmenter, image: np.ndarray, size: Any) -> tuple[Tensor, Tensor]:
    """mmdet's pipeline and K-Net's resizes: probabilities of classes (N,K), and of masks (N,H,W) at the file's size."""
    x = as_opencv(image, size)
    padded = padded_input(x)
    last = segmenter.net(padded)[-1]  # type: ignore[misc]
    grid = [2 * side for side in last.mask_logits.shape[2:]]
    masks = resize(resize(last.mask_logits[0], grid).sigmoid(), padded.shape[2:])
    return last.class_logits[0].sigmoid(), resize(masks[:, : x.shape[1], : x.shape[2]], image.shape[:2])


@pytest.mark.parametrize(("shape", "size"), ODD)
def test_knet_panoptic(shape: tuple[int, int], size: Any, tmp_path: Path) -> None:
    segmenter, image = load(tiny_file("panoptic", tmp_path), compatible=True, size=size, score=0.3), photo(shape)
    classes, masks = knet_masks(segmenter, image, size)
    stuff = list(segmenter.engine.stuff)
    things = [label for label in range(classes.shape[1]) if label not in stuff]
    count = len(classes) - len(stuff)
    scores, best = classes[:count, things].max(1)
    scores = torch.cat((scores, classes[count:, stuff].diagonal()))
    labels = [*(things[place] for place in best.tolist()), *stuff]
    owner, theirs, number = (scores[:, None, None] * masks).argmax(0), np.full(shape, VOID), 0
    for place in scores.argsort(descending=True, stable=True).tolist():
        won, original = (owner == place).sum().item(), (masks[place] >= 0.5).sum().item()
        if labels[place] in things and scores[place] < 0.3:
            continue
        if won > 0 and original > 0 and won / original >= segmenter.overlap:
            theirs[owner == place] = labels[place] * 1000 + number
            number += 1
    assert number > 2
    assert equal_pixels(segmenter.segment(image), theirs, labels_of(segmenter)) >= 0.999


@pytest.mark.parametrize(("shape", "size"), ODD)
def test_knet_instances(shape: tuple[int, int], size: Any, tmp_path: Path) -> None:
    segmenter, image = load(tiny_file("instance", tmp_path), compatible=True, size=size), photo(shape)
    without_pixels(segmenter, kernel=2)
    classes, masks = knet_masks(segmenter, image, size)
    scores, places = classes.flatten().topk(100)
    found = segmenter.segment(image)
    ids = [category.id for category in segmenter.categories]
    assert [s.category for s in found.segments] == [ids[place % classes.shape[1]] for place in places.tolist()]
    assert np.allclose([s.score for s in found.segments], scores, atol=1e-4)
    for segment, place in zip(found.segments, places.tolist(), strict=True):
        theirs = masks[place // classes.shape[1]] > 0.5
        assert (unpack_mask(found.rle(segment)) != theirs.numpy()).mean() <= 0.001
        assert segment.area or not theirs.any()
    assert any(not segment.area for segment in found.segments)  # which the original lists as well
    usual = load(tiny_file("instance", tmp_path), size=size)
    without_pixels(usual, kernel=2)
    assert len(usual.segment(image).segments) == sum(segment.area > 0 for segment in found.segments)
    assert len(segmenter.segment_next(image, VideoState(), 0)[0].segments) == len(found.segments)  # tracked
    files = found.save(tmp_path / "out", formats=["overlay", "panoptic", "semantic", "json"])
    assert all(Path(file).is_file() for file in files)


def without_pixels(segmenter: Segmenter, kernel: int) -> None:
    def empty(net: Any, inputs: Any, outputs: Any) -> None:
        outputs[-1].mask_logits[:, kernel] = -9.0

    segmenter.net.register_forward_hook(empty)  # type: ignore[union-attr]


@pytest.mark.parametrize(("shape", "size"), ODD)
def test_knet_semantic(shape: tuple[int, int], size: Any, tmp_path: Path) -> None:
    segmenter, image = load(tiny_file("semantic", tmp_path), compatible=True, size=size), photo(shape)
    x = as_opencv(image, size)
    whole = padded_input(x)[:, :, : x.shape[1], : x.shape[2]]  # mmsegmentation pads nothing
    with torch.inference_mode():
        logits = segmenter.net(whole.contiguous(memory_format=torch.channels_last))[-1].mask_logits[0]  # type: ignore[misc]
    theirs = resize(resize(logits, x.shape[1:]), shape).softmax(0).argmax(0).numpy()
    assert len(np.unique(theirs)) > 2
    assert equal_pixels(segmenter.segment(image), theirs * 1000, labels_of(segmenter)) >= 0.999


def test_sizes_are_rounded_by_the_originals_factor() -> None:
    coco, city = Preprocessing(800, 1333, antialias=False), Preprocessing(1024, 2048)
    sizes = [network_size((105, 310), "model", p, compatible=on) for p in (coco, city) for on in (False, True)]
    assert sizes == [(451, 1333), (452, 1333), (694, 2048), (694, 2048)]


def test_clips_are_resized_as_floats() -> None:
    """YouTube-VIS's frames are float32 when OpenCV resizes them, so that nothing is rounded."""
    image, p = photo((90, 171)), Preprocessing(60, 120, antialias=False)
    exact, sizes = prepare(image, "model", p, torch.device("cpu"), compatible=True, rounded=False)
    plain = resize(torch.from_numpy(image).permute(2, 0, 1).double(), sizes.resized)
    assert torch.allclose(exact, padded_input(plain), atol=1e-4)
    whole, _ = prepare(image, "model", p, torch.device("cpu"))
    assert 1e-3 < (exact - whole).abs().max() < 0.02


def test_void_counts_as_the_best_segment_of_class_0_alone(tmp_path: Path) -> None:
    """K-Net's evaluation writes label + 1000 * number from 0, and void is 0 as well."""
    from knet.inference.results.segmentation import Segmentation
    from knet.runs.evaluate import _void_as_first_person

    id_map = np.array([[1, 1, 2], [0, 0, 2]], np.int32)
    for task, on, best, expected in (
        ("panoptic", True, 0, [[1, 1, 2], [1, 1, 2]]),
        ("panoptic", True, 1, id_map),
        ("panoptic", False, 0, id_map),
        ("video", True, 0, id_map),  # Video K-Net numbers from 1
    ):
        segmenter = load(tiny_file(task, tmp_path), compatible=on)
        rows = [segmenter.categories[label] for label in (best, 2)]
        segments = [Segment(n, c.id, c.name, c.thing, 0.9, 2, (0, 0, 1, 1)) for n, c in enumerate(rows, 1)]
        counted = _void_as_first_person(segmenter, Segmentation(id_map, segments, segmenter.categories))
        assert counted.id_map.tolist() == np.asarray(expected).tolist()
        assert [segment.id for segment in counted.segments] == [1, 2]


def test_what_does_not_go_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(words: str, model: str = BUNDLED, **options: Any) -> None:
        with pytest.raises(ConfigError, match=words):
            knet.load(model, device="cpu", compatible=True, **options)

    fails(r"computes in fp32, not in bf16; leave precision \(--precision\) out", precision="bf16")
    fails(r"leave compile \(--compile\) out", compile=True)
    fails("'x.onnx' is an exported file; load the weights", model="x.onnx")
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    fails("needs exact products.*instead of 'high'")


def test_nothing_changes_without_it() -> None:
    usual, official = knet.load(BUNDLED, device="cpu"), knet.load(BUNDLED, device="cpu", compatible=True)
    assert (usual.compatible, usual.rules.regions, usual.rules.stretches_padding) == (False, 150, False)
    assert (official.compatible, official.rules.regions, official.rules.stretches_padding) == (True, 0, True)
    assert official.precision == "fp32"
