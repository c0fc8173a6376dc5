from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from joblib.externals.loky import cpu_count

from sotglp import SotglpError
from sotglp.engines import EngineConfig, run_tasks
from sotglp.engines.local import _interrupts_ignored
from sotglp.engines.tasks import SetUp
from support.engine_tasks import Mishaps, Squares, Threads
from support.processes import needs_proc, started, wait_for

SQUARES = {index: task**2 for index, task in enumerate(range(5, 15))}

TWO = EngineConfig(n_workers=2)


def run(set_up: SetUp, engine: EngineConfig = TWO) -> dict[int, int]:
    with run_tasks(set_up, range(5, 15), engine) as results:
        return dict(results)


@pytest.mark.parametrize("n_workers", [1, 2])
def test_each_worker_is_set_up_once(n_workers: int, tmp_path: Path) -> None:
    assert run(Squares(tmp_path), EngineConfig(n_workers)) == SQUARES
    workers = {int(path.name) for path in tmp_path.iterdir()}
    assert workers == {os.getpid()} if n_workers == 1 else 1 <= len(workers - {os.getpid()}) <= 2


def test_without_tasks_nothing_is_set_up(tmp_path: Path) -> None:
    for engine in (EngineConfig(), TWO):
        with run_tasks(Squares(tmp_path), [], engine) as results:
            assert list(results) == []
    assert list(tmp_path.iterdir()) == []


def test_tasks_of_a_killed_worker_run_again(tmp_path: Path) -> None:
    assert run(Mishaps(tmp_path, dies_once=8)) == SQUARES
    assert (tmp_path / "died").exists()


def test_a_task_that_kills_every_worker_is_named(tmp_path: Path) -> None:
    found = []
    with run_tasks(Mishaps(tmp_path, dies=8), range(5, 9), TWO) as results, pytest.raises(SotglpError, match="on 8,"):
        found.extend(results)
    assert sorted(found) == [(0, 25), (1, 36), (2, 49)]


@pytest.mark.parametrize("engine", [EngineConfig(), TWO])
def test_errors_and_warnings_of_tasks_arrive(engine: EngineConfig, tmp_path: Path) -> None:
    with pytest.raises(SotglpError, match=r"^task 9 can't be done$"):
        run(Mishaps(tmp_path, fails=9), engine)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert run(Mishaps(tmp_path, warns=9), engine) == SQUARES
    assert [str(one.message) for one in caught] == ["squares grow"]


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


ENDLESS = """
import sys
from pathlib import Path
from sotglp.engines import EngineConfig, run_tasks
from support.engine_tasks import Endless
with run_tasks(Endless(Path(sys.argv[1])), range(9), EngineConfig(n_workers=2)) as results:
    list(results)
"""


@needs_proc
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_process_that_started_them(
    stop: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    with started("-c", ENDLESS, tmp_path, mark=tmp_path) as own:
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2, own.process)
        os.kill(own.process.pid, stop)
        assert own.all_end()
