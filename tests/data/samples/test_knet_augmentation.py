"""What K-Net's training adds to augmentation: OpenCV's resizing, layers of objects, ranges of sizes, mixed crops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from knet.data.samples.transforms import TrainAugmentation, choose_mixed_window, draw_windows, make_target, window_at
from knet.errors import ConfigError
from knet.preprocess import Window, resize_ids, resize_image, resized_size
from knet.structures import Sample, SegmentInfo

THINGS = [True, False, True]


def sample_of(id_map: np.ndarray, labels: list[int], crowd: tuple[int, ...] = ()) -> Sample:
    """A grey-scale ramp with these segments."""
    height, width = id_map.shape[-2:]
    ramp = np.linspace(0, 255, height * width).reshape(height, width, 1).repeat(3, -1).astype(np.uint8)
    return Sample(
        "a", ramp, id_map.astype(np.int32), [SegmentInfo(t, label, t in crowd) for t, label in enumerate(labels, 1)]
    )


@pytest.mark.parametrize("number", range(5))
def test_images_and_maps_are_resized_as_by_mmcv(number: int, goldens: Any) -> None:
    data: Any = np.load(Path(goldens / "knet") / "resize_mmcv.npz")
    long, short = data[f"rescale{number}/scale"].tolist()
    expected = data[f"rescale{number}/image"]
    size = resized_size(data["image"].shape[:2], short, long)
    assert size == expected.shape[:2]
    image = resize_image(torch.from_numpy(data["image"]).permute(2, 0, 1), size, antialias=False)
    difference = np.abs(image.permute(1, 2, 0).numpy().astype(int) - expected)
    assert difference.max() <= 1  # OpenCV has weights of 11 bits
    ids = resize_ids(torch.from_numpy(data["ids"]).int(), size).numpy()
    np.testing.assert_array_equal(ids, data[f"rescale{number}/seg"])
    shape = data["masks_shape"]
    masks = np.unpackbits(data["masks"], axis=-1)[..., : shape[-1]].astype(np.int32)
    shape = data[f"rescale{number}/masks_shape"]
    wanted = np.unpackbits(data[f"rescale{number}/masks"], axis=-1)[..., : shape[-1]]
    np.testing.assert_array_equal(resize_ids(torch.from_numpy(masks), size).numpy(), wanted)


@pytest.mark.parametrize("case", ["coco_1333x800", "coco_1333x640", "ade_2048x512", "ade_2048x640"])
def test_sizes_are_mmcvs(case: str, goldens: Any) -> None:
    data = np.load(Path(goldens / "knet") / "resize_mmcv.npz")
    long, short = map(int, case.split("_")[1].split("x"))
    ours = [resized_size(tuple(size), short, long) for size in data["size_in"].tolist()]
    np.testing.assert_array_equal(ours, data[f"size_out/{case}"])


@given(
    st.integers(8, 40), st.integers(8, 40), st.integers(4, 60), st.integers(4, 60), st.integers(0, 2**31), st.booleans()
)
def test_a_window_has_the_pixels_of_the_whole(
    height: int, width: int, new_height: int, new_width: int, seed: int, antialias: bool
) -> None:
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).permute(2, 0, 1)
    layers = torch.from_numpy(rng.integers(0, 5, (3, height, width), dtype=np.int32))
    top, left = int(rng.integers(new_height)), int(rng.integers(new_width))
    window = Window(top, left, int(rng.integers(top, new_height)) + 1, int(rng.integers(left, new_width)) + 1)
    size = (new_height, new_width)
    rows, columns = slice(window.top, window.bottom), slice(window.left, window.right)
    part = resize_image(image, size, window, antialias).int()
    whole = resize_image(image, size, antialias=antialias).int()
    assert (part - whole[:, rows, columns]).abs().max() <= 1
    ids = resize_ids(layers, size, window)
    assert torch.equal(ids, resize_ids(layers, size)[:, rows, columns])
    assert torch.equal(ids, torch.stack([resize_ids(layer, size, window) for layer in layers]))


@pytest.mark.parametrize("crop", [None, (24, 32)])
def test_layers_go_through_every_step_as_maps_do(crop: tuple[int, int] | None) -> None:
    blocks = np.random.default_rng(0).integers(0, 5, (6, 9)).repeat(10, 0).repeat(10, 1)
    labels = [0, 1, 2, 0]
    plain = sample_of(blocks, labels, crowd=(4,))
    layers = sample_of(
        np.stack([np.where(np.isin(blocks, own), blocks, 0) for own in ([1, 3], [2], [4])]), labels, (4,)
    )
    augment = TrainAugmentation([40, 60, 90], 200, crop, pad=(80, 80))
    for seed in range(20):
        (image, target), (image_2, target_2) = (
            augment(sample, THINGS, np.random.default_rng(seed)) for sample in (plain, layers)
        )
        assert torch.equal(image, image_2) and torch.equal(target.labels, target_2.labels)
        assert torch.equal(target.id_map, target_2.id_map.amax(0))
        assert len(target.labels) == target.id_map.max()


def test_whole_images_keep_their_proportion_within_the_range() -> None:
    sample = sample_of(np.ones((60, 80)), [0])
    augment = TrainAugmentation([64, 80], 100, None, flip=False, color=False, between=True, antialias=False)
    sizes = {tuple(augment(sample, THINGS, np.random.default_rng(seed))[0].shape[1:]) for seed in range(300)}
    assert sizes == {resized_size((60, 80), short, 100) for short in range(64, 81)}
    assert max(max(size) for size in sizes) == 100
    scaled = TrainAugmentation([40], 50, None, flip=False, color=False, ratio=(0.5, 2.0))
    heights = [scaled(sample, THINGS, np.random.default_rng(seed))[0].shape[1] for seed in range(100)]
    assert 19 <= min(heights) < 25 and 65 < max(heights) <= 75  # short edge 37.5 at a long one of 50


def test_crops_show_two_classes_and_none_that_fills_them() -> None:
    ids = np.zeros((64, 64), np.int32)
    ids[:, :32], ids[:, 32:] = 1, 2  # only windows on the border are mixed
    ids[:8] = 0
    sample = sample_of(ids, [0, 2])
    rng = np.random.default_rng(0)
    mixed = 0
    for _ in range(50):
        windows = draw_windows((64, 64), (16, 16), rng, 11)
        number = choose_mixed_window(torch.from_numpy(ids), (64, 64), (16, 16), sample.segments, windows, 0.75)
        shares = []
        for corner in windows:
            window = window_at(corner, (16, 16), (64, 64))
            part = ids[window.top : window.bottom, window.left : window.right]
            areas = np.bincount(part[part > 0], minlength=3)[1:]
            shares.append((areas > 0).sum() > 1 and areas.max() < 0.75 * areas.sum())
        assert number == (shares[:10].index(True) if any(shares[:10]) else 10)
        mixed += number < 10
    assert 10 < mixed < 50
    augment = TrainAugmentation([64], 64, (16, 16), largest_class=0.75)
    image, target = augment(sample, THINGS, np.random.default_rng(1))
    assert image.shape == (3, 16, 16) and target.id_map.shape == (16, 16)
    empty = sample_of(np.zeros((64, 64)), [])
    assert len(augment(empty, THINGS, np.random.default_rng(1))[1].labels) == 0


def test_one_class_in_several_segments_counts_as_one() -> None:
    ids = torch.zeros(32, 32, dtype=torch.int32)
    ids[:, :16], ids[:, 16:] = 1, 2
    windows = [(0, 8), (0, 0)]
    segments = [SegmentInfo(1, 5), SegmentInfo(2, 5)]
    assert choose_mixed_window(ids, (32, 32), (16, 16), segments, windows, 0.75) == 1
    segments = [SegmentInfo(1, 5), SegmentInfo(2, 6)]
    assert choose_mixed_window(ids, (32, 32), (16, 16), segments, windows, 0.75) == 0


def test_padding_has_its_colour_and_is_void() -> None:
    sample = sample_of(np.ones((2, 8, 8)), [0, 2])
    augment = TrainAugmentation([8], 8, None, flip=False, color=False, pad=(10, 12), pad_color=(124, 116, 104))
    image, target = augment(sample, THINGS, np.random.default_rng(0))
    assert image.shape == (3, 10, 12) and target.id_map.shape == (2, 10, 12)
    assert image[:, 9, 0].tolist() == image[:, 0, 11].tolist() == [124, 116, 104]
    assert not target.id_map[:, 8:].any() and not target.id_map[:, :, 8:].any()


def test_a_layered_target_without_objects() -> None:
    target = make_target(torch.zeros(1, 4, 4, dtype=torch.int32), sample_of(np.zeros((1, 4, 4)), []))
    assert target.id_map.shape == (1, 4, 4) and len(target.labels) == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"short_edges": [80, 64], "between": True}, "from a smaller number"),
        ({"ratio": (2.0, 0.5)}, "from a smaller number"),
        ({"ratio": (0.0, 0.5)}, "from a smaller number"),
        ({"largest_class": 1.5}, "largest_class 1.5 is a share"),
        ({"pad_color": (1, 2, 300)}, "no colour"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        TrainAugmentation(**{"short_edges": [64], "max_size": 100, "crop": None, **options})
