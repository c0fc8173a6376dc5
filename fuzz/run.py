"""Fuzz the readers: ``python fuzz/run.py --seconds 600 [--target NAME] [--seed N] [--json FILE]``.

Inputs come from Hypothesis, which also changes single values of JSON and safetensors files, and for half of the time
from atheris, guided by coverage, where it is installed. A reader must return or raise SotglpError. Any other exception,
an input that takes 20 s or 2 GiB, or the end of the process is a crash: the input is kept in fuzz/crashes, and the exit
code is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from targets import TARGETS

CRASHES = Path(__file__).with_name("crashes")
MAX_SECONDS = 20
START_SECONDS = 300.0
MAX_GROWTH_MB = 2048


class Recorder:
    """A reader that counts its inputs, and keeps those that crash, one for each line of code.

    The input at hand and the counts are in files of ``folder``, which remain if the process ends.
    """

    def __init__(self, read: Callable[[bytes], bool], folder: Path, crashes: Path) -> None:
        self.counts = {"inputs": 0, "accepted": 0, "refused": 0, "crashes": 0}
        self._read, self._folder, self._crashes = read, folder, crashes
        self._lines: set[tuple[str, int]] = set()
        self._written = 0.0

    def __call__(self, content: bytes) -> None:
        """Read one input."""
        from sotglp.errors import SotglpError

        (self._folder / "input").write_bytes(content)
        self.counts["inputs"] += 1
        try:
            self.counts["accepted" if self._read(content) else "refused"] += 1
        except SotglpError:
            self.counts["refused"] += 1
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            if (frame.filename, frame.lineno or 0) not in self._lines:
                self._lines.add((frame.filename, frame.lineno or 0))
                self.counts["crashes"] += 1
                keep(self._crashes, content, traceback.format_exc())
        if time.monotonic() > self._written + 0.5:
            self.save()

    def save(self) -> None:
        """Write the counts."""
        self._written = time.monotonic()
        (self._folder / "counts.json").write_text(json.dumps(self.counts))


def keep(crashes: Path, content: bytes, reason: str) -> None:
    """Keep an input that crashed, and the reason."""
    crashes.mkdir(parents=True, exist_ok=True)
    path = crashes / hashlib.sha256(content).hexdigest()[:12]
    path.with_suffix(".bin").write_bytes(content)
    path.with_suffix(".txt").write_text(reason, errors="backslashreplace")


def work(name: str, folder: Path, crashes: Path, engine: str, seconds: float, seed: int) -> None:
    """Fuzz one target in this process until the time is up."""
    instrumented: Any = nullcontext()
    if engine == "atheris":
        import atheris

        instrumented = atheris.instrument_imports(include=["sotglp", "PIL"])
    reader_folder = folder / "reader"
    reader_folder.mkdir()
    with instrumented:
        seeds, read = TARGETS[name](reader_folder)
    record = Recorder(read, folder, crashes)
    if engine == "hypothesis":
        data = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize() + MAX_GROWTH_MB * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (data, data))
        draw_until(time.monotonic() + seconds, seeds, record, seed)
        record.save()
        return
    draw_until(time.monotonic() + seconds / 2, seeds, record, seed)
    corpus = folder / "corpus"
    corpus.mkdir()
    for index, content in enumerate(seeds):
        (corpus / str(index)).write_bytes(content)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024 + MAX_GROWTH_MB
    flags = [f"-max_total_time={max(round(seconds / 2), 1)}", f"-timeout={MAX_SECONDS}", f"-rss_limit_mb={memory}"]
    flags += ["-max_len=131072", f"-seed={seed % 2**31 or 1}", f"-artifact_prefix={folder}/", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], record)
    atheris.Fuzz()


def draw_until(end: float, seeds: list[bytes], read: Callable[[bytes], None], seed: int) -> None:
    """Read seeds, and damaged copies that Hypothesis draws, until a time of the monotonic clock."""
    import hypothesis
    from damage import damaged

    for content in seeds:
        read(content)

    checks = list(hypothesis.HealthCheck)

    @hypothesis.settings(max_examples=500, deadline=None, database=None, suppress_health_check=checks)
    @hypothesis.given(damaged(seeds))
    def run(content: bytes) -> None:
        if time.monotonic() < end:
            read(content)

    while time.monotonic() < end:
        hypothesis.seed(seed)(run)()
        seed += 1


def fuzz(target: str, engine: str, seconds: float, seed: int, crashes: Path) -> dict[str, Any]:
    """Fuzz one target in another process, which an input may end; return the counts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, __file__, "--work", target, name, "--engine", engine, "--crashes", str(crashes)]
        command += ["--seconds", str(seconds), "--seed", str(seed)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": name}
        reason = ""
        with (folder / "log").open("w+") as log:
            with subprocess.Popen(command, stdout=log, stderr=log, env=environment) as process:
                try:
                    process.wait(timeout=_remaining(folder, process, seconds))
                except subprocess.TimeoutExpired:
                    process.kill()
                    reason = f"no end {MAX_SECONDS} s after the others"
            log.seek(0)
            tail = log.read()[-4000:]
        counts = {"inputs": 0, "accepted": 0, "refused": 0, "crashes": 0}
        if (folder / "counts.json").exists():
            counts = json.loads((folder / "counts.json").read_text())
        if process.returncode:
            counts["crashes"] += 1
            content = (folder / "input").read_bytes() if (folder / "input").exists() else b""
            keep(crashes, content, f"{target}: {reason or f'ended with {process.returncode}'}\n{tail}")
    return {"target": target, **counts}


def _remaining(folder: Path, process: subprocess.Popen[bytes], seconds: float) -> float:
    """Wait for the first input, and return the seconds that the process may then take."""
    started = time.monotonic()
    while process.poll() is None and not (folder / "input").exists() and time.monotonic() < started + START_SECONDS:
        time.sleep(0.1)
    return seconds + 2 * MAX_SECONDS


def main() -> int:
    """Fuzz one target or all, and print a table."""
    parser = argparse.ArgumentParser(description="Fuzz the readers of sotglp.")
    parser.add_argument("--seconds", type=float, default=600.0, help="total time, shared among the targets")
    parser.add_argument("--target", choices=TARGETS, action="append", help="only this one (may be repeated)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the inputs")
    parser.add_argument("--engine", choices=("atheris", "hypothesis"), help="default: atheris if it is installed")
    parser.add_argument("--json", type=Path, help="file for the table as JSON")
    parser.add_argument("--crashes", type=Path, default=CRASHES, help=argparse.SUPPRESS)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    engine = options.engine or ("atheris" if importlib.util.find_spec("atheris") else "hypothesis")
    if options.work:
        target, folder = options.work
        work(target, Path(folder), options.crashes, engine, options.seconds, options.seed)
        return 0
    targets = options.target or list(TARGETS)
    seconds = options.seconds / len(targets)
    print(f"engine {engine}, seed {options.seed}, {seconds:.0f} s per target")
    outcomes = []
    for target in targets:
        outcomes.append(fuzz(target, engine, seconds, options.seed, options.crashes))
        print("  ".join(f"{name} {value}" for name, value in outcomes[-1].items()), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"engine": engine, "seed": options.seed, "targets": outcomes}, indent=2))
    n_crashes = sum(outcome["crashes"] for outcome in outcomes)
    print(f"{n_crashes} crashes" + (f": see {options.crashes}" if n_crashes else ""))
    return 1 if n_crashes else 0


if __name__ == "__main__":
    sys.exit(main())
