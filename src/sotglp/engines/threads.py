"""Threads of this process that work ahead of the code that uses their results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, n_threads: int, n_ahead: int
) -> Generator[Result]:
    """Yield the result of each item in order, while threads work on the next ones.

    Parameters
    ----------
    function : callable
        Called with one item, in ``n_threads`` threads at once.
    items : iterable
        Read by the calling thread, when there is room for one more.
    n_threads : int
        Number of threads.
    n_ahead : int
        Items that wait, are worked on or are finished at most, beside the one whose result was yielded last; bounds
        the memory.

    Raises
    ------
    Exception
        That of the first item in order for which ``function`` raises one. Threads end with the iteration, also if it
        is closed before its end.
    """
    waiting = iter(items)
    with ThreadPoolExecutor(n_threads) as threads:
        pending: deque[Future[Result]] = deque()
        try:
            pending.extend(threads.submit(function, item) for item in islice(waiting, n_ahead))
            while pending:
                found = pending.popleft().result()
                pending.extend(threads.submit(function, item) for item in islice(waiting, 1))
                yield found
        finally:
            for unused in pending:
                unused.cancel()
