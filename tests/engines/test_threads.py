from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from sotglp.engines.threads import map_ahead


def test_results_come_in_order_whichever_thread_is_first() -> None:
    def late_if_even(item: int) -> int:
        time.sleep(0.01 * (item % 2 == 0))
        return 10 * item

    assert list(map_ahead(late_if_even, range(9), n_threads=3, n_ahead=4)) == [10 * i for i in range(9)]
    assert list(map_ahead(late_if_even, [], n_threads=3, n_ahead=4)) == []


def test_no_more_items_are_read_than_may_wait() -> None:
    read = []

    def items() -> Iterator[int]:
        for item in range(10):
            read.append(item)
            yield item

    results = map_ahead(str, items(), n_threads=2, n_ahead=3)
    assert next(results) == "0"
    assert read == [0, 1, 2, 3]


def test_the_first_error_in_order_is_raised_and_the_threads_end() -> None:
    seen = set()

    def fails(item: int) -> int:
        seen.add(threading.current_thread())
        if item in (2, 3):
            raise ValueError(item)
        return item

    results = map_ahead(fails, range(9), n_threads=2, n_ahead=4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="2"):
        next(results)
    assert not any(thread.is_alive() for thread in seen)
