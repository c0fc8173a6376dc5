"""Threads of this process that work ahead of the code that uses their results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from typing import TypeVar

import torch

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


def map_on_cores(
    function: Callable[[Item], Result], items: Iterable[Item], device: torch.device, *, n_items: int | None = None
) -> Generator[Result]:
    """Yield the result of each item in order, computed with torch on a GPU or the cores of a CPU.

    Where there are at least as many items as cores, each core computes an item alone; else all compute each item
    together. The former takes less time, since cores don't wait for each other in every layer. Meanwhile, the code that
    uses the results computes on one core too. Gradients and mixed precision are settings of a thread, which
    ``function`` makes itself. ``n_items`` None stands for many.
    """
    n_threads = torch.get_num_threads() if device.type == "cpu" else 1
    if n_threads == 1 or (n_items is not None and n_items < n_threads):
        yield from map(function, items)
        return
    results = map_ahead(function, items, n_threads=n_threads, n_ahead=n_threads + 1)
    with products_on_one_thread(), closing(results):
        yield from results


@contextmanager
def products_on_one_thread() -> Iterator[None]:
    """Let this thread, and those that it starts, compute each of torch's products of matrices on one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
