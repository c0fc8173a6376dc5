"""Worker processes of this machine, which loky starts and watches."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from typing import Any

from joblib.externals.loky import BrokenProcessPool, ProcessPoolExecutor, cpu_count

from sotglp.console.parent import exit_with_parent
from sotglp.engines.tasks import Item, Outcome, Queue, SetUp, Worker

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

_worker: Worker | None = None
"""The worker that this process is, if it is one."""


def run_locally(set_up: SetUp, queue: Queue, n_workers: int) -> Iterator[tuple[int, Outcome]]:
    """Yield the index and the outcome of each task as it finishes.

    One worker is this process itself. loky ends all workers if one dies. The tasks that were running then run again
    one at a time, so that the task that kills its worker is identified.
    """
    if n_workers <= 1:
        function = set_up() if queue else None
        while function and queue:
            item = queue.pop()
            yield item.index, Outcome(function(item.task), ())
        return
    while queue:
        running: dict[Future[Outcome], Item] = {}
        try:
            with _pool(set_up, n_workers) as pool:
                while queue or running:
                    # One more than there are workers, so that none waits for this process.
                    most = 1 if queue.has_suspect else n_workers + 1
                    with _interrupts_ignored():
                        while queue and len(running) < most:
                            item = queue.pop()
                            running[pool.submit(_run, item.task)] = item
                    done = wait(running, return_when=FIRST_COMPLETED).done
                    for future in sorted(done, key=lambda future: isinstance(future.exception(), BrokenProcessPool)):
                        outcome = future.result()
                        yield running.pop(future).index, outcome
        except BrokenProcessPool:
            queue.died(list(running.values()))


@contextmanager
def _pool(set_up: SetUp, n_workers: int) -> Iterator[ProcessPoolExecutor]:
    threads = str(max(cpu_count() // n_workers, 1))
    env = {name: os.environ.get(name, threads) for name in _THREADS}
    pool = ProcessPoolExecutor(n_workers, initializer=_begin, initargs=(set_up, os.getpid()), env=env)
    try:
        yield pool
    except BaseException:
        pool.shutdown(kill_workers=True)
        raise
    pool.shutdown()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C, as processes that are started meanwhile do from their first import on.

    The process that starts them handles it, and ends them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _begin(set_up: SetUp, parent: int) -> None:
    """Make a new process a worker."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exit_with_parent(parent)
    _worker = Worker(set_up)


def _run(task: Any) -> Outcome:
    assert _worker is not None
    return _worker.run(task)
