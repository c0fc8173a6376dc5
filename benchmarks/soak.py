"""`sotglp serve` for ten minutes with 32 clients, of whose requests one in ten is hostile: `python benchmarks/soak.py`.

First, the same honest requests come without hostile ones, for a fifth of the time. Requests have a schedule, so that a
slow server does not get fewer of them. At the end the server gets SIGTERM, while some clients read nothing. The table
goes to docs/soak.md. It ends with an error if an answer is 500, an honest request is not answered with 200, the 95th
percentile of honest requests is more than twice that without hostile ones, the memory of the server and its processes
has grown by more than a tenth, or it leaves files or does not end within ten seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil

from hostile_requests import HOSTILE, Target
from serve_load import prepare
from sotglp.files.atomic import write_file

N_CLIENTS = 32
N_REQUESTS = 5000
SECONDS = 600.0
CALM_SHARE = 0.2
HOSTILE_EVERY = 10
MAX_RATIO = 2.0
MAX_GROWTH = 1.1
MAX_END_SECONDS = 10.0

# Of a hundred honest requests.
MIX = {"/predict": 70, "/explain": 15, "/predict.csv": 5, "/model": 5, "/ready": 2, "/": 2, "/model/file": 1}

INTRODUCTION = """# The server among attackers

`benchmarks/soak.py` (`make soak`) writes this file: `sotglp serve` on 127.0.0.1 with the backbone `tiny`, and
{n_clients} clients in one other process of the same computer. Its {n_cores} cores had other work too: the load average
was {load:.1f} before it began. {n} requests came in {seconds:.0f} seconds on a schedule, one in ten of them hostile.
*Calm* is the same mixture of honest requests at the same rate before, without hostile ones. Milliseconds are from
sending a request until the answer is whole.

| honest requests | number | not 200 | p50 ms | p95 ms | p99 ms |
|---|---|---|---|---|---|
"""


@dataclass
class Phase:
    """What clients saw: milliseconds of honest requests, and statuses of honest and hostile ones."""

    name: str
    milliseconds: list[float] = field(default_factory=list)
    honest: Counter[int] = field(default_factory=Counter)
    hostile: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in HOSTILE})

    @property
    def p95(self) -> float:
        """95th percentile of honest requests."""
        return float(np.percentile(self.milliseconds, 95))

    def row(self) -> str:
        """A line of the table."""
        p50, p99 = np.percentile(self.milliseconds, [50, 99])
        n = self.honest.total()
        return f"| {self.name} | {n} | {n - self.honest[200]} | {p50:.0f} | {self.p95:.0f} | {p99:.0f} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="seconds with hostile requests")
    parser.add_argument("--requests", type=int, default=N_REQUESTS, help="requests in this time")
    parser.add_argument("--out", type=Path, default=Path("docs/soak.md"))
    options = parser.parse_args()
    load = psutil.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, photos, _ = prepare(folder)
        (folder / "tmp").mkdir()
        with served(model, folder / "tmp") as (address, process, log):
            calm, soak, memory = asyncio.run(measure(address, photos, process, options.seconds, options.requests))
            end_seconds, code = asyncio.run(ended(Target(address, photos[0]), process))
            # One line reports how many requests were cancelled at the end.
            lines = log.read_text().splitlines(keepends=True)
            errors = "".join(line for line in lines if "graceful shutdown exceeded" not in line)
        left = [path.name for path in (folder / "tmp").iterdir()]
    text = INTRODUCTION.format(
        n_clients=N_CLIENTS, n_cores=os.cpu_count(), load=load, n=options.requests, seconds=options.seconds
    )
    text += calm.row() + soak.row() + "\n| hostile requests | number | answers |\n|---|---|---|\n"
    for kind, found in soak.hostile.items():
        statuses = ", ".join(f"{n} x {status}" for status, n in sorted(found.items()))
        text += f"| {kind} | {found.total()} | {statuses} |\n"
    text += "\nMemory of the server and its processes (resident):\n\n| when | MiB |\n|---|---|\n"
    text += "".join(f"| {when} | {mebibytes:.0f} |\n" for when, mebibytes in memory)
    text += (
        f"\nAfter SIGTERM, with clients that don't read, it ended in {end_seconds:.1f} seconds with exit code {code}.\n"
    )
    write_file(options.out, lambda beside: beside.write_text(text, encoding="utf-8"), force=True)
    print(text)
    n_failed = soak.honest[500] + sum(found["500"] for found in soak.hostile.values())
    faults = {
        f"{n_failed} answers are 500": n_failed > 0,
        f"honest requests have {dict(calm.honest + soak.honest)}": set(calm.honest + soak.honest) != {200},
        f"p95 is {soak.p95 / calm.p95:.2f} times that without hostile requests": soak.p95 > MAX_RATIO * calm.p95,
        f"memory is {memory[-1][1] / memory[0][1]:.2f} times that of the start": memory[-1][1]
        > MAX_GROWTH * memory[0][1],
        f"it ended in {end_seconds:.1f} s with {code}": end_seconds > MAX_END_SECONDS or code != 0,
        f"it left {left}": bool(left),
        f"it logged {errors[:2000]}": bool(errors),
    }
    for what, is_one in faults.items():
        print(("FAULT: " if is_one else "ok: ") + what)
    sys.exit(any(faults.values()))


@contextmanager
def served(model: Path, folder: Path) -> Iterator[tuple[str, psutil.Process, Path]]:
    """``sotglp serve`` on a free port: its address, its process and its log; ``folder`` is for temporary files."""
    command = [sys.executable, "-m", "sotglp", "serve", str(model), "--port", "0"]
    log = folder.with_name("log.txt")
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, "TMPDIR": str(folder)}
        ) as process,
    ):
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found, log.read_text()
            yield found.group(), psutil.Process(process.pid), log
        finally:
            process.kill()


async def measure(
    address: str, photos: list[bytes], process: psutil.Process, seconds: float, n_requests: int
) -> tuple[Phase, Phase, list[tuple[str, float]]]:
    """Run both phases; return what clients saw, and the memory at times."""
    target = Target(address, photos[0])
    calm, soak = Phase("calm"), Phase("among attackers")
    await run(Phase("warm-up"), target, photos, 10.0, 100, hostile=False)
    memory = [("at the start, after 100 requests", resident(process))]
    await run(calm, target, photos, CALM_SHARE * seconds, round(CALM_SHARE * n_requests), hostile=False)
    memory.append(("before the first hostile request", resident(process)))

    async def sample() -> None:
        for part in range(1, 4):
            await asyncio.sleep(seconds / 4)
            memory.append((f"after {part * seconds / 4:.0f} seconds", resident(process)))

    sampling = asyncio.create_task(sample())
    await run(soak, target, photos, seconds, n_requests, hostile=True)
    await sampling
    await asyncio.sleep(5)
    memory.append(("at the end", resident(process)))
    return calm, soak, memory


async def run(
    phase: Phase, target: Target, photos: list[bytes], seconds: float, n_requests: int, *, hostile: bool
) -> None:
    """Send requests on a schedule; in a calm phase the hostile ones are left out."""
    begin, numbers, paths = time.perf_counter(), iter(range(n_requests)), list(MIX)
    weights, kinds = list(MIX.values()), list(HOSTILE)

    async def work() -> None:
        async with httpx.AsyncClient(base_url=f"http://{target.host}:{target.port}", timeout=60) as client:
            for number in numbers:
                rng = random.Random(number)
                await asyncio.sleep(max(begin + seconds * number / n_requests - time.perf_counter(), 0))
                if number % HOSTILE_EVERY == 0:
                    if hostile:
                        kind = kinds[number // HOSTILE_EVERY % len(kinds)]
                        statuses = await HOSTILE[kind](target, rng)
                        phase.hostile[kind].update(map(str, statuses or ["none"]))
                    continue
                (path,) = rng.choices(paths, weights)
                await honest(phase, client, path, photos[number % len(photos)])

    await asyncio.gather(*(work() for _ in range(N_CLIENTS)))


async def honest(phase: Phase, client: httpx.AsyncClient, path: str, photo: bytes) -> None:
    """Send one honest request."""
    field_name = {"/predict": "images", "/predict.csv": "images", "/explain": "image"}.get(path)
    begin = time.perf_counter()
    if field_name:
        answer = await client.post(path, files={field_name: ("photo.jpg", photo)})
    else:
        answer = await client.get(path)
    phase.milliseconds.append((time.perf_counter() - begin) * 1000)
    phase.honest[answer.status_code] += 1


async def ended(target: Target, process: psutil.Process) -> tuple[float, int | None]:
    """Send SIGTERM while clients don't read or send; return the seconds until the end, and the exit code."""
    kinds = ("slow reader", "slow sender", "bomb")
    tasks = [asyncio.create_task(HOSTILE[kind](target, random.Random(seed))) for kind in kinds for seed in range(8)]
    await asyncio.sleep(1)
    processes = [process, *process.children(recursive=True)]
    begin = time.perf_counter()
    process.terminate()
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, 3 * MAX_END_SECONDS)
    seconds = time.perf_counter() - begin
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return seconds, None if alive else process.wait()


def resident(process: psutil.Process) -> float:
    """Memory of a process and its children in MiB."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            total += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 2**20


if __name__ == "__main__":
    main()
