"""Images a second of `predict` with the model of photos, decoding included: `python benchmarks/predict_rate.py`.

Beside the tower alone on pixels in memory, and the exported models. Each runs in its own process on two threads; rounds
of all take turns, so that a machine whose speed varies treats them alike, and the best round counts. Writes
docs/predict_rate.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
DATASET = "pacs_photo"
THREADS = 2
BATCH = 32
KINDS = {
    "tower": "tower alone, pixels in memory",
    "torch": "`predict`, files",
    "onnx": "ONNX, files",
    "int8": "ONNX int8, files",
}


def main() -> None:
    """Fit and export a model, measure all kinds and write the page; or, as a child, measure one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        print(json.dumps(measured(chosen.measure[0], Path(chosen.measure[1]), chosen.data)))
        return
    # As the command line has it: threads that spin lose wherever another program wants the processor.
    os.environ |= {"OMP_NUM_THREADS": str(THREADS), "OMP_WAIT_POLICY": "PASSIVE"}
    with tempfile.TemporaryDirectory() as name:
        make_models(Path(name), chosen.data)
        rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for _ in range(chosen.rounds):
            for kind, found in rates.items():
                command = [sys.executable, __file__, "--data", str(chosen.data), "--measure", kind, name]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found.append(json.loads(done.stdout.splitlines()[-1]))
                print(kind, f"{found[-1]:.1f}", flush=True)
    write_page({kind: max(found) for kind, found in rates.items()}, chosen.rounds)


def make_models(folder: Path, data: Path) -> None:
    """Write a model file with its backbone, and both exports."""
    from shared_sets import fit_shared, load_shared
    from sotglp import Backbone
    from sotglp.export.onnx_file import export_model
    from sotglp.model_file.save import save_model

    train = load_shared(data, DATASET).train
    model = fit_shared(Backbone.load("photo"), train, 1).model
    save_model(folder / "torch.safetensors", model, include_backbone=True)
    for kind in ("onnx", "int8"):
        export_model(folder / f"{kind}.onnx", model, check=train, int8=kind == "int8")


def measured(kind: str, folder: Path, data: Path) -> float:
    """Images a second over the test photos, after a first batch that warms up."""
    files = sorted((data / DATASET / "test").glob("*/*.jpg"))
    run = {"tower": tower_run, "torch": torch_run}.get(kind, onnx_run)(folder / f"{kind}.onnx")
    run(files[:BATCH])
    start = time.perf_counter()
    run(files)
    return len(files) / (time.perf_counter() - start)


def tower_run(_: Path) -> Callable[[list[Path]], object]:
    """Encode as many random pixels as there are files."""
    import torch

    from sotglp import Backbone

    torch.set_num_threads(THREADS)
    backbone = Backbone.load("photo")
    pixels = torch.randn(BATCH, 3, *backbone.image_size, generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def run(files: list[Path]) -> object:
        return [backbone.encode_image(pixels[: len(files) - at]) for at in range(0, len(files), BATCH)]

    return run


def torch_run(file: Path) -> Callable[[list[Path]], object]:
    """Predict from files as `sotglp predict --no-cache` does."""
    import torch

    from sotglp.images.image_set import ImageSet
    from sotglp.model_file.load import load_model
    from sotglp.scoring.predict import predict
    from sotglp.settings import InferenceConfig

    torch.set_num_threads(THREADS)
    model, record, _ = load_model(file.with_suffix(".safetensors"))
    inference = InferenceConfig(ood_method=record.score[0])
    return lambda files: predict(model, ImageSet(tuple(files)), inference)


def onnx_run(file: Path) -> Callable[[list[Path]], object]:
    """Predict from files with the exported model."""
    from sotglp.runtime import PortableModel

    model = PortableModel.load(file, threads=THREADS)
    return lambda files: model.predict(files, batch_size=BATCH)


def write_page(rates: dict[str, float], rounds: int) -> None:
    lines = [
        "# Rate of predictions, measured",
        "",
        f"`benchmarks/predict_rate.py` writes this page: `photo` fitted to {DATASET}, its test photos, {THREADS} "
        f"threads of a shared machine,\nthe best of {rounds} rounds that take turns.",
        "",
        "| | images/s | of the tower's rate | of `predict` |",
        "|---|---:|---:|---:|",
    ]
    lines += [
        f"| {title} | {rates[kind]:.1f} | {rates[kind] / rates['tower']:.2f} | {rates[kind] / rates['torch']:.2f} |"
        for kind, title in KINDS.items()
    ]
    (DOCS / "predict_rate.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
