from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from sotglp.engines.threads import map_ahead, map_on_cores

CPU = torch.device("cpu")


@pytest.fixture
def two_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


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


def threads_of(item: int) -> tuple[int, int, int]:
    return item, threading.get_ident(), torch.get_num_threads()


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize("n_items", [2, None])
def test_each_core_computes_an_item_alone_where_there_are_many(n_items: int | None) -> None:
    found = list(map_on_cores(threads_of, range(9), CPU, n_items=n_items))
    assert [item for item, _, _ in found] == list(range(9))
    assert threading.get_ident() not in {thread for _, thread, _ in found}
    assert {n_threads for _, _, n_threads in found} == {1}
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_cores")
def test_all_cores_compute_one_item_together_and_a_gpu_needs_none() -> None:
    here = threading.get_ident()
    assert list(map_on_cores(threads_of, [5], CPU, n_items=1)) == [(5, here, 2)]
    assert list(map_on_cores(threads_of, [5, 6], torch.device("cuda"))) == [(5, here, 2), (6, here, 2)]


@pytest.mark.usefixtures("two_cores")
def test_all_cores_are_back_after_an_iteration_that_ended_early() -> None:
    results = map_on_cores(threads_of, range(9), CPU)
    next(results)
    assert torch.get_num_threads() == 1
    results.close()
    assert torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError):
        list(map_on_cores(lambda item: 1 // item, range(9), CPU))
    assert torch.get_num_threads() == 2
