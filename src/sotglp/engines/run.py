"""Run tasks with the engine that the user chose."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from sotglp.engines.tasks import Outcome, Queue
from sotglp.errors import SotglpError, UnknownNameError

Task = TypeVar("Task")
Result = TypeVar("Result")

EngineName = Literal["local", "ray"]
"""Processes of this machine, or of a Ray cluster."""


@dataclass(frozen=True)
class EngineConfig:
    """Where tasks run.

    Parameters
    ----------
    name : {"local", "ray"}
        Processes of this machine, or of a Ray cluster.
    n_workers : int, optional
        Number of processes. By default one, or on a cluster one for each GPU, or each node if there are none. One
        local worker is the calling process itself.
    ray_address : str, optional
        Address of a cluster, such as "10.0.0.1:6379". By default that of the variable RAY_ADDRESS, or else a cluster of
        this machine that ends with the run.
    use_gpus : bool
        Whether each worker of a cluster with GPUs gets one.
    """

    name: str = "local"
    n_workers: int | None = None
    ray_address: str | None = None
    use_gpus: bool = False

    def __post_init__(self) -> None:
        if self.name not in get_args(EngineName):
            raise UnknownNameError("engine", self.name, get_args(EngineName))
        if self.ray_address is not None and self.name != "ray":
            raise SotglpError("--ray-address is for a Ray cluster: give --engine ray too")

    @property
    def is_this_process(self) -> bool:
        """Whether tasks run in the calling process."""
        return self.name == "local" and self.n_workers in (None, 1)


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
    # Closed at once, not with the last reference to the generator: an error's traceback may hold it.
    results: Generator[tuple[int, Result]] = _results(_outcomes(set_up, tasks, engine))
    with closing(results):
        yield results


def _outcomes(
    set_up: Callable[[], Callable[[Task], Result]], tasks: Sequence[Task], engine: EngineConfig
) -> Generator[tuple[int, Outcome]]:
    if engine.name == "ray":
        from sotglp.engines.on_ray import run_on_ray

        yield from run_on_ray(set_up, Queue(tasks), engine.n_workers, engine.ray_address, use_gpus=engine.use_gpus)
    else:
        from sotglp.engines.local import run_locally

        yield from run_locally(set_up, Queue(tasks), min(engine.n_workers or 1, len(tasks)))


def _results(outcomes: Generator[tuple[int, Outcome]]) -> Generator[tuple[int, Any]]:
    """Yield indices and results, and repeat the warnings of workers, each once."""
    seen: set[str] = set()
    with closing(outcomes):
        for index, outcome in outcomes:
            for warning in outcome.warnings:
                if str(warning) not in seen:
                    seen.add(str(warning))
                    warnings.warn(warning, stacklevel=2)
            yield index, outcome.result
