"""Reading, computing and writing at the same time, in order, with only a few images waiting between the three."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import repeat
from queue import Queue
from typing import Any, TypeVar

import torch

from knet.data.files.ahead import map_ahead

T = TypeVar("T")
R = TypeVar("R")
Here = Callable[[Any], Any]  # a callback -> the same, called by the consumer; None stays None
Opener = Callable[[Here], Iterable[T]]
WAITING = 2  # images on either side: enough for one that takes twice as long as the others
_END = object()


def read_ahead(open_items: Opener[T], most: int = WAITING) -> Generator[T, None, None]:
    """The items of an iterable, in order, while a thread already makes the next ones, `most` at a time.

    When the consumer stops early, the thread ends and the iterable is closed before anything else goes on. An exception
    of the iterable is raised after the items before it.

    Args:
        open_items: makes the iterable, at once and in the consumer's thread. It gets a function that wraps callbacks
            of the iterable: they are called in the consumer's thread, after the items before the call were consumed.
    """
    calls = list[Callable[[], None]]()  # of callbacks, since the last item

    def here(callback: Callable[..., None] | None) -> Callable[..., None] | None:
        return None if callback is None else (lambda *values: calls.append(partial(callback, *values)))

    return _consumed(iter(open_items(here)), calls, most)


def _consumed(items: Iterator[Any], calls: list[Callable[[], None]], most: int) -> Generator[Any, None, None]:
    def make(_: None) -> tuple[list[Callable[[], None]], Any, BaseException | None]:
        item, error = _END, None
        try:
            item = next(items, _END)
        except BaseException as fault:  # raised where the items are consumed, after the calls that came before it
            error = fault
        made = calls.copy()
        calls.clear()
        return made, item, error

    try:
        with closing(map_ahead(make, repeat(None), most, workers=1)) as ahead:
            for made, item, error in ahead:
                for call in made:
                    call()
                if error is not None:
                    raise error
                if item is _END:
                    return
                yield item
                del item  # a frame is not kept while the next one is waited for
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


def parallel_map(function: Callable[[T], R], items: Iterable[T], workers: int) -> Generator[R, None, None]:
    """Like `map(function, items)`, but up to `workers` items are computed at the same time, in threads.

    The threads of torch are divided among the workers. In one large team a thread has to wait for another that was
    preempted by a decoder or an encoder; small teams wait less. Results differ as they do between numbers of threads,
    in the last bits. With one worker, or one thread of torch, everything happens in the consumer's thread. An exception
    is raised in place of its result; items that were not begun then, or when the consumer stops, are dropped.
    """
    threads = torch.get_num_threads()
    workers = min(workers, threads)
    if workers <= 1:
        yield from map(function, items)
        return
    share = partial(torch.set_num_threads, threads // workers)
    try:
        yield from map_ahead(function, items, workers, initializer=share)
    finally:
        torch.set_num_threads(threads)  # the workers' number is that of new threads, too


class WriteBehind:
    """Calls a function in a thread of its own, in the order of the calls. A context manager whose end waits for them.

    The error of a call is raised by the next one, or at the end; calls that were still waiting, `most` at a time, are
    dropped then.
    """

    def __init__(self, write: Callable[..., object], most: int = WAITING):
        self._write = write
        self._queue = Queue[Any](most)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="knet write behind", daemon=True)

    def __call__(self, *arguments: Any) -> None:
        """Puts a call into the queue; waits where that is full. Raises what an earlier call raised."""
        self._raise()
        self._queue.put(arguments)

    def __enter__(self) -> WriteBehind:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        self._queue.put(_END)
        self._thread.join()
        if kind is None:  # else the error on its way says more
            self._raise()

    def _work(self) -> None:
        while (arguments := self._queue.get()) is not _END:
            if self._error is None:
                try:
                    self._write(*arguments)
                except BaseException as error:  # it is raised where the calls are made
                    self._error = error
            del arguments

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
