"""Two runs with one output, state or cache at once."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from support.command import error_line
from support.faults import FIT, LONG, N_CELLS, Fails, inside, names, start


def test_a_second_run_does_not_write_over_the_first_ones_state(
    data: Path, whole_long: Path, tmp_path: Path, running: subprocess.Popen[str], refused: Fails
) -> None:
    running.send_signal(signal.SIGSTOP)
    before = (tmp_path / "m.checkpoint").read_bytes()
    command = ["fit", data / "train", "--out", tmp_path / "m", "--no-cache"]
    assert "holds an interrupted run" in refused(*command, *LONG)
    assert "is in use by another run" in refused(*command, *LONG, "--resume")
    assert "is in use by another run" in refused(*command, *LONG, "--force", "--seed", 2)
    assert (tmp_path / "m.checkpoint").read_bytes() == before
    running.send_signal(signal.SIGCONT)
    assert running.wait(timeout=120) == 0
    assert (tmp_path / "m").read_bytes() == whole_long.read_bytes()
    assert names(tmp_path) == ["m"]


@pytest.mark.slow
def test_two_benchmarks_with_one_output(suite: Path, tmp_path: Path) -> None:
    command = ["benchmark", suite, "--root", suite.parent, "--out", tmp_path, "--cache-dir", tmp_path / "cache"]
    both = [start(*command) for _ in range(2)]
    assert [process.communicate(timeout=200)[1] for process in both] == ["", ""]
    told = json.loads(inside(*command, "--json", "-"))
    assert (told["n_before"], len(told["results"])) == (N_CELLS, N_CELLS)
    by_key: dict[str, set[float]] = {}
    for line in (tmp_path / "results.jsonl").read_text().splitlines():
        result = json.loads(line)
        by_key.setdefault(result["key"], set()).add(result["metrics"]["accuracy"])
    assert [len(accuracies) for accuracies in by_key.values()] == [1] * N_CELLS


@pytest.mark.slow
def test_two_fits_with_one_cache_and_with_one_output(data: Path, whole: Path, tmp_path: Path) -> None:
    command = ["fit", data / "train", *FIT, "--cache-dir", tmp_path / "cache"]
    both = [start(*command, "--out", tmp_path / name) for name in ("a", "b")]
    assert [process.communicate(timeout=120)[1] for process in both] == ["", ""]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == whole.read_bytes()

    out = tmp_path / "out" / "m"
    other = ["--seed", "2"]
    inside(*command, "--out", tmp_path / "c", *other)
    both = [start(*command, "--out", out), start(*command, "--out", out, *other)]
    ends = [(process.communicate(timeout=120)[1], process.returncode) for process in both]
    winners = [number for number, (_, code) in enumerate(ends) if code == 0]
    assert winners
    for error, code in ends:
        if code:
            assert code == 2
            assert "exists" in error_line(error) or "in use by" in error or "holds an interrupted run" in error
    assert out.read_bytes() in [((tmp_path / "a", tmp_path / "c")[winner]).read_bytes() for winner in winners]
    assert set(names(out.parent)) <= {"m", "m.checkpoint"}
