"""Working ahead: what comes next is read or computed in threads while the caller is busy with what came before."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    ahead: int = 4,
    *,
    workers: int | None = None,
    initializer: Callable[[], object] | None = None,
) -> Generator[Result, None, None]:
    """Like `map(function, items)`, but the next few results are computed in threads before they are asked for.

    Args:
        function: called in a thread of its own pool; with one worker the calls follow one another.
        items: iterated in the caller's thread, never more than `ahead` items beyond the result in hand.
        ahead: how many results may wait or be in the making, 1 or more.
        workers: number of threads; None takes one for each result that may wait.
        initializer: called once in each thread before its first item.

    Yields:
        The results in the order of their items. An exception of `function` is raised in place of its result; items that
        were not begun by then, or when the caller stops early, are dropped.
    """
    waiting = deque[Future[Result]]()
    pool = ThreadPoolExecutor(workers or ahead, "knet ahead", initializer)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
