"""Which models give objects as connected regions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from fake_video import Painted, painted, segmenter_of
from scipy import ndimage

import knet
from knet.inference.load import describe, segmenter_for
from knet.models.zoo import create, entry


def test_the_bundled_model_gives_regions() -> None:
    segmenter = knet.load("rtknet-lite-street", device="cpu", precision="fp32")
    assert segmenter.rules.regions == entry("rtknet-lite-street").regions == 150
    image = np.random.default_rng(0).integers(0, 255, (384, 512, 3), dtype=np.uint8)
    result = segmenter.segment(image, score=0.0, overlap=0.01)
    for segment in result.segments:
        parts = ndimage.label(result.id_map == segment.id, np.ones((3, 3)))[1]
        assert parts == 1 or not segment.thing


def test_the_same_network_with_other_classes_does_not() -> None:
    row = entry("rtknet-lite-street")
    own = [replace(category, name="own") for category in knet.load("rtknet-lite-street", device="cpu").categories]
    card = describe("rtknet-lite-street", {}, own, row.preprocessing, 0.3, 0.6)
    assert card.categories == tuple(own)
    assert segmenter_for(create("rtknet-lite-street"), card).rules.regions == 0


def test_a_mask_in_two_places_becomes_two_objects() -> None:
    frame = painted({1: (4, 4)})
    frame[30:42, 60:72] = frame[4, 4]
    frame[2:4, 90:92] = frame[4, 4]
    segmenter = segmenter_of(Painted(turns=False))
    assert [s.area for s in segmenter(frame).segments if s.thing] == [292]
    segmenter.rules = replace(segmenter.rules, regions=20)
    assert sorted(s.area for s in segmenter(frame).segments if s.thing) == [144, 144]
