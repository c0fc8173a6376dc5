"""Dynamic batching: single images of many requests form batches for the one thread that runs the model."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

ModelT = TypeVar("ModelT")
ItemT = TypeVar("ItemT")
AnswerT = TypeVar("AnswerT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class _Job(Generic[ModelT, ItemT, AnswerT]):
    model: ModelT
    item: ItemT
    answer: asyncio.Future[AnswerT]


class Batcher(Generic[ModelT, ItemT, AnswerT]):
    """Dynamic batches of single items, which one thread computes; ``n_batches`` counts them.

    Items that arrive while a batch runs form the next one, so that no item waits for a batch to fill.

    Parameters
    ----------
    answer : callable
        Function of a model and a batch of items that returns one answer per item; it runs in the thread.
    batch_size : int
        Maximum number of items per batch.
    """

    def __init__(self, answer: Callable[[ModelT, list[ItemT]], Sequence[AnswerT]], batch_size: int) -> None:
        self._answer = answer
        self._batch_size = batch_size
        self._waiting: deque[_Job[ModelT, ItemT, AnswerT]] = deque()
        # One thread: torch starts a pool of threads for each thread that computes.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sotglp-model")
        self._worker: asyncio.Task[None] | None = None
        self.n_batches = 0

    async def ask(self, model: ModelT, item: ItemT) -> AnswerT:
        """Return the answer for one item; only items for the same model share a batch."""
        answer: asyncio.Future[AnswerT] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Job(model, item, answer))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await answer

    async def run(self, function: Callable[[], ResultT]) -> ResultT:
        """Run another function in the same thread, between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def close(self) -> None:
        """Start no further batch; the current one ends."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        try:
            while batch := self._next_batch():
                await self._run(batch)
        finally:
            self._worker = None

    async def _run(self, batch: list[_Job[ModelT, ItemT, AnswerT]]) -> None:
        model, items = batch[0].model, [job.item for job in batch]
        try:
            answers = await self.run(lambda: self._answer(model, items))
        except Exception as error:  # any error goes to the requests of this batch, and the worker continues
            for job in batch:
                if not job.answer.done():
                    job.answer.set_exception(error)
            return
        self.n_batches += 1
        for job, answer in zip(batch, answers, strict=True):
            if not job.answer.done():
                job.answer.set_result(answer)

    def _next_batch(self) -> list[_Job[ModelT, ItemT, AnswerT]]:
        """Return the oldest items for one model, without those whose request was cancelled."""
        batch: list[_Job[ModelT, ItemT, AnswerT]] = []
        while self._waiting and len(batch) < self._batch_size:
            if batch and self._waiting[0].model is not batch[0].model:
                break
            job = self._waiting.popleft()
            if not job.answer.done():
                batch.append(job)
        return batch
