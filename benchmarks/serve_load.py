"""`sotglp serve` under load: 32 clients on this computer, some thousand requests, and the memory that they leave.

The table goes to docs/serve_load.md; about three minutes on two cores. It ends with an error if any request fails.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
import torch
from PIL import Image

from sotglp import SOTGLPClassifier
from sotglp.demo.task import draw_class_pictures, image_set
from sotglp.files.atomic import write_file

PICTURES_PER_CLASS = 8
SEED = 5_000_000
SIDE = 512
"""Pixels of the pictures' sides, so that decoding costs what it does for a small photo."""

N_CLIENTS = 32
N_REQUESTS = 1000
N_ALONE = 200
EXPLAINED = 5
"""In the mixed phase, every fifth request asks for an explanation."""

INTRODUCTION = """# The server under load

`benchmarks/serve_load.py` writes this file: `sotglp serve` on 127.0.0.1 with the backbone `tiny`, {n_classes} classes,
torch on {n_threads} thread(s), and its clients in one other process of the same computer. Its {n_cores} cores had other
work too: the load average was {load:.1f} before it began. Each client sends one picture at a time, a JPEG of
{side} x {side} pixels and about {kilobytes:.0f} kB, and the next one when it has the answer. *Mixed* is /predict, and
every fifth request /explain. Milliseconds are from sending a request until the answer is whole.

| phase | clients | requests | errors | p50 ms | p95 ms | p99 ms | requests/s |
|---|---|---|---|---|---|---|---|
"""

MEMORY = """
Memory of the server (resident), requests counted from the end of the warm-up:

| when | MiB |
|---|---|
"""


@dataclass
class Phase:
    """What a phase took: milliseconds of each request, seconds in all, statuses other than 200."""

    name: str
    n_clients: int
    milliseconds: list[float]
    seconds: float
    errors: list[int]

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.milliseconds) / self.seconds

    def row(self) -> str:
        """A line of the table."""
        p50, p95, p99 = np.percentile(self.milliseconds, [50, 95, 99])
        counts = f"{self.n_clients} | {len(self.milliseconds)} | {len(self.errors)}"
        return f"| {self.name} | {counts} | {p50:.0f} | {p95:.0f} | {p99:.0f} | {self.rate:.0f} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/serve_load.md"))
    arguments = parser.parse_args()
    load = psutil.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        model, photos, n_classes = prepare(Path(folder))
        with served(model) as (address, process):
            memory = [("at the start", resident(process))]
            phases, samples = asyncio.run(measure(address, photos, lambda: resident(process)))
            memory += samples
    text = INTRODUCTION.format(
        n_classes=n_classes,
        n_clients=N_CLIENTS,
        n_cores=os.cpu_count(),
        load=load,
        n_threads=torch.get_num_threads(),
        side=SIDE,
        kilobytes=sum(map(len, photos)) / len(photos) / 1000,
    )
    text += "".join(phase.row() for phase in phases)
    text += MEMORY + "".join(f"| {when} | {mebibytes:.0f} |\n" for when, mebibytes in memory)
    alone, together = (next(phase for phase in phases if phase.n_clients == n) for n in (1, N_CLIENTS))
    text += f"\n{N_CLIENTS} clients get {together.rate / alone.rate:.1f} times the requests a second of one alone.\n"
    write_file(arguments.out, lambda beside: beside.write_text(text, encoding="utf-8"), force=True)
    print(text)
    if any(phase.errors for phase in phases):
        sys.exit("there were errors")


def prepare(folder: Path) -> tuple[Path, list[bytes], int]:
    """A calibrated model of the painted world, and pictures of its classes as JPEG."""
    pictures, drawn = draw_class_pictures(2 * PICTURES_PER_CLASS, SEED)
    images = image_set(pictures.images, drawn)
    learned, held_out = (images.take(half) for half in np.split(np.arange(len(images)), 2))
    classifier = SOTGLPClassifier("tiny", epochs=5, workers=0).fit(learned.images, learned.labels)
    classifier.calibrate(held_out.images, y=held_out.labels).save(folder / "painted.safetensors")
    return folder / "painted.safetensors", [jpeg(picture) for picture in held_out.images], len(images.classes)


def jpeg(picture: Image.Image) -> bytes:
    """A picture as a larger JPEG file."""
    buffer = io.BytesIO()
    picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@contextmanager
def served(model: Path) -> Iterator[tuple[str, psutil.Process]]:
    """``sotglp serve`` on a free port: its address and process."""
    command = [sys.executable, "-m", "sotglp", "serve", str(model), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found
        yield found.group(), psutil.Process(process.pid)
        process.terminate()
        assert process.wait(60) == 0


def resident(process: psutil.Process) -> float:
    """Memory of a process in MiB."""
    return float(process.memory_info().rss / 2**20)


async def measure(
    address: str, photos: list[bytes], memory: Callable[[], float]
) -> tuple[list[Phase], list[tuple[str, float]]]:
    """All phases, and the memory after some numbers of requests of 32 clients."""
    samples: list[tuple[str, float]] = []

    async def run(name: str, n_clients: int, n_requests: int, explained: int = 0) -> Phase:
        return await phase(address, photos, name, n_clients, n_requests, explained)

    await run("warm-up", N_CLIENTS, 2 * N_CLIENTS, EXPLAINED)
    samples.append(("after the warm-up", memory()))
    alone = await run("/predict", 1, N_ALONE)
    halves = []
    for n_so_far in (N_REQUESTS // 2, N_REQUESTS):
        halves.append(await run("/predict", N_CLIENTS, N_REQUESTS // 2))
        samples.append((f"after {n_so_far} requests", memory()))
    first, second = halves
    together = Phase(
        "/predict",
        N_CLIENTS,
        first.milliseconds + second.milliseconds,
        first.seconds + second.seconds,
        first.errors + second.errors,
    )
    mixed = await run("mixed", N_CLIENTS, N_REQUESTS, EXPLAINED)
    samples.append((f"after {2 * N_REQUESTS} requests", memory()))
    again = await run("/predict again", N_CLIENTS, N_REQUESTS)
    samples.append((f"after {3 * N_REQUESTS} requests", memory()))
    return [alone, together, mixed, again], samples


async def phase(address: str, photos: list[bytes], name: str, n_clients: int, n_requests: int, explained: int) -> Phase:
    """Requests by clients that each wait for an answer before they ask again; every ``explained``-th is /explain."""
    numbers = iter(range(n_requests))
    milliseconds: list[float] = []
    errors: list[int] = []

    async def work() -> None:
        async with httpx.AsyncClient(base_url=address, timeout=60) as client:
            for number in numbers:
                photo = photos[number % len(photos)]
                is_explained = explained > 0 and number % explained == 0
                path, field = ("/explain", "image") if is_explained else ("/predict", "images")
                begin = time.perf_counter()
                answer = await client.post(path, files={field: (f"{number}.jpg", photo)})
                milliseconds.append((time.perf_counter() - begin) * 1000)
                if answer.status_code != 200 or "error" in answer.json().get("predictions", [{}])[0]:
                    errors.append(answer.status_code)

    begin = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(n_clients)))
    return Phase(name, n_clients, milliseconds, time.perf_counter() - begin, errors)


if __name__ == "__main__":
    main()
