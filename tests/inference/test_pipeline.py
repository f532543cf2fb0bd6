"""Reading ahead and writing behind: the order, errors in their places, early ends, and nothing that is left over."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_video import Painted, drive, filmed, in_folder, segmenter_of
from hypothesis import given, settings
from hypothesis import strategies as st

from knet.errors import DataError
from knet.inference.pipeline import WriteBehind, parallel_map, read_ahead


def ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("knet ")]


@given(st.lists(st.integers(), max_size=30), st.integers(1, 4))
@settings(max_examples=30)
def test_everything_comes_once_and_in_order(items: list[int], most: int) -> None:
    assert list(read_ahead(lambda _: items, most)) == items
    written = list[int]()
    with WriteBehind(written.append, most) as write:
        for item in items:
            write(item)
    assert written == items and not ours()


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("workers", [1, 2, 3, 9])
def test_results_of_workers_come_in_order_and_share_the_threads(workers: int) -> None:
    def work(item: int) -> tuple[int, int, str]:
        time.sleep(0.002 * (item % 3))
        return item, torch.get_num_threads(), threading.current_thread().name

    results = list(parallel_map(work, range(20), workers))
    assert [item for item, _, _ in results] == list(range(20))
    assert {threads for _, threads, _ in results} == {4 // min(workers, 4)}
    assert len({name for _, _, name in results}) <= min(workers, 4)
    assert torch.get_num_threads() == 4 and not ours()
    there = list[int]()
    other = threading.Thread(target=lambda: there.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert there == [4]  # nor is there anything left of it in threads that come later


@pytest.mark.usefixtures("four_threads")
def test_workers_are_at_work_at_the_same_time() -> None:
    meeting = threading.Barrier(2, timeout=300)
    assert len(list(parallel_map(lambda _: meeting.wait(), range(4), workers=2))) == 4


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_worker_comes_in_its_place(workers: int) -> None:
    taken, seen = list[int](), list[int]()

    def items() -> Iterator[int]:
        for item in range(10_000):
            taken.append(item)
            yield item

    def work(item: int) -> int:
        if item == 3:
            raise DataError("the third")
        return item

    with pytest.raises(DataError, match="the third"):
        seen.extend(parallel_map(work, items(), workers))
    assert seen == [0, 1, 2] and len(taken) < 10 and not ours()
    early = parallel_map(lambda item: item, items(), workers)
    assert next(early) == 0
    early.close()
    assert len(taken) < 20 and not ours()


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise DataError("the file breaks off")

    seen = list[int]()
    with pytest.raises(DataError, match="breaks off"):
        seen.extend(read_ahead(lambda _: items()))
    assert seen == [0, 1, 2] and not ours()
    with pytest.raises(DataError, match="at once"):  # not only when the first item is asked for
        read_ahead(lambda _: broken())


def broken() -> Any:
    raise DataError("at once")


@pytest.mark.parametrize("consumed", [0, 1, 5])
def test_an_early_end_stops_the_reading_and_closes_what_was_open(consumed: int) -> None:
    closed, made = threading.Event(), list[int]()

    def items() -> Iterator[int]:
        try:
            for item in range(10_000):
                made.append(item)
                yield item
        finally:
            closed.set()

    ahead = read_ahead(lambda _: items(), most=2)
    for _ in range(consumed):
        next(ahead)
    ahead.close()
    assert not ours()
    assert closed.is_set() == (consumed > 0)  # what never started has nothing to close
    assert len(made) <= consumed + 4  # the queue, one in hand, and one that was already under way


def test_only_a_few_items_wait() -> None:
    made = 0

    def items() -> Iterator[int]:
        nonlocal made
        for item in range(20):
            made = item + 1
            yield item

    for item in read_ahead(lambda _: items(), most=2):
        time.sleep(0.002)
        assert made <= item + 5


def test_callbacks_are_called_in_their_place_and_in_the_consumer_s_thread() -> None:
    told = list[tuple[str, int]]()
    consumed = list[int]()

    def report(text: str) -> None:
        assert threading.current_thread() is threading.main_thread()
        told.append((text, len(consumed)))

    def items(on_error: Any, on_note: Any) -> Iterator[int]:
        assert on_note is None
        yield 0
        yield 1
        on_error("after two")
        yield 2
        on_error("at the end")

    for item in read_ahead(lambda here: items(here(report), here(None)), most=3):
        consumed.append(item)
    assert told == [("after two", 2), ("at the end", 3)]


def test_an_error_in_writing_is_raised_by_a_later_call_and_drops_the_rest() -> None:
    written = list[int]()

    def write(item: int) -> None:
        if item == 2:
            raise DataError("the disk is full")
        written.append(item)

    with pytest.raises(DataError, match="disk is full"), WriteBehind(write) as behind:
        for item in range(1000):
            behind(item)
            time.sleep(0.001)
    assert written == [0, 1] and not ours()
    with pytest.raises(DataError, match="disk is full"), WriteBehind(write) as behind:
        behind(2)  # the last one: only the end can tell
    with pytest.raises(KeyError, match="other"), WriteBehind(write) as behind:  # the error on its way says more
        behind(2)
        raise KeyError("other")
    assert not ours()


def test_what_was_given_is_written_when_the_body_fails() -> None:
    written = list[int]()
    with pytest.raises(KeyError), WriteBehind(lambda item: (time.sleep(0.01), written.append(item))) as behind:
        for item in range(3):
            behind(item)
        raise KeyError("stop")
    assert written == [0, 1, 2]


def test_streams_of_a_segmenter_can_be_left_early(tmp_path: Path) -> None:
    frames = drive(12)
    folder, video = in_folder(tmp_path / "frames", frames), filmed(tmp_path / "drive.mp4", frames)
    segmenter = segmenter_of(Painted())
    for results in (segmenter.track(str(video)), segmenter.stream(folder), segmenter.track(folder)):
        next(results)
        next(results)
        results.close()  # type: ignore[attr-defined]
        assert not ours()
    assert len(list(segmenter.stream(folder))) == 12
    with pytest.raises(DataError, match="nowhere"):
        next(segmenter.stream(tmp_path / "nowhere"))


def test_a_damaged_frame_is_reported_in_its_place(tmp_path: Path) -> None:
    folder = in_folder(tmp_path / "frames", drive(6))
    (folder / "000003.png").write_bytes(b"no picture")
    order = list[str]()
    for _, result in segmenter_of(Painted()).track(folder, on_error=lambda error: order.append(str(error)[-30:])):
        order.append(result.name)
    assert [len(text) for text in order] == [6, 6, 6, 30, 6, 6]
    assert not ours()
