"""Fuzz the readers: ``python fuzz/run.py --seconds 600 [--target NAME] [--seed N] [--json FILE]``.

A return or a SotglpError is fine. Any other exception, an input that takes 20 s, 2 GiB more memory or the end of the
process is a crash: the input and what it did are kept in fuzz/crashes, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from targets import TARGETS
from worker import MOST_GROWTH, Board, save_crash

WORKER = Path(__file__).with_name("worker.py")
CRASHES = WORKER.with_name("crashes")
MOST_SECONDS = 20.0
START_SECONDS = 600.0
MOST_RESTARTS = 20
POLL_SECONDS = 0.1


@dataclass
class Outcome:
    """What fuzzing a target came to; ``crashes`` counts the places that went wrong, not the inputs."""

    target: str
    engine: str
    inputs: int
    accepted: int
    refused: int
    crashes: int
    seconds: float


def fuzz(target: str, engine: str, seconds: float, seed: int, crashes: Path) -> Outcome:
    """Run a target in processes of its own, a new one after each that an input has ended.

    Parameters
    ----------
    target : str
        A name among ``TARGETS``.
    engine : {"atheris", "own"}
        What makes the inputs.
    seconds : float
        Time for reading inputs; starting the process comes on top.
    seed : int
        Seed of the inputs; those of the own engine depend on nothing else.
    crashes : Path
        Folder for inputs that went wrong.
    """
    spent = 0.0
    n_ended = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "board"
        Board(path)
        while spent < seconds and n_ended < MOST_RESTARTS:
            n_before = Board(path).n_run
            command = [sys.executable, str(WORKER), target, str(path), str(crashes)]
            command += ["--engine", engine, "--seconds", str(seconds - spent), "--seed", str(seed + n_ended)]
            if engine == "own":
                # The number of an input goes on counting, so its seed must not change.
                command[-1] = str(seed)
            with (Path(folder) / "log").open("w+") as log:
                environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": folder}
                with subprocess.Popen(command, stdout=log, stderr=log, env=environment) as process:
                    reason, seconds_read = _watch(process, path)
                log.seek(0)
                tail = log.read()[-4000:]
            board = Board(path)
            spent += seconds_read
            if reason is None and process.returncode == 0:
                break
            n_ended += 1
            board.n_crashes += 1
            save_crash(crashes, target, board.content, f"{reason or f'ended with {process.returncode}'}\n{tail}")
            board.put(b"")
            if board.n_run == n_before:
                break
    return Outcome(target, engine, board.n_run, board.n_accepted, board.n_refused, board.n_crashes, round(spent, 1))


def _watch(process: subprocess.Popen[bytes], path: Path) -> tuple[str | None, float]:
    """Wait for the process, and kill it where an input takes too long or too much; tells why, and how long it read."""
    started = time.time()
    first = None
    last, n_still = 0.0, 0
    watched = psutil.Process(process.pid)
    reason = None
    while process.poll() is None:
        time.sleep(POLL_SECONDS)
        board = Board(path)
        if board.began > started:
            first = first or board.began
        # Looks are counted, not seconds: where the whole machine stands still, this process does so too.
        last, n_still = board.began, n_still + 1 if board.began == last else 0
        limit = MOST_SECONDS if first else START_SECONDS
        try:
            memory = watched.memory_info().rss
        except psutil.NoSuchProcess:
            break
        # The process itself tells of memory after an input; this is for one that goes on and on.
        if board.content and board.start_memory and memory > board.start_memory + 2 * MOST_GROWTH:
            reason = f"memory grew to {memory} bytes"
        elif n_still * POLL_SECONDS > limit:
            reason = f"still at it after {limit:.0f} s"
        if reason:
            process.kill()
            break
    process.wait()
    return reason, time.time() - first if first else 0.0


def main() -> int:
    """Fuzz one target or all, and print a table."""
    parser = argparse.ArgumentParser(description="Fuzz the readers of sotglp.")
    parser.add_argument("--seconds", type=float, default=600.0, help="time in all, shared among the targets")
    parser.add_argument("--target", choices=TARGETS, action="append", help="only this one (may be repeated)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the inputs")
    parser.add_argument("--engine", choices=("atheris", "own"), help="atheris where it can be imported, else own")
    parser.add_argument("--json", type=Path, help="file for the table as JSON")
    options = parser.parse_args()
    engine = options.engine or ("atheris" if importlib.util.find_spec("atheris") else "own")
    chosen = options.target or list(TARGETS)
    print(f"engine {engine}, seed {options.seed}, {options.seconds / len(chosen):.0f} s for each target")
    print(f"{'target':<12} {'engine':<8} {'inputs':>9} {'accepted':>9} {'refused':>9} {'crashes':>8} {'seconds':>8}")
    outcomes = []
    for target in chosen:
        outcome = fuzz(target, engine, options.seconds / len(chosen), options.seed, CRASHES)
        outcomes.append(outcome)
        print(
            f"{target:<12} {engine:<8} {outcome.inputs:>9} {outcome.accepted:>9} {outcome.refused:>9} "
            f"{outcome.crashes:>8} {outcome.seconds:>8.1f}",
            flush=True,
        )
    n_crashes = sum(outcome.crashes for outcome in outcomes)
    if options.json:
        told = {"engine": engine, "seed": options.seed, "targets": [asdict(outcome) for outcome in outcomes]}
        options.json.write_text(json.dumps(told, indent=2) + "\n")
    if n_crashes:
        print(f"{n_crashes} crashes: see {CRASHES}")
    return 1 if n_crashes else 0


if __name__ == "__main__":
    sys.exit(main())
