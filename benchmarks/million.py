"""A million images through `predict --out`, killed twice and resumed: `python benchmarks/million.py`.

EuroSAT's photographs at 64 pixels are written as tar shards; a few different archives are repeated by hard links, so
that a million images take little of the disk. A model with the smallest tower, `tiny`, predicts them on two threads.
The process is killed by SIGKILL after a third and after two thirds of the shards, and the same command is repeated.
In the end each shard must have the rows, bit for bit, of every other one with the same images: those from before,
between and after the kills. Resident memory is sampled all the time. The tower's own rate, on pixels in memory, is
measured before, between and after. All runs are noted in FOLDER/runs.jsonl; repeating the command continues. Writes
docs/million.md.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent / "docs"
DATASET, BACKBONE = "eurosat", "tiny"
SIDE = 64
DISTINCT = 4
"""Archives with different images."""
N_KILLS = 2
THREADS = 2
BATCH = 64
SAMPLE_SECONDS = 1.0
TOWER_SECONDS = 20.0


def main() -> None:
    """Make model and images, run, kill, resume and check; or, as a child, measure the tower."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--n", type=int, default=1_000_000, help="images")
    parser.add_argument("--shard", type=int, default=10_000, help="images in a shard")
    parser.add_argument("--folder", type=Path, default=Path("build/million"))
    parser.add_argument("--page", type=Path, default=DOCS / "million.md")
    parser.add_argument("--tower", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.tower:
        print(json.dumps(tower_rate()))
        return
    os.environ |= {"OMP_NUM_THREADS": str(THREADS), "OMP_WAIT_POLICY": "PASSIVE"}
    folder = chosen.folder
    folder.mkdir(parents=True, exist_ok=True)
    n_shards = chosen.n // chosen.shard
    make_shards(chosen.data, folder, n_shards, chosen.shard)
    make_model(chosen.data, folder / "m.safetensors")
    while not is_finished(folder):
        note(folder, run_once(folder, n_shards, chosen.shard))
    write_page(chosen.page, folder, n_shards, chosen.shard, check_rows(folder, n_shards, chosen.shard))


def make_shards(data: Path, folder: Path, n_shards: int, size: int) -> None:
    """Write archives of ``size`` images each, ``DISTINCT`` of them different; existing ones are kept."""
    from PIL import Image

    files = sorted((data / DATASET / "test").glob("*/*.*"))
    shards = folder / "shards"
    shards.mkdir(exist_ok=True)
    images = [(file.parent.name, jpeg(Image.open(file))) for file in files] if not (folder / "0.tar").exists() else []
    for number in range(DISTINCT):
        base = folder / f"{number}.tar"
        if not base.exists():
            beside = base.with_suffix(".part")
            with tarfile.open(beside, "w") as archive:
                for i in range(size):
                    label, content = images[(i * DISTINCT + number) % len(images)]
                    add(archive, f"{i:06d}.jpg", content)
                    add(archive, f"{i:06d}.cls", label.encode())
            beside.rename(base)
    for i in range(n_shards):
        link = shards / f"{i:05d}.tar"
        if not link.exists():
            os.link(folder / f"{i % DISTINCT}.tar", link)


def jpeg(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").resize((SIDE, SIDE)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    archive.addfile(header, io.BytesIO(content))


def make_model(data: Path, path: Path) -> None:
    from shared_sets import fit_shared
    from sotglp import Backbone
    from sotglp.images.image_set import ImageSet
    from sotglp.model_file.save import save_model

    if not path.exists():
        train = ImageSet.from_path(data / DATASET / "train")
        save_model(path, fit_shared(Backbone.load(BACKBONE), train, 1).model)


def tower_rate() -> tuple[float, float]:
    """Images a second of the tower alone, on random pixels in memory, and milliseconds of the processor an image."""
    import torch

    from sotglp import Backbone

    torch.set_num_threads(THREADS)
    backbone = Backbone.load(BACKBONE)
    pixels = torch.randn(BATCH, 3, *backbone.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        backbone.encode_image(pixels)
        start, start_cpu, n = time.perf_counter(), time.process_time(), 0
        while (seconds := time.perf_counter() - start) < TOWER_SECONDS:
            backbone.encode_image(pixels)
            n += BATCH
    return n / seconds, (time.process_time() - start_cpu) / n * 1000


def run_once(folder: Path, n_shards: int, size: int) -> dict[str, Any]:
    """Run the command until it ends or its time to be killed comes; return what was measured."""
    done = subprocess.run([sys.executable, __file__, "--tower"], capture_output=True, check=True)
    tower, tower_cpu = json.loads(done.stdout.splitlines()[-1])
    n_before = n_finished(folder)
    kills = sum(run["killed"] for run in runs(folder))
    until = n_shards * (kills + 1) // (N_KILLS + 1) if kills < N_KILLS else None
    command = ["predict", str(folder / "m.safetensors"), str(folder / "shards"), "--out", str(folder / "out")]
    options = ["--batch-size", str(BATCH), "--json", str(folder / "summary.json")]
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "sotglp", *command, *options], stdout=subprocess.DEVNULL)
    samples: list[tuple[float, int, int, float]] = []
    sampler = threading.Thread(target=sample, args=(process, start, folder, samples))
    sampler.start()
    while process.poll() is None:
        if until is not None and n_finished(folder) >= until:
            # In the middle of a shard, not between two.
            time.sleep(0.5 * (time.perf_counter() - start) / max(until - n_before, 1))
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.05)
    code = process.wait()
    sampler.join()
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f"predict ended with {code}")
    n_done = n_finished(folder) - n_before
    after = [one for one in samples if one[2] > n_before] or samples
    settled = [rss for _, rss, _, _ in after]
    # From the first sample to the last one that shows another finished shard.
    ends = [one for at, one in enumerate(after) if at == 0 or one[2] > after[at - 1][2]]
    n_images = (ends[-1][2] - ends[0][2]) * size
    quarter = max(len(settled) // 4, 1)
    return {
        "killed": code != 0,
        "finished_before": n_before,
        "shards": n_done,
        "seconds": time.perf_counter() - start,
        "images_per_second": n_images / (ends[-1][0] - ends[0][0]) if n_images else None,
        "cpu_ms": (ends[-1][3] - ends[0][3]) / n_images * 1000 if n_images else None,
        "tower": tower,
        "tower_cpu_ms": tower_cpu,
        "rss_mb": {
            "first": sum(settled[:quarter]) / quarter / 2**20,
            "last": sum(settled[-quarter:]) / quarter / 2**20,
            "most": max(settled) / 2**20,
        },
        "samples": samples[:: max(len(samples) // 200, 1)],
    }


def sample(
    process: subprocess.Popen[bytes], start: float, folder: Path, samples: list[tuple[float, int, int, float]]
) -> None:
    """Note seconds, resident bytes, finished shards and seconds of the processor, until the process ends."""
    page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    while process.poll() is None:
        try:
            resident = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * page
            used = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        except (OSError, IndexError):
            return
        if resident:
            cpu = sum(map(int, used)) / tick
            samples.append((round(time.perf_counter() - start, 1), resident, n_finished(folder), cpu))
        time.sleep(SAMPLE_SECONDS)


def n_finished(folder: Path) -> int:
    manifest = folder / "out" / "manifest.jsonl"
    return max(manifest.read_bytes().count(b"\n") - 1, 0) if manifest.exists() else 0


def runs(folder: Path) -> list[dict[str, Any]]:
    noted = folder / "runs.jsonl"
    return [json.loads(line) for line in noted.read_text().splitlines()] if noted.exists() else []


def note(folder: Path, run: dict[str, Any]) -> None:
    with (folder / "runs.jsonl").open("a") as file:
        file.write(json.dumps(run) + "\n")
    print({name: value for name, value in run.items() if name != "samples"}, flush=True)


def is_finished(folder: Path) -> bool:
    return any(not run["killed"] for run in runs(folder))


def check_rows(folder: Path, n_shards: int, size: int) -> int:
    """Return the number of rows; end with an error if shards of the same images have different ones."""
    import pyarrow.parquet

    n_rows = 0
    first: dict[int, Any] = {}
    for i in range(n_shards):
        table = pyarrow.parquet.read_table(folder / "out" / f"part-{i:05d}.parquet")
        shards = set(table.column("shard").to_pylist())
        assert shards == {str(folder / "shards" / f"{i:05d}.tar")}, (i, shards)
        rows = table.drop_columns(["shard"])
        assert rows.num_rows == size, i
        assert rows.equals(first.setdefault(i % DISTINCT, rows)), i
        n_rows += rows.num_rows
    return n_rows


def write_page(page: Path, folder: Path, n_shards: int, size: int, n_rows: int) -> None:
    found = runs(folder)
    n_kills = sum(run["killed"] for run in found)
    lines = [
        f"# {n_rows:,} images, measured",
        "",
        f"`python benchmarks/million.py --n {n_shards * size} --shard {size}` writes this page: {n_shards} tar "
        f"archives of {size} EuroSAT photographs\nat {SIDE} pixels ({DISTINCT} different archives, repeated), the "
        f"backbone `{BACKBONE}`, {THREADS} threads of a shared machine, batches of {BATCH}.\n`predict --out` was "
        f"killed {n_kills} times by SIGKILL and repeated. All {n_rows:,} rows are there once, and all shards with the\n"
        "same images have the same rows, bit for bit.",
        "",
        "| run | ended | shards from before | shards finished | images/s | tower alone, images/s | of the tower's rate "
        "| CPU, ms/image | tower alone, CPU, ms/image | memory, first quarter | last quarter | change | most |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for i, run in enumerate(found, start=1):
        rss, rate = run["rss_mb"], run["images_per_second"]
        cells = [
            str(i),
            "killed" if run["killed"] else "finished",
            str(run["finished_before"]),
            str(run["shards"]),
            f"{rate:.0f}" if rate else "-",
            f"{run['tower']:.0f}",
            f"{rate / run['tower']:.2f}" if rate else "-",
            f"{run['cpu_ms']:.2f}" if rate else "-",
            f"{run['tower_cpu_ms']:.2f}",
            *(f"{rss[name]:.0f} MB" for name in ("first", "last")),
            f"{rss['last'] / rss['first'] - 1:+.1%}",
            f"{rss['most']:.0f} MB",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Memory is resident memory, sampled every second from the first finished shard of a run on; its quarters are "
        "those of that time. Rates\ncount from the first finished shard too, without starting and loading the model. "
        "The tower's rate is on pixels in memory, measured for\n20 seconds just before each run; where other programs "
        "use the machine, compare times of the processor, which count all threads.",
    ]
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
