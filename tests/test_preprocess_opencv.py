"""Resizing as OpenCV does it: its own pixels, and laws."""

import fnmatch
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from knet.preprocess import resize_as_opencv

edges = st.integers(1, 40)


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return resize_as_opencv(torch.tensor(image).permute(2, 0, 1), size).permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    ("golden", "names", "count"), [("resize_mmcv", "rescale?/image", 5), ("eval_seg_fcn_r50_96x128", "tta_image_*", 6)]
)
def test_every_pixel_is_opencvs(golden: str, names: str, count: int, goldens: Any) -> None:
    data = np.load(goldens.file("knet", f"{golden}.npz"))
    keys = fnmatch.filter(data, names)
    assert len(keys) == count
    for key in keys:
        np.testing.assert_array_equal(resized(data["image"], data[key].shape[:2]), data[key])


@given(edges, edges, edges, edges, st.integers(0, 255))
def test_one_colour_stays_it(height: int, width: int, new_height: int, new_width: int, value: int) -> None:
    assert (resized(np.full((height, width, 3), value, np.uint8), (new_height, new_width)) == value).all()


@given(edges, edges, edges, edges, st.integers(0, 1000))
def test_pixels_are_those_of_plain_bilinear_resizing(h: int, w: int, height: int, width: int, seed: int) -> None:
    image = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, h, w), dtype=np.uint8))
    plain = torch.nn.functional.interpolate(image[None].double(), (height, width), mode="bilinear")[0]
    assert (resize_as_opencv(image, (height, width)) - plain).abs().max() <= 1.01  # but for its short fractions
    assert torch.equal(resize_as_opencv(image, (h, w)), image)
