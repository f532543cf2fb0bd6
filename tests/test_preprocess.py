"""The sizes that an image has on its way into a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from knet.preprocess import ImageSizes, prepare, unpadded
from knet.structures import Preprocessing


@pytest.mark.parametrize("antialias", [True, False])
def test_sizes_are_those_of_the_batch_the_resized_and_the_original_image(antialias: bool) -> None:
    image = np.full((60, 90, 3), 200, np.uint8)
    inputs, sizes = prepare(image, "model", Preprocessing(40, 100, antialias=antialias), torch.device("cpu"))
    assert sizes == ImageSizes(padded=(64, 64), resized=(40, 60), original=(60, 90))
    assert inputs.shape == (1, 3, 64, 64)
    visible = unpadded(inputs, sizes)
    assert visible.shape == (1, 3, 40, 60) and (visible != 0).all()
    assert inputs.count_nonzero() == visible.numel()  # all else is padding
