"""Objects that overlap, in formats in which a pixel is one object's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_video import TABLE

from knet.data.files.masks import pack_mask, unpack_mask
from knet.data.readers.mots import read_mots
from knet.inference.results.encoding import panoptic_entries
from knet.inference.results.segmentation import Segmentation
from knet.inference.results.track_writers import TrackWriter
from knet.inference.sources.streams import Frame
from knet.inference.sources.videos import Item
from knet.structures import Segment


@pytest.fixture
def crowd() -> Segmentation:
    """A person before a car, half of which it hides, and a person that the car hides wholly; best first."""
    spans = {1: (slice(2, 8), slice(4, 12)), 2: (slice(0, 8), slice(0, 9)), 3: (slice(1, 3), slice(1, 4))}
    masks, segments = {}, []
    id_map = np.zeros((12, 16), np.int32)
    for number, (ys, xs) in spans.items():
        mask = np.zeros((12, 16), bool)
        mask[ys, xs] = True
        masks[number] = pack_mask(mask)
        id_map[mask & (id_map == 0)] = number
        box = (xs.start, ys.start, xs.stop, ys.stop)
        kind = TABLE[2] if number == 2 else TABLE[1]
        segments.append(Segment(number, kind.id, kind.name, True, 1 - number / 10, int(mask.sum()), box, track=number))
    return Segmentation(id_map, segments, TABLE, "crowd", masks=masks)


def test_mots_gets_masks_that_do_not_overlap(crowd: Segmentation, tmp_path: Path) -> None:
    frame = Frame(Item(np.zeros((12, 16, 3), np.uint8), "crowd"), "crowd", 0, 0, True)
    with TrackWriter(tmp_path, ["mots"], TABLE) as writer:
        writer.write(crowd, frame)
    lines = read_mots(tmp_path / "mots" / "crowd.txt")
    assert {line.object for line in lines} == {1, 2}  # of the third one nothing is seen
    masks = {line.object: unpack_mask(line.mask) for line in lines}
    assert sum(mask.astype(int) for mask in masks.values()).max() == 1  # type: ignore[union-attr]
    for number, mask in masks.items():
        assert (mask == (crowd.id_map == number)).all()


def test_rows_of_a_panoptic_json_are_those_of_its_png(crowd: Segmentation) -> None:
    rows = {row["id"]: row for row in panoptic_entries(crowd, 1, "crowd.png", "crowd.png")[1]["segments_info"]}
    assert rows.keys() == {1, 2}
    for number, row in rows.items():
        ys, xs = np.nonzero(crowd.id_map == number)
        left, top, width, height = row["bbox"]
        assert (left, top, left + width, top + height) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert row["area"] == len(ys)
