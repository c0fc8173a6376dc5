"""Tasks that stand for what happens to workers: they are sent to other processes, which import this module."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sotglp import SotglpError, SotglpWarning
from sotglp.engines import EngineConfig
from sotglp.engines.tasks import SetUp
from support.processes import Started, started


@dataclass(frozen=True)
class Squares:
    """Squares numbers; each worker leaves a file with its id in a folder when it is set up."""

    folder: Path

    def __call__(self) -> Callable[[int], int]:
        (self.folder / f"{os.getpid()}").touch()
        return self._run

    def _run(self, task: int) -> int:
        return task**2


@dataclass(frozen=True)
class Mishaps(Squares):
    """Squares numbers, but a task of these dies once, dies always, fails or warns."""

    dies_once: int | None = None
    dies: int | None = None
    fails: int | None = None
    warns: int | None = None

    def _run(self, task: int) -> int:
        marker = self.folder / "died"
        if task == self.dies or (task == self.dies_once and not marker.exists()):
            marker.touch()
            time.sleep(0.2)  # other workers have begun theirs
            os.kill(os.getpid(), signal.SIGKILL)
        if task == self.fails:
            raise SotglpError(f"task {task} can't be done")
        if task == self.warns:
            warnings.warn("squares grow", SotglpWarning, stacklevel=2)
        return super()._run(task)


@dataclass(frozen=True)
class Threads(Squares):
    """Returns the number of threads that a worker may use."""

    def _run(self, task: int) -> int:
        return int(os.environ["OMP_NUM_THREADS"])


@dataclass(frozen=True)
class Endless(Squares):
    """Never ends."""

    def _run(self, task: int) -> int:
        while True:
            time.sleep(1)


@dataclass(frozen=True)
class DiesOnce:
    """Other tasks, of which the first kills its worker."""

    set_up: SetUp
    marker: Path

    def __call__(self) -> Callable[[Any], Any]:
        return partial(self._run, self.set_up())

    def _run(self, function: Callable[[Any], Any], task: Any) -> Any:
        if not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return function(task)


_ENDLESS = """
import sys
from pathlib import Path
from sotglp.engines import EngineConfig, run_tasks
from support.engine_tasks import Endless
with run_tasks(Endless(Path(sys.argv[1])), range(9), EngineConfig(sys.argv[2], int(sys.argv[3]))) as results:
    list(results)
"""


@contextmanager
def endless_run(engine: EngineConfig, folder: Path) -> Iterator[Started]:
    """Start a process whose workers never end by themselves, and leave files in a folder once they have begun."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        with started("-c", _ENDLESS, folder, engine.name, engine.n_workers, mark=folder) as own:
            yield own
