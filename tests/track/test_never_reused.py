"""An identity that was forgotten is never given again, by either tracker."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knet.track.embeddings import EmbeddingMemory, match
from knet.track.overlap import OverlapMemory, match_by_overlap


def by_embeddings(rng: np.random.Generator, count: int, numbers: list[int]) -> Iterator[tuple[list[int], set[int]]]:
    memory, strangers = EmbeddingMemory(), 3 * rng.standard_normal((12, 4))
    for number in numbers:
        boxes = rng.integers(0, 40, (count, 4)).astype(float)
        boxes[:, 2:] += boxes[:, :2] + 1
        seen = strangers[rng.integers(0, 12, count)] + rng.standard_normal((count, 4))
        found = match(memory, number, boxes, rng.random(count), rng.integers(0, 2, count), seen)
        before, memory = set(memory.ids.tolist()), found.memory
        yield found.ids[found.ids > 0].tolist(), before


def by_overlap(rng: np.random.Generator, count: int, numbers: list[int]) -> Iterator[tuple[list[int], set[int]]]:
    memory = OverlapMemory()
    for number in numbers:
        grid = rng.integers(0, count + 1, (4, 5)).repeat(4, 0).repeat(4, 1).astype(np.int32)
        labels, before = rng.integers(0, 2, count), {track.id for track in memory.tracks}
        ids, memory = match_by_overlap(memory, number, grid, rng.random(count), labels)
        yield ids[ids > 0].tolist(), before


@pytest.mark.parametrize("tracker", [by_embeddings, by_overlap])
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 6), steps=st.lists(st.integers(1, 15), max_size=25))
def test_identities_are_never_reused(tracker: object, seed: int, count: int, steps: list[int]) -> None:
    assert callable(tracker)
    highest = 0
    for ids, remembered in tracker(np.random.default_rng(seed), count, np.cumsum(steps).tolist()):
        assert len(set(ids)) == len(ids)
        assert all(i in remembered or i > highest for i in ids)
        highest = max([highest, *ids])
