from __future__ import annotations

import asyncio
import threading

import pytest

from sotglp.web.batching import Batcher


class Held:
    """Answers with the model's name and the item, once it is released."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, model: str, items: list[int]) -> list[str]:
        self.batches.append((model, items))
        self.begun.set()
        assert self.go.wait(10)
        if -1 in items:
            raise RuntimeError("no such item")
        return [f"{model}{item}" for item in items]


async def begin(batcher: Batcher[str, int, str], held: Held) -> asyncio.Task[str]:
    """Start a first batch."""
    first = asyncio.create_task(batcher.ask("a", 0))
    await asyncio.to_thread(held.begun.wait, 10)
    return first


def test_what_arrives_while_a_batch_runs_is_the_next_one() -> None:
    async def run() -> None:
        held = Held()
        batcher = Batcher(held, 4)
        first = await begin(batcher, held)
        others = [asyncio.create_task(batcher.ask("a", item)) for item in range(1, 8)]
        await asyncio.sleep(0)
        held.go.set()
        assert await asyncio.gather(first, *others) == [f"a{item}" for item in range(8)]
        assert held.batches == [("a", [0]), ("a", [1, 2, 3, 4]), ("a", [5, 6, 7])]
        assert batcher.n_batches == 3
        batcher.close()

    asyncio.run(run())


def test_a_batch_is_for_one_model() -> None:
    async def run() -> None:
        held = Held()
        batcher = Batcher(held, 4)
        first = await begin(batcher, held)
        others = [asyncio.create_task(batcher.ask(model, item)) for item, model in enumerate("abba", 1)]
        await asyncio.sleep(0)
        held.go.set()
        assert await asyncio.gather(first, *others) == ["a0", "a1", "b2", "b3", "a4"]
        assert held.batches[1:] == [("a", [1]), ("b", [2, 3]), ("a", [4])]
        batcher.close()

    asyncio.run(run())


def test_cancelled_items_are_skipped() -> None:
    async def run() -> None:
        held = Held()
        batcher = Batcher(held, 4)
        first = await begin(batcher, held)
        gone, there = (asyncio.create_task(batcher.ask("a", item)) for item in (1, 2))
        await asyncio.sleep(0)
        gone.cancel()
        first.cancel()
        await asyncio.sleep(0)
        held.go.set()
        assert await there == "a2"
        assert held.batches[1:] == [("a", [2])]
        batcher.close()

    asyncio.run(run())


def test_an_error_reaches_its_batch_and_the_next_one_is_answered() -> None:
    async def run() -> None:
        held = Held()
        batcher = Batcher(held, 2)
        held.go.set()
        bad = await asyncio.gather(batcher.ask("a", -1), batcher.ask("a", 1), return_exceptions=True)
        assert [str(error) for error in bad] == ["no such item"] * 2
        assert await batcher.ask("a", 5) == "a5"
        batcher.close()

    asyncio.run(run())


def test_other_functions_run_in_the_same_thread() -> None:
    async def run() -> None:
        names: list[str] = []

        def answer(model: str, items: list[int]) -> list[int]:
            names.append(threading.current_thread().name)
            return items

        batcher = Batcher(answer, 2)
        await batcher.ask("a", 1)
        assert await batcher.run(lambda: threading.current_thread().name) == names[0]
        with pytest.raises(ZeroDivisionError):
            await batcher.run(lambda: 1 // 0)
        batcher.close()

    asyncio.run(run())
