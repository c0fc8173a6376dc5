"""Time of a fit and of encoding beside programs that keep the cores busy: `python benchmarks/waiting_threads.py`.

Threads of OpenMP spin while they wait if torch is imported before sotglp, and don't if it is imported after it. Each
case runs in its own process; the two orders of imports take turns, with and without `--busy` processes beside them.
Appends a row for each run to `--rows`, so that an interrupted measurement can be resumed, and writes
docs/waiting_threads.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
DATASET = "pacs_photo"
THREADS = 2
BUSY = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"
KINDS = {
    "photo-fit": "`photo`: fit of 7 classes x 2 shots, 10 epochs",
    "vit-encode": "ViT-B/16, random weights: encode 8 images",
    "vit-fit": "ViT-B/16, random weights: fit of 7 classes x 1 shot, 1 epoch",
}
ORDERS = {"torch-first": "import torch, sotglp", "sotglp-first": "import sotglp, torch"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", type=int, default=2, help="processes beside the measured one")
    parser.add_argument("--rows", type=Path, default=Path("waiting_threads.jsonl"))
    parser.add_argument("--measure", nargs=2, metavar=("KIND", "ORDER"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        print(measured(*chosen.measure, chosen.data))
        return
    found = read_rows(chosen.rows)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment["OMP_NUM_THREADS"] = str(THREADS)
    for number in range(chosen.rounds):
        for kind in KINDS:
            for busy in (0, chosen.busy):
                for order in ORDERS:
                    if len(found[kind, busy, order]) > number:
                        continue
                    command = [sys.executable, __file__, "--data", str(chosen.data), "--measure", kind, order]
                    with busy_cores(busy):
                        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
                    seconds = float(done.stdout.splitlines()[-1])
                    found[kind, busy, order].append(seconds)
                    row = {"kind": kind, "busy": busy, "order": order, "seconds": seconds}
                    with chosen.rows.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(row, flush=True)
    write_page(found, chosen.busy)


def read_rows(file: Path) -> dict[tuple[str, int, str], list[float]]:
    """Seconds of the runs so far by case, number of busy processes, and order of imports."""
    found = defaultdict(list)
    for line in file.read_text().splitlines() if file.exists() else []:
        row = json.loads(line)
        found[row["kind"], row["busy"], row["order"]].append(row["seconds"])
    return found


@contextmanager
def busy_cores(number: int) -> Iterator[None]:
    """Keep some cores busy."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(number)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measured(kind: str, order: str, data: Path) -> float:
    """Seconds of one case, without imports and loading."""
    for name in ("torch", "sotglp") if order == "torch-first" else ("sotglp", "torch"):
        import_module(name)
    import torch

    import sotglp
    from shared_sets import settings_of
    from sotglp.images.image_set import ImageSet
    from sotglp.settings import ModelConfig
    from sotglp.training.fit import adapt

    train = ImageSet.from_path(data / DATASET / "train")
    if kind == "photo-fit":
        backbone = sotglp.Backbone.load("photo")
        changes = {"shots": 2, "epochs": 10}
    else:
        torch.manual_seed(0)
        backbone = sotglp.Backbone.load("ViT-B-16", None)
        changes = {"shots": 1, "epochs": 1, "views": 1}
    config = settings_of(backbone, 1).model_copy(update=changes)
    pixels = torch.randn(8, 3, *backbone.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        backbone.encode_image(pixels[:1])
    start = time.perf_counter()
    if kind == "vit-encode":
        with torch.no_grad():
            backbone.encode_image(pixels)
    else:
        adapt(backbone, train, ModelConfig(), config)
    return time.perf_counter() - start


def write_page(found: dict[tuple[str, int, str], list[float]], busy: int) -> None:
    lines = [
        "# Threads that spin while they wait, measured",
        "",
        "`benchmarks/waiting_threads.py` writes this page: seconds on 2 threads, median (least to most) of "
        "runs that take turns,\non 2 cores that other measurements share. "
        "If torch is imported before sotglp, its threads spin while they "
        "wait; if it is\nimported after it, `OMP_WAIT_POLICY=PASSIVE` is set.",
        "",
        "| case | busy processes beside it | " + " | ".join(ORDERS.values()) + " | ratio of medians | runs of each |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for kind, title in KINDS.items():
        for others in (0, busy):
            runs = [found[kind, others, order] for order in ORDERS]
            cells = [f"{statistics.median(own):.1f} ({min(own):.1f} to {max(own):.1f})" for own in runs]
            ratio = statistics.median(runs[0]) / statistics.median(runs[1])
            lines.append(f"| {title} | {others} | {cells[0]} | {cells[1]} | {ratio:.2f} | {min(map(len, runs))} |")
    (DOCS / "waiting_threads.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
