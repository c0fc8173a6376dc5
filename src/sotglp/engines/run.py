"""Run tasks with the engine that the user chose."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from sotglp.engines.local import run_locally
from sotglp.engines.tasks import Warned

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class EngineConfig:
    """Where tasks run, and in how many worker processes."""

    n_workers: int = 1


@contextmanager
def run_tasks(
    set_up: Callable[[], Callable[[Task], Result]], tasks: Sequence[Task], engine: EngineConfig
) -> Iterator[Iterator[tuple[int, Result]]]:
    """Run independent tasks in worker processes, which end with the context.

    Parameters
    ----------
    set_up : callable
        Called once in each worker, such as to load a model; returns the function that is called with every task.
        Like tasks and results, it is sent between processes, so it has to be picklable.
    tasks : sequence
        Their ``str`` names them in messages. A task may run more than once, if its worker was killed.
    engine : EngineConfig
        Where they run.

    Yields
    ------
    iterator of (int, Result)
        The index and the result of each task, as tasks finish. An error of a task ends the run; a task of which
        workers die repeatedly raises ``SotglpError``.
    """

    def results() -> Generator[tuple[int, Result]]:
        warned = Warned()
        for index, outcome in run_locally(set_up, tasks, min(engine.n_workers, len(tasks))):
            yield index, warned.result(outcome)

    # Closed at once, not with the last reference to the generator: an error's traceback may hold it.
    with closing(results()) as running:
        yield running
