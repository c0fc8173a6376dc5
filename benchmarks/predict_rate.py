"""Images a second of `predict` with the model of photos, decoding included: `python benchmarks/predict_rate.py`.

Beside the tower alone on pixels in memory, with its own layers and with torch's, decoding alone, and the exported
models. Each runs in its own process on two threads; rounds of all take turns, so that a machine whose speed varies
treats them alike, and the best round counts. Writes docs/predict_rate.md.
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
from typing import NamedTuple

import torch
from torch import Tensor

from sotglp import Backbone

DOCS = Path(__file__).parent.parent / "docs"
DATASET = "pacs_photo"
THREADS = 2
BATCH = 32
KINDS = {
    "tower": "tower alone, pixels in memory, one batch per core",
    "together": "the same, all cores on each batch",
    "plain": "the same with torch's own layers, all cores on each batch",
    "decode": "decoding alone",
    "torch": "`predict`, files",
    "onnx": "ONNX, files",
    "int8": "ONNX int8, files",
}


class Speed(NamedTuple):
    """Images a second, and milliseconds of the processor an image."""

    rate: float
    cpu: float


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
        speeds: dict[str, list[Speed]] = {kind: [] for kind in KINDS}
        for _ in range(chosen.rounds):
            for kind, found in speeds.items():
                command = [sys.executable, __file__, "--data", str(chosen.data), "--measure", kind, name]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found.append(Speed(*json.loads(done.stdout.splitlines()[-1])))
                print(kind, *(f"{value:.1f}" for value in found[-1]), flush=True)
    best = {
        kind: Speed(max(one.rate for one in found), min(one.cpu for one in found)) for kind, found in speeds.items()
    }
    write_page(best, chosen.rounds)


def make_models(folder: Path, data: Path) -> None:
    """Write a model file with its backbone, and both exports."""
    from shared_sets import fit_shared, load_shared
    from sotglp.export.onnx_file import export_model
    from sotglp.model_file.save import save_model

    train = load_shared(data, DATASET).train
    model = fit_shared(Backbone.load("photo"), train, 1).model
    save_model(folder / "torch.safetensors", model, include_backbone=True)
    for kind in ("onnx", "int8"):
        export_model(folder / f"{kind}.onnx", model, check=train, int8=kind == "int8")


def measured(kind: str, folder: Path, data: Path) -> Speed:
    """Speed over the test photos, after a first batch that warms up."""
    files = sorted((data / DATASET / "test").glob("*/*.jpg"))
    runs = {
        "tower": tower_run,
        "together": together_run,
        "plain": plain_run,
        "decode": decode_run,
        "torch": torch_run,
    }
    run = runs.get(kind, onnx_run)(folder / f"{kind}.onnx")
    run(files[:BATCH])
    start, start_cpu = time.perf_counter(), time.process_time()
    run(files)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    return Speed(len(files) / seconds, 1000 * cpu_seconds / len(files))


def plain_run(path: Path) -> Callable[[list[Path]], object]:
    """:func:`together_run` with the layers that timm and open_clip build."""
    from sotglp.backbone import photo

    photo.fuse_activations = lambda trunk: None
    photo.FrozenLinear = lambda layer: layer
    return together_run(path)


def decode_run(_: Path) -> Callable[[list[Path]], object]:
    """Decode and resize the files, one after the other."""
    from sotglp.images.decode import open_image

    preprocess = Backbone.load("photo").preprocess
    return lambda files: [preprocess(open_image(file)) for file in files]


def tower_run(_: Path) -> Callable[[list[Path]], object]:
    """Encode as many random pixels as there are files, each core a batch."""
    from sotglp.engines.threads import map_on_cores

    encode, pixels, device = tower()
    return lambda files: list(map_on_cores(encode, (pixels[: len(files) - at] for at in starts(files)), device))


def together_run(_: Path) -> Callable[[list[Path]], object]:
    """Encode as many random pixels as there are files, all cores one batch."""
    encode, pixels, _ = tower()
    return lambda files: [encode(pixels[: len(files) - at]) for at in starts(files)]


def tower() -> tuple[Callable[[Tensor], object], Tensor, torch.device]:
    """The tower, a batch of random pixels, and the device."""
    torch.set_num_threads(THREADS)
    backbone = Backbone.load("photo")
    generator = torch.Generator().manual_seed(0)
    return (
        torch.no_grad()(backbone.encode_image),
        torch.randn(BATCH, 3, *backbone.image_size, generator=generator),
        backbone.device,
    )


def starts(files: list[Path]) -> range:
    """Where the batches of the files start."""
    return range(0, len(files), BATCH)


def torch_run(file: Path) -> Callable[[list[Path]], object]:
    """Predict from files as `sotglp predict --no-cache` does."""
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


def write_page(speeds: dict[str, Speed], rounds: int) -> None:
    tower, together, decode, ours = (speeds[kind] for kind in ("tower", "together", "decode", "torch"))
    lines = [
        "# Rate of predictions, measured",
        "",
        f"`benchmarks/predict_rate.py` writes this page: `photo` fitted to {DATASET}, its test photos, {THREADS} "
        f"threads, the best of {rounds} rounds that\ntake turns. The machine was shared: images/s depend on what other "
        "programs did at that time, so compare CPU times, of all threads. The processor has "
        f"{torch.backends.cpu.get_cpu_capability()}.",
        "",
        "| | CPU, ms/image | of the tower's | images/s |",
        "|---|---:|---:|---:|",
    ]
    lines += [
        f"| {title} | {speeds[kind].cpu:.1f} | {speeds[kind].cpu / tower.cpu:.2f} | {speeds[kind].rate:.1f} |"
        for kind, title in KINDS.items()
    ]
    lines += [
        "",
        "`predict` encodes one batch per core, while a thread decodes the next ones. Where all cores are "
        "busy, the rate is one over the CPU\ntime of an image, so `predict` can reach "
        f"{tower.cpu:.1f} / {ours.cpu:.1f} = {tower.cpu / ours.cpu:.2f} of the tower's rate: decoding takes "
        f"{decode.cpu:.1f} ms of the same cores, comparing with the\nclasses and collecting batches "
        f"{max(ours.cpu - tower.cpu - decode.cpu, 0):.1f} ms. Measured, it has {ours.rate / tower.rate:.2f} of that "
        f"rate, and {ours.rate / together.rate:.2f} of the rate of cores that share each batch.",
    ]
    (DOCS / "predict_rate.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
