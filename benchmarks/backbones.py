"""What backbones cost: `python -m benchmarks.backbones` measures each in its own process, with random weights.

A row is appended to --rows as soon as it is measured, and docs/backbones_measured.md is written from the rows so far:
an interrupted run continues when it is repeated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch

from sotglp import SOTGLP, Backbone, SotglpError
from sotglp.benchmark.protocols import peak_memory_mb, reset_peak_memory

MEASURED = {
    "tiny": "ViT",
    "photo": "EfficientNet",
    "ViT-B-32": "ViT",
    "MobileCLIP2-S0": "FastViT",
    "RN50": "ResNet",
    "coca_ViT-B-32": "CoCa",
    "ViT-B-16": "ViT",
    "convnext_base": "ConvNeXt",
    "EVA02-B-16": "EVA02",
    "ViT-B-16-SigLIP2": "SigLIP",
    "ViTamin-S": "ViTamin",
    "PE-Core-S-16-384": "PE-Core",
    "timm:vit_small_patch16_dinov3": "DINOv3, without text",
    "RN50x4": "ResNet",
    "ViT-L-14": "ViT",
    "ViT-L-14-336": "ViT",
}
"""Architectures and their kinds, the cheap ones first."""

IMAGES = 8
REPEATS = 5
N_CLASSES = 20
DOCS = Path(__file__).parent.parent / "docs"


def measure(name: str) -> dict[str, Any]:
    """Sizes, speed of encoding and of a training step, and the peak of this process meanwhile."""
    torch.set_num_threads(1)
    backbone = Backbone.load(name)
    images = torch.randn(IMAGES, 3, *backbone.image_size, generator=torch.Generator().manual_seed(0))
    reset_peak_memory()
    with torch.no_grad():
        seconds = _fastest(lambda: backbone.encode_image(images), REPEATS)
    row = {
        "name": name,
        "side": backbone.image_size[0],
        "patches": backbone.n_patches,
        "patch_width": backbone.patch_width,
        "embed_dim": backbone.embed_dim,
        "parameters": sum(parameter.numel() for parameter in backbone.clip.parameters()),
        "images_per_second": IMAGES / seconds,
        "megabytes": peak_memory_mb(),
    }
    try:
        model = SOTGLP(backbone, [f"class number {index}" for index in range(N_CLASSES)])
    except SotglpError as error:  # it has no text, or its tokenizer isn't here
        print(f"no step of {name}: {error}", file=sys.stderr)
        return row
    reset_peak_memory()
    targets = torch.arange(IMAGES)
    step_seconds = _fastest(lambda: model.loss(images, targets).total.backward(), 2)
    learned = sum(parameter.numel() for parameter in model.learned)
    return {**row, "learned": learned, "step_seconds": step_seconds, "step_megabytes": peak_memory_mb()}


def _fastest(work: Callable[[], object], times: int) -> float:
    """Processor seconds of the quickest run, which other work on the machine changes little; the first warms up."""
    seconds = []
    for _ in range(times + 1):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds[1:])


def write_page(rows: Mapping[str, dict[str, Any]]) -> None:
    """Write the page of the rows so far."""
    (DOCS / "backbones_measured.md").write_text(written([rows[name] for name in MEASURED if name in rows]))


def written(rows: Sequence[dict[str, Any]]) -> str:
    """Return the page."""
    missing = [f"`{name}`" for name in MEASURED if name not in {row["name"] for row in rows}]
    header = (
        *("backbone", "image tower", "input, px", "patches", "W", "d", "parameters, millions", "images/s"),
        *("MiB to encode", "seconds a step", "MiB for a step", "learned, millions"),
    )
    lines = [
        "# Backbones, measured",
        "",
        "**Measured with random weights: sizes, speed and memory only. Nothing here describes accuracy.**",
        "",
        "`python -m benchmarks.backbones` writes this file. Float32, one thread of a shared machine that had other",
        "work to do, so processor time is counted;",
        f"torch {torch.__version__}, open_clip {open_clip.__version__}, timm {timm.__version__}.",
        "",
        f"Encoding: images/s of one core and the peak of the whole process, {IMAGES} images at once, the best of",
        f"{REPEATS}. Step: one training step of SOT-GLP with {IMAGES} images and {N_CLASSES} classes, everything",
        "re-encoded, the better of two; none without text, or without its tokenizer at hand. W is the width of a patch",
        f"token, d that of the joint space. What is learned, prompts and projection for {N_CLASSES} classes, is",
        "stored in a model file in float32. `sotglp info --backbones` lists sizes of all architectures.",
        *([f"Not measured yet: {', '.join(missing)}."] if missing else []),
        "",
        f"| {' | '.join(header)} |",
        f"|---|---|{'---:|' * (len(header) - 2)}",
    ]
    return "\n".join([*lines, *map(_line, rows)]) + "\n"


def _line(row: dict[str, Any]) -> str:
    cells = [f"`{row['name']}`", MEASURED[row["name"]]]
    cells += [str(row[key]) for key in ("side", "patches", "patch_width", "embed_dim")]
    cells += [f"{row['parameters'] / 1e6:.1f}", f"{row['images_per_second']:.1f}", f"{row['megabytes']:,.0f}"]
    if "step_seconds" in row:
        cells += [f"{row['step_seconds']:.2f}", f"{row['step_megabytes']:,.0f}", f"{row['learned'] / 1e6:.2f}"]
    else:
        cells += ["-"] * 3
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure what has no row yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", help="measure this one alone, and print it as JSON")
    parser.add_argument("--rows", type=Path, default=Path("backbone_rows.jsonl"), help="file of the rows")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    lines = arguments.rows.read_text().splitlines() if arguments.rows.exists() else []
    rows = {row["name"]: row for row in map(json.loads, lines)}
    for name in MEASURED:
        write_page(rows)
        if name in rows:
            continue
        command = [sys.executable, "-m", "benchmarks.backbones", "--one", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows[name] = json.loads(done.stdout.splitlines()[-1])
        with arguments.rows.open("a") as file:
            file.write(json.dumps(rows[name]) + "\n")
        print(rows[name], flush=True)
    write_page(rows)


if __name__ == "__main__":
    main()
