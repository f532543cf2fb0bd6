"""What a network says of an image does not depend on the others of its batch, nor on their sizes.

In exact arithmetic it is the same; in float64 it is within 1e-8 of the largest value. (In float32 another order of sums
may move a pixel over the edge of a hard mask, see `rounding`.)
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from knet.models.zoo import create
from knet.preprocess import normalize_and_pad
from knet.structures import Preprocessing
from rounding import in_float64
from tiny_models import ARGUMENTS

SMALL = {
    task: (model, arguments) for task, (model, _, arguments) in ARGUMENTS.items() if task in ("panoptic", "semantic")
}
SLIM = {"width": 8, "head_width": 16, "channels": 16, "kernels": 6, "stages": 2}
SMALL["real time"] = ("rtknet-slim-camvid", SLIM)
SIZES = [(32, 38), (17, 64), (30, 21)]


@pytest.mark.parametrize("name", SMALL)
@torch.inference_mode()
def test_an_image_is_seen_alike_alone_and_in_any_batch(name: str) -> None:
    model, arguments = SMALL[name]
    torch.manual_seed(0)
    with in_float64():
        net: Any = create(model, **arguments).double().eval()
        images = [torch.randint(0, 256, (3, *size)).double() for size in SIZES]
        values = Preprocessing(0, 0)
        whole = net(normalize_and_pad(images, values))
        for batch in ([0], [2, 1]):
            some = net(normalize_and_pad([images[i] for i in batch], values, least=(32, 64)))
            for one, other in zip(whole, some, strict=True):
                for ours, theirs in (
                    (one.mask_logits, other.mask_logits),
                    (one.kernels, other.kernels),
                    (one.class_logits, other.class_logits),
                ):
                    if ours is not None:
                        apart = (ours[batch] - theirs).abs().max()
                        assert apart <= 1e-8 * ours.abs().max()
