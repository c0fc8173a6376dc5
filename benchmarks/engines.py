"""`predict --out` by engine and number of processes on the same shards: `python benchmarks/engines.py`.

EuroSAT's photographs at 64 pixels, as tar shards, through the smallest tower, one thread a process. Rounds of all
engines take turns, so that a machine whose speed varies treats them alike; the best round counts. Every engine must
write the same bytes. Writes docs/engines_measured.md.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
DATASET, SIDE, BATCH = "eurosat", 64, 64
ENGINES = {
    "local, 1 process": ["--processes", "1"],
    "local, 2 processes": ["--processes", "2"],
    "Ray, 1 actor": ["--engine", "ray", "--processes", "1"],
    "Ray, 2 actors": ["--engine", "ray", "--processes", "2"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--n", type=int, default=10_000, help="images")
    parser.add_argument("--shard", type=int, default=500, help="images in a shard")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--page", type=Path, default=DOCS / "engines_measured.md")
    chosen = parser.parse_args()
    # The same bits need the same number of threads in each process.
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(chosen.data, folder / "m.safetensors")
        make_shards(chosen.data, folder / "in", chosen.n // chosen.shard, chosen.shard)
        found: dict[str, list[tuple[float, float]]] = {engine: [] for engine in ENGINES}
        for round_ in range(chosen.rounds):
            for i, (engine, options) in enumerate(ENGINES.items()):
                out = folder / f"out-{round_}-{i}"
                start = time.perf_counter()
                rate = predict(folder, out, options)
                found[engine].append((time.perf_counter() - start, rate))
                print(engine, *(f"{value:.1f}" for value in found[engine][-1]), flush=True)
                check_same(folder / "out-0-0", out)
    write_page(chosen.page, found, chosen)


def make_model(data: Path, path: Path) -> None:
    from sotglp import SOTGLP, Backbone
    from sotglp.model_file.save import save_model

    classes = sorted(one.name for one in (data / DATASET / "test").iterdir() if one.is_dir())
    save_model(path, SOTGLP(Backbone.load("tiny"), classes).eval())


def make_shards(data: Path, folder: Path, n_shards: int, size: int) -> None:
    """Write tar archives of images, which repeat where there are too few."""
    from PIL import Image

    files = sorted(path for path in (data / DATASET).rglob("*") if path.suffix in (".jpg", ".png"))
    folder.mkdir()
    for shard in range(n_shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as archive:
            for i in range(size):
                buffer = io.BytesIO()
                with Image.open(files[(shard * size + i) % len(files)]) as image:
                    image.convert("RGB").resize((SIDE, SIDE)).save(buffer, "JPEG")
                header = tarfile.TarInfo(f"{i:05d}.jpg")
                header.size = buffer.tell()
                buffer.seek(0)
                archive.addfile(header, buffer)


def predict(folder: Path, out: Path, options: list[str]) -> float:
    """Run the command and return its images a second, without imports but with the start of workers."""
    arguments = ["predict", str(folder / "m.safetensors"), str(folder / "in"), "--out", str(out), "--json", "-"]
    command = [sys.executable, "-m", "sotglp", *arguments, "--batch-size", str(BATCH), "--device", "cpu", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)["images_per_second"])


def check_same(first: Path, other: Path) -> None:
    parts = sorted(first.glob("*.parquet"))
    assert parts
    assert all(part.read_bytes() == (other / part.name).read_bytes() for part in parts)


def write_page(page: Path, found: dict[str, list[tuple[float, float]]], chosen: argparse.Namespace) -> None:
    first = min(seconds for seconds, _ in found["local, 1 process"])
    lines = [
        "# Engines, measured",
        "",
        f"`python benchmarks/engines.py --n {chosen.n} --shard {chosen.shard} --rounds {chosen.rounds}` writes this",
        f"page: `sotglp predict --out` of {chosen.n} images of {SIDE} pixels (EuroSAT) in",
        f"{chosen.n // chosen.shard} tar shards, backbone `tiny`, one thread a process, {os.cpu_count()} cores shared",
        "with other programs; best of",
        f"{chosen.rounds} rounds that take turns. All engines wrote the same bytes. Seconds include the start of",
        "Python, of the workers and of Ray; images/s leave out Python's imports in the first process alone.",
        "",
        "| engine | seconds | images/s | time relative to 1 local process |",
        "|---|---|---|---|",
    ]
    for engine, rounds in found.items():
        seconds = min(value for value, _ in rounds)
        lines.append(f"| {engine} | {seconds:.1f} | {max(rate for _, rate in rounds):.0f} | {seconds / first:.2f} |")
    page.write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
