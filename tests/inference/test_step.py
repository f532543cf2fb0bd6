"""Objects followed in loops of the caller's: one frame a call, and frames from any iterable, with their times."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fake_video import Linked, Painted, drive, painted, segmenter_of

from knet.errors import ConfigError, DataError
from knet.inference.results.segmentation import Segmentation


def tracks(results: list[Segmentation]) -> list[list[int | None]]:
    return [[s.track for s in result.segments if s.thing] for result in results]


@pytest.mark.parametrize("net", [Painted, Linked])
def test_one_frame_a_call_gives_what_track_gives(net: Any) -> None:
    follow = segmenter_of(net()).tracker()
    stepped = [follow(frame) for frame in drive(6)]
    tracked = [result for _, result in segmenter_of(net()).track(drive(6))]
    assert tracks(stepped) == tracks(tracked) and len(stepped[-1].segments) == 4
    assert [result.name for result in stepped][:2] == ["frame_000000", "frame_000001"]
    assert follow(drive(7)[6], name="mine").name == "mine"
    assert stepped[0].overlay().shape == (48, 96, 3) and np.array_equal(stepped[3].image, drive(4)[3])


def test_a_call_knows_of_dropped_frames_by_their_times() -> None:
    """Over the gap the object moves by more than its size: only with its time is it expected there."""
    kept = [0, 1, 2, 3, 4, 5, 11, 12]
    follow = segmenter_of(Painted()).tracker()
    found = [follow(painted({1: (4, 4 * n)}), time=1305031452.0 + n / 30) for n in kept]
    assert tracks(found) == [[1]] * 8
    follow.reset()
    assert tracks([follow(painted({1: (4, 4)}), time=3.0)]) == [[1]]  # a new video, on another clock
    for time in (2.9, float("nan"), "now", True):
        with pytest.raises(DataError, match="time"):
            follow(painted({}), time=time)  # type: ignore[arg-type]


def test_two_videos_can_be_followed_in_turn() -> None:
    segmenter = segmenter_of(Painted())
    one, other = segmenter.tracker(), segmenter.tracker(tracker="overlap", classes=["car"])
    pairs = [(one(frame), other(frame)) for frame in drive(4)]
    assert tracks([pair[0] for pair in pairs])[-1].count(None) == 0
    assert all(s.name == "car" for pair in pairs for s in pair[1].segments if s.track)


def test_what_cannot_be_tracked_is_refused_before_the_first_frame() -> None:
    segmenter = segmenter_of(Painted())
    for options in ({"tracker": "embeddings"}, {"classes": ["caar"]}, {"score": 2.0}, {"only": ["caar"]}):
        with pytest.raises(ConfigError):
            segmenter.tracker(**options)  # type: ignore[arg-type]


def with_times(kept: list[int]) -> Iterator[Any]:
    for place, n in enumerate(kept):
        pair = (painted({1: (4, 4 * n)}), n / 30)
        yield pair if place % 2 else pair[::-1]


def test_any_iterable_of_frames_can_be_tracked() -> None:
    segmenter = segmenter_of(Painted())
    expected = tracks([result for _, result in segmenter.track(drive(6))])
    for source in (
        (frame for frame in drive(6)),
        np.stack(drive(6)),
        torch.from_numpy(np.stack(drive(6))).permute(0, 3, 1, 2),
    ):
        assert tracks([result for _, result in segmenter_of(Painted()).track(source)]) == expected
    kept = [0, 1, 2, 3, 4, 5, 11, 12]
    for timed in (with_times(kept), list(with_times(kept))):
        assert tracks([result for _, result in segmenter.track(timed)]) == [[1]] * 8
    assert len(list(segmenter.track(with_times(kept), every=2, start=0.1, end=0.4))) == 2
    with pytest.raises(DataError, match="pairs of an image and its time"):
        list(segmenter.track(iter([(drive(1)[0], "soon")])))


def test_frames_of_the_caller_are_made_when_they_are_asked_for() -> None:
    made: list[tuple[int, str]] = []

    def live() -> Iterator[np.ndarray]:
        for n, frame in enumerate(drive(5)):
            made.append((n, threading.current_thread().name))
            yield frame

    results = segmenter_of(Painted()).track(live())
    next(results)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert made == [(n, threading.current_thread().name) for n in (0, 1)]


def test_a_tracked_frame_without_objects_has_an_array_of_tracks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=SimpleNamespace))
    segmenter = segmenter_of(Painted())
    follow = segmenter.tracker()
    full, empty = (follow(frame).to_supervision() for frame in (drive(1)[0], painted({})))
    assert sorted(full.tracker_id.tolist()) == [-1, 1, 2]
    assert empty.tracker_id.tolist() == [-1] and empty.tracker_id.dtype == np.int64
    none = next(result for _, result in segmenter.track([painted({})], only=["car"])).to_supervision()
    assert none.tracker_id.tolist() == [] and none.xyxy.shape == (0, 4)
    assert segmenter(painted({})).to_supervision().tracker_id is None  # an image is not tracked


def test_regions_and_classes_of_results_that_overlap() -> None:
    from knet.data.files.masks import pack_mask, unpack_mask
    from knet.inference.results.chosen import class_ids, only, placed

    segmenter = segmenter_of(Painted())
    found = segmenter(drive(4)[3], region=(0, 0, 48, 48))
    assert {s.name for s in found.segments} == {"road", "person"} and not found.id_map[:, 48:].any()
    (person,) = [s for s in found.segments if s.thing]
    assert person.box == (13, 2, 25, 14)
    mask = np.zeros((48, 48), bool)
    mask[:9, :7] = True
    found.id_map, found.masks = found.id_map[:, :48], {s.id: pack_mask(mask) for s in found.segments}
    moved = placed(only(found, class_ids(["Person"], segmenter.categories)), (20, 10, 68, 58), (60, 90))
    assert list(moved.masks or ()) == [person.id] and moved.segments[0].box == (33, 12, 45, 24)
    there = unpack_mask((moved.masks or {})[person.id])
    assert there.shape == (60, 90) and there[10:19, 20:27].all() and there.sum() == 63
