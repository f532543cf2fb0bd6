"""Working ahead keeps the order, stays within its bounds, and leaves no thread behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knet.data.files.ahead import map_ahead
from knet.errors import DataError


def left_over() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("knet ")]


@given(st.lists(st.integers(0, 3), max_size=20), st.integers(1, 5), st.sampled_from([None, 1, 3]))
@settings(max_examples=30, deadline=None)
def test_it_is_a_map(items: list[int], ahead: int, workers: int | None) -> None:
    def slow(item: int) -> int:
        time.sleep(item / 2000)
        return -item

    assert list(map_ahead(slow, items, ahead, workers=workers)) == [-item for item in items]
    assert not left_over()


@pytest.mark.parametrize("ahead", [1, 3])
def test_only_a_few_items_are_taken_ahead(ahead: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(20):
            taken = item + 1
            yield item

    for item in map_ahead(abs, items(), ahead):
        assert taken <= item + 1 + ahead


def test_items_are_read_at_the_same_time_but_by_one_worker_in_a_row() -> None:
    meeting = threading.Barrier(2, timeout=300)
    assert len(list(map_ahead(lambda _: meeting.wait(), range(4), 2))) == 4
    names = set(map_ahead(lambda _: threading.current_thread().name, range(9), 3, workers=1))
    assert len(names) == 1 and threading.current_thread().name not in names


def test_an_error_comes_in_its_place_and_what_was_not_begun_is_dropped() -> None:
    begun, seen = list[int](), list[int]()

    def work(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise DataError("the third")
        return item

    with pytest.raises(DataError, match="the third"):
        seen.extend(map_ahead(work, range(100), 2, workers=1))
    assert seen == [0, 1, 2] and len(begun) <= 6 and not left_over()
    early = map_ahead(work, range(4, 100), 2, workers=1)
    assert next(early) == 4
    early.close()
    assert len(begun) <= 12 and not left_over()


def test_each_thread_is_prepared_once() -> None:
    prepared = list[str]()
    list(map_ahead(time.sleep, [0.001] * 9, 3, initializer=lambda: prepared.append(threading.current_thread().name)))
    assert 1 <= len(prepared) == len(set(prepared)) <= 3
