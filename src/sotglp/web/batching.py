"""Single images of many requests, gathered into batches for the one thread that runs the model."""

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
    """Takes items one by one and hands them to a function in batches, in a thread of its own.

    What arrives while a batch is under way makes up the next one, so that nobody waits for a batch to fill.

    Parameters
    ----------
    answer : callable
        Takes a model and a batch of items, and returns an answer for each; it runs in the thread.
    batch_size : int
        Items of a batch at most.

    Attributes
    ----------
    n_batches : int
        Batches so far.
    """

    def __init__(self, answer: Callable[[ModelT, list[ItemT]], Sequence[AnswerT]], batch_size: int) -> None:
        self._answer = answer
        self._batch_size = batch_size
        self._waiting: deque[_Job[ModelT, ItemT, AnswerT]] = deque()
        # One thread: torch keeps a team of further threads for each one that computes.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sotglp-model")
        self._worker: asyncio.Task[None] | None = None
        self.n_batches = 0

    async def ask(self, model: ModelT, item: ItemT) -> AnswerT:
        """What the model answers to one item; only items for the same model share a batch."""
        answer: asyncio.Future[AnswerT] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Job(model, item, answer))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await answer

    async def run(self, function: Callable[[], ResultT]) -> ResultT:
        """Run something else in the model's thread, between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def close(self) -> None:
        """Start nothing more; the batch under way ends."""
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
        except Exception as error:  # whatever it is, it belongs to those who wait, and the worker goes on
            for job in batch:
                if not job.answer.done():
                    job.answer.set_exception(error)
            return
        self.n_batches += 1
        for job, answer in zip(batch, answers, strict=True):
            if not job.answer.done():
                job.answer.set_result(answer)

    def _next_batch(self) -> list[_Job[ModelT, ItemT, AnswerT]]:
        """Those that wait longest, as far as they are for the same model and anybody still waits for the answer."""
        batch: list[_Job[ModelT, ItemT, AnswerT]] = []
        while self._waiting and len(batch) < self._batch_size:
            if batch and self._waiting[0].model is not batch[0].model:
                break
            job = self._waiting.popleft()
            if not job.answer.done():
                batch.append(job)
        return batch
