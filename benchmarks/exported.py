"""An exported model beside the model itself: `python benchmarks/exported.py`; writes docs/onnx_measured.md.

Size, speed, memory, agreement and accuracy. Speed is of pixels that are in memory already, in its own process for
each row, on two threads; rounds of all rows take turns, so that a machine whose speed varies treats them alike, and the
best round counts. (Not `onnx.py`: scripts lie on the path of what they import.)
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DOCS = Path(__file__).parent.parent / "docs"
THREADS = 2
ROUNDS = 2
SECONDS = 4.0
BATCHES = (1, 32)
KINDS = ("torch", "onnx", "int8")
TITLES = {"torch": "torch", "onnx": "ONNX", "int8": "ONNX, int8"}


def main() -> None:
    """Make both models, measure them and write the page; or, as a child, measure one and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--measure", nargs=3, metavar=("KIND", "FILE", "BATCH"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        kind, file, batch = chosen.measure
        print(json.dumps(measured(kind, Path(file), int(batch))))
        return
    # As the command line has it: threads that spin lose wherever another program wants the processor.
    os.environ |= {"OMP_NUM_THREADS": str(THREADS), "OMP_WAIT_POLICY": "PASSIVE"}
    with tempfile.TemporaryDirectory() as folder:
        small = fitted_on_photos(Path(folder) / "photo", chosen.data)
        large = large_at_random(Path(folder) / "ViT-B-16")
        speeds = {name: speed_rows(Path(folder) / name) for name in ("photo", "ViT-B-16")}
    write_page(small, large, speeds)


def fitted_on_photos(folder: Path, data: Path) -> dict[str, Any]:
    """The model of photos on the photos of PACS: sizes, differences, accuracy."""
    from shared_sets import fit_shared, load_shared
    from sotglp import Backbone

    photos = load_shared(data, "pacs_photo")
    model = fit_shared(Backbone.load("photo"), photos.train, 1).model
    hundred = photos.test.take([index * len(photos.test) // 100 for index in range(100)])
    about = written(folder, model, hundred)
    targets = photos.test.targets(model.class_names)
    from sotglp.runtime import PortableModel
    from sotglp.scoring.predict import predict

    about["accuracy"] = {"torch": float((predict(model, photos.test).probabilities.argmax(1) == targets).mean())}
    for kind in KINDS[1:]:
        predictions = PortableModel.load(folder / f"{kind}.onnx").predict(photos.test.images)
        about["accuracy"][kind] = float((predictions.label_indices == targets).mean())
    about["n_test"] = len(targets)
    return about


def large_at_random(folder: Path) -> dict[str, Any]:
    """ViT-B/16 with random weights and 100 classes: sizes, and differences on noise alone."""
    from sotglp import SOTGLP, Backbone

    model = SOTGLP(Backbone.load("ViT-B-16", "none"), [f"thing {number}" for number in range(100)])
    return written(folder, model, None)


def written(folder: Path, model: Any, check: Any) -> dict[str, Any]:
    """Write the model file and both exports; sizes in bytes, differences, seconds of an export."""
    from sotglp.export.onnx_file import export_model
    from sotglp.model_file.save import save_model

    folder.mkdir()
    save_model(folder / "torch.safetensors", model, include_backbone=True)
    about: dict[str, Any] = {"bytes": {"torch": (folder / "torch.safetensors").stat().st_size}, "exports": {}}
    for kind in KINDS[1:]:
        start = time.perf_counter()
        done = export_model(folder / f"{kind}.onnx", model, check=check, int8=kind == "int8")
        about["exports"][kind] = {"seconds": time.perf_counter() - start, "done": done}
        about["bytes"][kind] = done.n_bytes
    return about


def speed_rows(folder: Path) -> dict[tuple[str, int], dict[str, float]]:
    """Images a second and peak memory of each kind and batch, the best of ROUNDS rounds."""
    best: dict[tuple[str, int], dict[str, float]] = {}
    for _ in range(ROUNDS):
        for kind in KINDS:
            for batch in BATCHES:
                file = next(folder.glob(f"{kind}.*"))
                command = [sys.executable, __file__, "--measure", kind, str(file), str(batch)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                row = json.loads(done.stdout.splitlines()[-1])
                before = best.get((kind, batch), row)
                best[kind, batch] = {
                    "rate": max(row["rate"], before["rate"]),
                    "mebibytes": min(row["mebibytes"], before["mebibytes"]),
                }
                print(folder.name, kind, batch, row, flush=True)
    return best


def measured(kind: str, file: Path, batch: int) -> dict[str, float]:
    """Images a second of one kind, and the most memory that the whole process took."""
    run, size = torch_run(file) if kind == "torch" else onnx_run(file)
    pixels = np.random.default_rng(0).standard_normal((batch, 3, *size), dtype=np.float32)
    run(pixels)
    n_images, start = 0, time.perf_counter()
    while time.perf_counter() < start + SECONDS:
        run(pixels)
        n_images += batch
    rate = n_images / (time.perf_counter() - start)
    # Not getrusage, which includes the parent process.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"rate": rate, "mebibytes": int(status["VmHWM"].split()[0]) / 2**10}


def torch_run(file: Path) -> tuple[Callable[[Any], object], tuple[int, int]]:
    import torch

    from sotglp.features.rows import EncodedImages
    from sotglp.model_file.load import load_model
    from sotglp.scoring import ood

    torch.set_num_threads(THREADS)
    model, record, _ = load_model(file)
    method, temperature = record.score
    with torch.no_grad():
        text = model.encode_text()

    @torch.no_grad()
    def run(pixels: Any) -> object:
        encoded = EncodedImages(*model.backbone.encode_image(torch.from_numpy(pixels)))
        outputs = model.compare(encoded, text)
        score = ood.score_evidence(ood.Evidence(outputs, model, encoded), method, temperature)
        return model.probabilities(outputs), score

    return run, model.backbone.image_size


def onnx_run(file: Path) -> tuple[Callable[[Any], object], tuple[int, int]]:
    from sotglp.runtime import PortableModel

    model = PortableModel.load(file, threads=THREADS)
    return model.run, model.record.preprocessing.size


def write_page(small: dict[str, Any], large: dict[str, Any], speeds: dict[str, Any]) -> None:
    lines = [
        "# Exported models, measured",
        "",
        f"Written by `make onnx` on {platform.machine()}, {THREADS} threads, Python {platform.python_version()}. The "
        "model file counts with its backbone's weights in it. Memory is the peak of a process, libraries included.",
        "",
        "| backbone | runs in | file, MiB | images/s, one by one | images/s, by 32 | peak MiB, one by one | by 32 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, about in (("photo", small), ("ViT-B-16", large)):
        for kind in KINDS:
            one, many = (speeds[name][kind, batch] for batch in BATCHES)
            lines.append(
                f"| {name} | {TITLES[kind]} | {about['bytes'][kind] / 2**20:.1f} | {one['rate']:.1f} | "
                f"{many['rate']:.1f} | {one['mebibytes']:.0f} | {many['mebibytes']:.0f} |"
            )
    lines += [
        "",
        "Largest differences from the model; those of OOD scores above 1 are parts of the score.",
        "",
        "| backbone | runs in | images | probabilities | OOD score | maps | same label | seconds of an export |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, about in (("photo", small), ("ViT-B-16", large)):
        for kind, export in about["exports"].items():
            done = export["done"]
            apart = " | ".join(f"{value:.1e}" for value in done.differences.values())
            lines.append(
                f"| {name} | {TITLES[kind]} | {done.n_checked} | {apart} | {done.same_labels:.1%} | "
                f"{export['seconds']:.0f} |"
            )
    accuracy = ", ".join(f"{TITLES[kind]} {value:.1%}" for kind, value in small["accuracy"].items())
    lines += [
        "",
        f"Accuracy of `photo` on the {small['n_test']} test photos of 7 classes of PACS: {accuracy}. The images "
        "of the second table are 100 of these, and 8 of noise too where there are 108; ViT-B-16 has random weights, "
        "and saw noise alone.",
        "",
    ]
    (DOCS / "onnx_measured.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
