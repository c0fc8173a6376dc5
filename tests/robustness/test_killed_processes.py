"""Processes that are killed or told to stop: one line, and the same command continues."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import get_worker_info

from sotglp.benchmark.results import read
from sotglp.images import views
from support.faults import FIT, LONG, N_CELLS, Fails, fill_disk, inside, names, start
from support.processes import needs_proc, wait_for


def test_a_fit_killed_between_its_model_and_the_end_of_its_checkpoint(
    data: Path, whole: Path, tmp_path: Path, refused: Fails
) -> None:
    out = tmp_path / "m"
    command = ["fit", data / "train", "--out", out, *FIT, "--no-cache"]
    with pytest.MonkeyPatch.context() as patch:
        fill_disk(patch, r"\.m\.[0-9a-f]{8}\.part")
        refused(*command)
    shutil.copy(whole, out)
    assert names(tmp_path) == ["m", "m.checkpoint"]
    assert "exists: give another name, or --force" in refused(*command, "--resume")
    inside(*command, "--resume", "--force")
    assert out.read_bytes() == whole.read_bytes()
    assert names(tmp_path) == ["m"]


@pytest.mark.thorough
@pytest.mark.slow
def test_fits_that_are_killed_at_random_moments_end_in_the_same_file(data: Path, tmp_path: Path) -> None:
    told, page = tmp_path / "kills.json", tmp_path / "kills.md"
    script = Path(__file__).parents[2] / "benchmarks" / "kills.py"
    options = ["--runs", "2", "--seed", "1", "--data", data / "train", "--json", told, "--out", page]
    done = subprocess.run([sys.executable, script, *options], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = json.loads(told.read_text())
    assert [run["equal"] for run in runs] == [True, True]
    assert sum(len(run["kills"]) for run in runs) >= 2
    assert "| in the cache | 1 |" in page.read_text()


def test_an_image_loader_that_dies_is_told(data: Path, whole_long: Path, tmp_path: Path, refused: Fails) -> None:
    command = ["fit", data / "train", "--out", tmp_path / "m", *FIT, "--no-cache", "--set", "workers=1"]
    load = views.open_image

    def die(source: Any, *ranges: Any) -> Any:
        if get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return load(source, *ranges)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "open_image", die)
        assert "a process that loads images died" in refused(*command)
    assert names(tmp_path) == []
    inside(*command, "--resume")
    assert names(tmp_path) == ["m"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_fit_that_is_told_to_stop_can_go_on(
    stop: signal.Signals, data: Path, whole_long: Path, tmp_path: Path, running: subprocess.Popen[str]
) -> None:
    running.send_signal(stop)
    _, error = running.communicate(timeout=60)
    assert running.returncode == 128 + stop
    assert error == "sotglp: interrupted; repeat the command with --resume to continue\n"
    assert names(tmp_path) == ["m.checkpoint"]
    inside("fit", data / "train", "--out", tmp_path / "m", *LONG, "--no-cache", "--resume")
    assert (tmp_path / "m").read_bytes() == whole_long.read_bytes()


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_two_processes_of_a_fit_that_are_told_to_stop_can_go_on(
    stop: signal.Signals, data: Path, tmp_path: Path
) -> None:
    command = ["fit", data / "train", "--out", tmp_path / "m", *LONG, "--no-cache"]
    process = start(*command, "--num-processes", 2)
    wait_for((tmp_path / "m.checkpoint").exists, process)
    process.send_signal(stop)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 128 + stop
    assert error == "sotglp: interrupted; repeat the command with --resume to continue\n"
    assert names(tmp_path) == ["m.checkpoint"]


def children(process: subprocess.Popen[str], words: str) -> list[int]:
    """Processes that a process has started, with some words in their command lines."""
    found = []
    for about in Path("/proc").glob("[0-9]*"):
        try:
            parent = about.joinpath("stat").read_text().rpartition(")")[2].split()[1]
            command = about.joinpath("cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if parent == str(process.pid) and words in command:
            found.append(int(about.name))
    return sorted(found)


@needs_proc
@pytest.mark.slow
def test_a_killed_process_of_a_benchmark_is_told_and_its_cells_run_again(suite: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    command = ["benchmark", suite, "--root", suite.parent, "--out", tmp_path, "--no-cache"]
    process = start(*command, "--processes", 2)
    wait_for(results.exists, process)
    os.kill(children(process, "popen_loky")[0], signal.SIGKILL)
    error = process.communicate(timeout=240)[1]
    assert process.returncode == 0
    assert "a worker process was killed" in error
    keys = [result.key for result in read(results)]
    assert len(keys) == len(set(keys)) == N_CELLS


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_one_of_two_processes_of_a_fit_that_is_killed_is_told(data: Path, tmp_path: Path, which: int) -> None:
    command = ["fit", data / "train", "--out", tmp_path / "m", *LONG, "--no-cache"]
    process = start(*command, "--num-processes", 2)
    wait_for((tmp_path / "m.checkpoint").exists, process)
    os.kill(children(process, "-m sotglp fit")[which], signal.SIGKILL)
    error = process.communicate(timeout=120)[1]
    # torch writes lines such as "[W1127 ...]" when it notices a lost connection first.
    assert [line for line in error.splitlines() if not line.startswith(("sotglp: error: ", "["))] == []
    assert "probably because memory ran out" in error
    assert "--resume" in error
    assert process.returncode == 2
    assert names(tmp_path) == ["m.checkpoint"]
    inside(*command, "--resume")
    assert names(tmp_path) == ["m"]
