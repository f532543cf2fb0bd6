"""Reading, computing and writing at the same time: the next images are decoded while the network looks at this one, and
the results before it are drawn and written. On a processor two images are computed side by side. Order is kept, and
only a few images wait on either side.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, Queue
from types import TracebackType
from typing import Any, TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")
Here = Callable[[Any], Any]  # a callback -> the same, called by the consumer; None stays None
Opener = Callable[[Here], Iterable[T]]
WAITING = 2  # images on either side: enough for one that takes twice as long as the others
_END = object()


def read_ahead(open_items: Opener[T], most: int = WAITING) -> Generator[T, None, None]:
    """What an iterable gives, in its order, while up to `most` items that come next are made in a thread.

    An error of the iterable is raised after the items before it. When the consumer stops early the thread ends, and the
    iterable is closed, before anything else goes on.

    Args:
        open_items: makes the iterable, at once and in the consumer's thread. It gets a function that wraps callbacks
            of the iterable: they are called in the consumer's thread, after the items before the call were consumed.
    """
    queue = Queue[tuple[str, Any]](most)
    stopped = threading.Event()

    def put(kind: str, content: Any) -> None:
        if not stopped.is_set():
            queue.put((kind, content))

    def here(callback: Callable[..., Any] | None) -> Callable[..., None] | None:
        if callback is None:
            return None
        return lambda *values: put("call", lambda: callback(*values))

    items = iter(open_items(here))

    def work() -> None:
        try:
            for item in items:
                put("item", item)
                if stopped.is_set():
                    break
            put("end", None)
        except BaseException as error:  # it is raised where the items are consumed
            put("error", error)
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    return _consumed(queue, stopped, threading.Thread(target=work, name="knet read ahead", daemon=True))


def _consumed(
    queue: Queue[tuple[str, Any]], stopped: threading.Event, thread: threading.Thread
) -> Generator[Any, None, None]:
    thread.start()
    try:
        while True:
            kind, content = queue.get()
            if kind == "end":
                return
            if kind == "error":
                raise content
            if kind == "call":
                content()
            else:
                yield content
            del content  # a frame is not kept while the next one is waited for
    finally:
        stopped.set()
        while thread.is_alive():  # it may wait for room in the queue
            with suppress(Empty):
                queue.get_nowait()
            thread.join(0.01)


def side_by_side(function: Callable[[T], R], items: Iterable[T], workers: int) -> Generator[R, None, None]:
    """What a function gives for each item, in their order, while up to `workers` items are computed at the same time.

    The threads of torch are shared out among the workers. A thread of a large team that waits for another one, which a
    decoder or an encoder has put off its core, wastes its own; small teams wait less, and results differ as they do
    between numbers of threads, by the last bits. An error is raised after the results before it; what was not begun by
    then, or when the consumer stops early, is dropped.

    Args:
        workers: with 1, or where torch has a single thread, everything happens in the consumer's thread.
    """
    threads = torch.get_num_threads()
    workers = min(workers, threads)
    if workers <= 1:
        yield from map(function, items)
        return
    each = threads // workers
    waiting = deque[Future[R]]()
    pool = ThreadPoolExecutor(workers, "knet worker", initializer=torch.set_num_threads, initargs=(each,))
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > workers:  # one waits for the worker that is done first
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # the workers' number is that of new threads, too


class WriteBehind:
    """Calls a function in a thread of its own, in the order of the calls, with up to `most` of them waiting. A context
    manager, whose end waits for all of them.

    The error of a call is raised by the next one, or at the end; calls that were still waiting are dropped then.
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
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
