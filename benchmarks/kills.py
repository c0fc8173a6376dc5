"""Fits that are killed in every phase and resumed: `python benchmarks/kills.py --runs 100 --seed 1`.

A small `sotglp fit --calibrate` runs undisturbed once. Then it is run again and again in its own process, killed by
SIGKILL up to MOST_KILLS times and finished with --resume. Files on disk show which phase a run has reached: they are
polled, and the process is killed within the time that the phase takes undisturbed, at a moment drawn uniformly. The
phases of the first kills take turns; a second kill is in a later phase. Runs take turns at keeping views in one shared
cache, emptied before each of them, and in memory. What comes out must be the undisturbed run's file, byte for byte,
with nothing left beside it and every cache entry whole. Writes docs/kills.md, and each run as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sotglp.cli.fit import CHECKPOINT_SUFFIX
from sotglp.errors import SotglpError
from sotglp.features.cache import FeatureStore
from sotglp.features.prune import cache_groups, prune
from sotglp.files.tensors import read_tensors
from sotglp.files.versions import installed_versions
from sotglp.scoring.cross_fit import MAX_FOLDS, fold_checkpoint

EPOCHS = 10
SETTINGS = ("--backbone", "tiny", "--shots", "4", "--epochs", str(EPOCHS), "--calibrate")
MOST_KILLS = 2
SECOND_KILL = 1 / 3
"""Share of the runs that are killed twice."""
POLL_SECONDS = 0.002
LONGEST = 600.0
"""Seconds after which a process hangs."""

NOTHING, VIEWS, BETWEEN, TRAINED, FOLDS, BOTH, WRITTEN = STATES = (
    "nothing (imports; encoding in memory)",
    "views in the cache, no checkpoint (encoding)",
    "a checkpoint, epochs to go (training)",
    "the last checkpoint, no model",
    "a checkpoint of a fold, no model (calibration)",
    "model and checkpoints",
    "the model alone",
)
"""What the disk may hold when a run is killed, in the order of a run."""

TARGETS = (FOLDS, TRAINED, VIEWS, BETWEEN, NOTHING, BOTH)
"""Phases of the first kills, which take turns."""


@dataclass(frozen=True)
class Kill:
    """A kill: the phase that was waited for, what the disk held, and whether a file was being written."""

    target: str
    state: str
    is_torn: bool


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes
    ----------
    run : int
        Number of the run, from 1.
    cached : bool
        Views were kept in the cache.
    kills : list of Kill
        Those that hit; a process may have ended before its moment came.
    code : int
        Exit code of the process that finished the run.
    equal : bool
        The model file is the undisturbed run's, byte for byte.
    left_over : list of str
        Other files beside the model file at the end.
    n_broken : int
        Entries of the cache that fail their checksum in the end.
    error : str
        Standard error of the last process.
    """

    run: int
    cached: bool
    kills: list[Kill]
    code: int
    equal: bool
    left_over: list[str]
    n_broken: int
    error: str

    @property
    def is_good(self) -> bool:
        """Whether the kills made no difference."""
        return self.code == 0 and self.equal and not self.left_over and self.n_broken == 0


class Experiment:
    """Runs of one fit below one folder, and the undisturbed run that they are compared with."""

    def __init__(self, data: Path, folder: Path, seed: int) -> None:
        self._data, self._folder, self._seed = data, folder, seed
        self.cache = folder / "cache"
        whole = folder / "whole" / "m.safetensors"
        whole.parent.mkdir()
        start = time.perf_counter()
        process = self._start(whole, ["--cache-dir", str(self.cache)])
        # Seconds that each phase takes.
        self._seconds_of = dict.fromkeys(STATES, 0.0)
        state, since = NOTHING, start
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            if (now := self._state(whole, cached=True)) != state:
                self._seconds_of[state] += time.perf_counter() - since
                state, since = now, time.perf_counter()
        code, error = _finish(process)
        self.seconds = time.perf_counter() - start
        if code:
            raise SystemExit(f"the undisturbed run failed: {error}")
        self._whole = whole.read_bytes()

    def run(self, number: int) -> Outcome:
        """Kill and finish one run; phases and moments follow from the seed and its number."""
        out = self._folder / str(number) / "m.safetensors"
        out.parent.mkdir()
        cached = number % 2 == 1
        options = ["--cache-dir", str(self.cache)] if cached else ["--no-cache"]
        if cached:
            prune(self.cache, everything=True)
        kills: list[Kill] = []
        rng = np.random.default_rng([self._seed, number])
        targets = [TARGETS[(number - 1) // 2 % len(TARGETS)]]
        if rng.random() < SECOND_KILL and (later := STATES[STATES.index(targets[0]) + 1 : -1]):
            targets.append(later[rng.integers(len(later))])
        for target in targets:
            known = self._torn(out, cached)
            process = self._start(out, [*options, *_again(out, kills)])
            if self._ends_before(process, out, cached, target, float(rng.random())):
                break
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills.append(Kill(target, self._state(out, cached), self._torn(out, cached) > known))
            if kills[-1].state == WRITTEN:
                break
        code, error = 0, ""
        if process.returncode > 0:
            code, error = _finish(process)
        elif not out.exists() or checkpoint_path(out).exists():
            code, error = _finish(self._start(out, [*options, *_again(out, kills)]))
        return Outcome(
            number,
            cached,
            kills,
            code,
            equal=out.exists() and out.read_bytes() == self._whole,
            left_over=sorted(path.name for path in out.parent.iterdir() if path != out),
            n_broken=_n_broken(self.cache) if cached else 0,
            error=error.strip(),
        )

    def _ends_before(self, process: subprocess.Popen[str], out: Path, cached: bool, target: str, share: float) -> bool:
        """Wait for a moment of a phase, after ``share`` of its time; whether the process ends before it."""
        if target == VIEWS and not cached:
            # Views in memory leave no file: the end of the time before the first checkpoint.
            target, share = NOTHING, 0.5 + share / 2
        while STATES.index(self._state(out, cached)) < STATES.index(target):
            if process.poll() is not None:
                return True
            time.sleep(POLL_SECONDS)
        try:
            process.wait(timeout=share * self._seconds_of[target])
        except subprocess.TimeoutExpired:
            return False
        return True

    def _start(self, out: Path, options: Sequence[str]) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "sotglp", "fit", str(self._data), "--out", str(out), *SETTINGS, *options]
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def _state(self, out: Path, cached: bool) -> str:
        """What the disk holds, in the order in which files appear; a file may vanish meanwhile."""
        checkpoint = checkpoint_path(out)
        has_fold = any(fold_checkpoint(checkpoint, fold).exists() for fold in range(MAX_FOLDS))
        if out.exists():
            return BOTH if checkpoint.exists() or has_fold else WRITTEN
        if has_fold:
            return FOLDS
        try:
            n_epochs = len(read_tensors(checkpoint, "checkpoint")[1]["history"])
        except SotglpError:
            return VIEWS if cached and any(self.cache.glob("*/??/*.safetensors")) else NOTHING
        return TRAINED if n_epochs == EPOCHS else BETWEEN

    def _torn(self, out: Path, cached: bool) -> set[Path]:
        """Files that were being written beside the model, and in the cache if it is in use."""
        return {path for folder in (out.parent, *[self.cache] * cached) for path in folder.rglob(".*.part")}


def checkpoint_path(out: Path) -> Path:
    return Path(f"{out}{CHECKPOINT_SUFFIX}")


def _again(out: Path, kills: Sequence[Kill]) -> list[str]:
    """Options that a user adds to the command after a killed run."""
    return [*["--resume"] * bool(kills), *["--force"] * out.exists()]


def _finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and standard error of a process that is left alone."""
    _, error = process.communicate(timeout=LONGEST)
    return process.returncode, error


def _n_broken(cache: Path) -> int:
    """Entries that the store refuses."""
    n_broken = 0
    for group in cache_groups(cache):
        store = FeatureStore(cache, group.about)
        n_broken += sum(store.read(path.stem) is None for path in group.path.glob("??/*.safetensors"))
    return n_broken


def report(outcomes: Sequence[Outcome], seconds: float, seed: int, n_torn_in_cache: int) -> str:
    """The Markdown page."""
    kills = [kill for outcome in outcomes for kill in outcome.kills]
    versions = installed_versions()
    lines = [
        "# Killed and resumed",
        "",
        f"`python benchmarks/kills.py --runs {len(outcomes)} --seed {seed}`: `sotglp fit` on small photos (backbone "
        f"tiny, 4 shots, {EPOCHS} epochs, `--calibrate` with its folds), which takes {seconds:.1f} s undisturbed, "
        f"killed by SIGKILL in a phase that its files show, up to {MOST_KILLS} times, then finished with `--resume`. "
        "Every second run keeps its views in one shared cache. "
        f"Python {platform.python_version()}, torch {versions['torch']}.",
        "",
        "| views | runs | kills | same file, byte for byte | exit code 0 | files left over | broken cache entries |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, cached in (("in the cache", True), ("in memory", False)):
        own = [outcome for outcome in outcomes if outcome.cached == cached]
        numbers = (
            len(own),
            sum(len(outcome.kills) for outcome in own),
            sum(outcome.equal for outcome in own),
            sum(outcome.code == 0 for outcome in own),
            sum(len(outcome.left_over) for outcome in own),
            sum(outcome.n_broken for outcome in own) if cached else "",
        )
        lines.append(f"| {name} | {' | '.join(map(str, numbers))} |")
    lines += ["", "| on the disk when it was killed | kills | a file was being written |", "|---|---|---|"]
    counts = Counter(kill.state for kill in kills)
    torn = Counter(kill.state for kill in kills if kill.is_torn)
    lines += [f"| {state} | {counts[state]} | {torn[state]} |" for state in STATES]
    n_early = sum(not outcome.kills for outcome in outcomes)
    lines += [
        "",
        f"{n_early} runs ended before their first kill. {n_torn_in_cache} half-written files were left in the cache, "
        "under names that nothing reads; `sotglp cache prune` removes them when they are a day old.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data/cifar10/train"), help="folder of class folders"
    )
    parser.add_argument("--json", type=Path, default=Path("build/kills.json"))
    parser.add_argument("--out", type=Path, default=Path("docs/kills.md"))
    chosen = parser.parse_args()
    outcomes = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(chosen.jobs) as pool:
        experiment = Experiment(chosen.data.resolve(), Path(folder), chosen.seed)
        for outcome in pool.map(experiment.run, range(1, chosen.runs + 1)):
            outcomes.append(outcome)
            moments = ", ".join(kill.state for kill in outcome.kills)
            print(f"{outcome.run}/{chosen.runs} {'good' if outcome.is_good else 'BAD'} ({moments})", flush=True)
        n_torn = len(list(experiment.cache.rglob(".*.part")))
    text = report(outcomes, experiment.seconds, chosen.seed, n_torn)
    for path, content in (
        (chosen.json, json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n"),
        (chosen.out, text),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    print(text)
    sys.exit(not all(outcome.is_good for outcome in outcomes))


if __name__ == "__main__":
    main()
