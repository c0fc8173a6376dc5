from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from joblib.externals.loky import cpu_count

from sotglp.engines import EngineConfig, run_tasks
from sotglp.engines.local import _interrupts_ignored
from sotglp.engines.tasks import SetUp
from support.engine_tasks import Squares, Threads, endless_run
from support.processes import needs_proc, wait_for

TWO = EngineConfig(n_workers=2)


def run(set_up: SetUp, engine: EngineConfig = TWO) -> dict[int, int]:
    with run_tasks(set_up, range(5, 15), engine) as results:
        return dict(results)


@pytest.mark.parametrize("n_workers", [1, 2])
def test_each_worker_is_set_up_once(n_workers: int, tmp_path: Path) -> None:
    assert run(Squares(tmp_path), EngineConfig(n_workers=n_workers)) == {
        index: task**2 for index, task in enumerate(range(5, 15))
    }
    workers = {int(path.name) for path in tmp_path.iterdir()}
    assert workers == {os.getpid()} if n_workers == 1 else 1 <= len(workers - {os.getpid()}) <= 2


def test_workers_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert set(run(Threads(tmp_path)).values()) == {max(cpu_count() // 2, 1)}
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert set(run(Threads(tmp_path)).values()) == {7}


def test_workers_ignore_ctrl_c_from_the_start() -> None:
    before = signal.getsignal(signal.SIGINT)
    with _interrupts_ignored():
        code = "import signal, sys; sys.exit(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 1
    assert signal.getsignal(signal.SIGINT) is before


@needs_proc
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_process_that_started_them(stop: signal.Signals, tmp_path: Path) -> None:
    with endless_run(TWO, tmp_path) as own:
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2, own.process)
        os.kill(own.process.pid, stop)
        assert own.all_end()
