"""The tasks of a run: what a worker does with one, and which are still to run."""

from __future__ import annotations

import logging
import warnings
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sotglp.errors import SotglpError, SotglpWarning, some_names

SetUp: TypeAlias = Callable[[], Callable[[Any], Any]]
"""Called once in each worker, such as to load a model; returns the function that is called with every task."""

MAX_DEATHS = 3
"""Workers that may die of the same task."""


@dataclass(frozen=True)
class Outcome:
    """The result of a task, and the warnings that it gave, which the process that the user started repeats."""

    result: Any
    warnings: tuple[SotglpWarning, ...]


class Worker:
    """The state of one worker process."""

    def __init__(self, set_up: SetUp) -> None:
        logging.basicConfig(level=logging.ERROR)  # other libraries' notes, as in the first process
        self._set_up = set_up
        self._function: Callable[[Any], Any] | None = None

    def run(self, task: Any) -> Outcome:
        """Run one task, and set up before the first."""
        with warnings.catch_warnings(record=True) as caught:
            # Warnings of other libraries are for developers, who use --debug and one process.
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", SotglpWarning)
            if self._function is None:
                self._function = self._set_up()
            result = self._function(task)
        return Outcome(result, tuple(one.message for one in caught if isinstance(one.message, SotglpWarning)))


@dataclass(frozen=True)
class Item:
    """A task with its index among all, and whether a worker has died of it."""

    index: int
    task: Any
    is_suspect: bool = False


class Queue:
    """Tasks that are still to run, in order; those whose worker died come first."""

    def __init__(self, tasks: Sequence[Any]) -> None:
        self._items = deque(Item(index, task) for index, task in enumerate(tasks))
        self._deaths: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def has_suspect(self) -> bool:
        """Whether the next task is one that a worker may have died of."""
        return bool(self._items) and self._items[0].is_suspect

    def pop(self) -> Item:
        """Return the next task."""
        return self._items.popleft()

    def died(self, items: Sequence[Item]) -> None:
        """Put tasks back whose worker died, or raise an error that names one of which workers die every time."""
        if not items:
            return
        for item in sorted(items, key=lambda item: -item.index):
            self._deaths[item.index] += 1
            if self._deaths[item.index] == MAX_DEATHS:
                raise SotglpError(
                    f"{MAX_DEATHS} worker processes were killed while they worked on {item.task}, probably "
                    "for lack of memory: repeat the command with fewer processes or smaller batches"
                )
            self._items.appendleft(Item(item.index, item.task, is_suspect=True))
        warnings.warn(
            f"a worker process was killed, probably for lack of memory; runs again: "
            f"{some_names([str(item.task) for item in items])}",
            SotglpWarning,
            stacklevel=2,
        )
