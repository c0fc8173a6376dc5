"""What each backbone is and costs: `python benchmarks/backbones.py`.

Sizes of every architecture that can be adapted come from its shapes alone, without memory for its weights. Some are
built with random weights as well, each in its own process, and encode random images. Writes
docs/backbones_measured.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import open_clip
import torch

from sotglp import SOTGLP, Backbone
from sotglp.backbone.weights import architecture_config, supported_backbones, weight_shapes
from sotglp.benchmark.protocols import peak_memory_mb, reset_peak_memory

MEASURED = ("tiny", "photo", "RN50", "ViT-B-32", "ViT-B-16", "RN50x4", "ViT-L-14", "ViT-L-14-336")
IMAGES = 8
REPEATS = 5
N_CLASSES = 20
RESNET_STRIDE = 32
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
DOCS = Path(__file__).parent.parent / "docs"


def sizes(name: str) -> dict[str, int]:
    """Side of the input, patches, width of a patch token, joint size and parameters."""
    vision = architecture_config(name)["vision_cfg"]
    side = int(vision["image_size"])
    shapes = weight_shapes(name, side)
    is_resnet = isinstance(vision["layers"], list)
    joint = shapes["text_projection"][1]
    return {
        "side": side,
        "patches": (side // (RESNET_STRIDE if is_resnet else vision["patch_size"])) ** 2,
        "width": joint if is_resnet else shapes["visual.ln_post.weight"][0],
        "joint": joint,
        "parameters": sum(shape.numel() for key, shape in shapes.items() if not key.endswith(BUFFERS)),
        # Four bytes each: the projection, 3 global prompts and 4 local ones of each class, 4 vectors each.
        "learned": shapes["text_projection"][0] * 4 * (3 + 4 * N_CLASSES)
        + (joint if is_resnet else shapes["visual.ln_post.weight"][0]) ** 2,
    }


@torch.no_grad()
def measure(name: str) -> dict[str, float]:
    """Speed of encoding and of a training step, and the peak of this process meanwhile."""
    torch.set_num_threads(1)
    backbone = Backbone.load(name)
    images = torch.randn(IMAGES, 3, *backbone.image_size, generator=torch.Generator().manual_seed(0))
    model = SOTGLP(backbone, [f"class number {index}" for index in range(N_CLASSES)])

    def step() -> None:
        with torch.enable_grad():
            model.loss(images, torch.arange(IMAGES)).total.backward()

    reset_peak_memory()
    seconds, peak = _fastest(lambda: backbone.encode_image(images), REPEATS), peak_memory_mb()
    reset_peak_memory()
    step_seconds, step_peak = _fastest(step, 2), peak_memory_mb()
    return {
        "images_per_second": IMAGES / seconds,
        "megabytes": peak,
        "step_seconds": step_seconds,
        "step_megabytes": step_peak,
    }


def _fastest(work: Callable[[], object], times: int) -> float:
    """Processor seconds of the quickest run, which other work on the machine hardly changes; the first warms up."""
    seconds = []
    for _ in range(times + 1):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds[1:])


def written(all_sizes: dict[str, dict[str, int]], measured: dict[str, dict[str, float]]) -> str:
    lines = [
        "# Backbones, measured",
        "",
        "`benchmarks/backbones.py` writes this file. Random weights, float32, one thread of a shared machine that had",
        "other work to do, so processor time is counted;",
        f"torch {torch.__version__}, open_clip {open_clip.__version__}.",
        "",
        f"Encoding: images/s of one core and the peak of the whole process, {IMAGES} images at once, the best of",
        f"{REPEATS}. Step: one training step of {IMAGES} images and {N_CLASSES} classes with everything re-encoded,",
        "the better of two.",
        "",
        "| backbone | images/s | MiB to encode | seconds a step | MiB for a step |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| `{name}` | {one['images_per_second']:.1f} | {one['megabytes']:,.0f} | {one['step_seconds']:.1f} | "
        f"{one['step_megabytes']:,.0f} |"
        for name, one in measured.items()
    ]
    lines += [
        "",
        "## Sizes of all",
        "",
        f"What is learned is counted for {N_CLASSES} classes, with four context vectors a prompt, 3 global and 4 local "
        "prompts, and the projection; a model file holds it in float32.",
        "",
        "| backbone | input, px | patches | patch width W | joint size d | parameters, millions | learned, millions |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| `{name}` | {one['side']} | {one['patches']} | {one['width']} | {one['joint']} | "
        f"{one['parameters'] / 1e6:,.1f} | {one['learned'] / 1e6:.2f} |"
        for name, one in sorted(all_sizes.items(), key=lambda item: item[1]["parameters"])
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", help="measure this one alone, and print it as JSON")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    measured = {}
    for name in MEASURED:
        command = [sys.executable, __file__, "--one", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        measured[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, measured[name], flush=True)
    all_sizes = {name: sizes(name) for name in supported_backbones()}
    (DOCS / "backbones_measured.md").write_text(written(all_sizes, measured))


if __name__ == "__main__":
    main()
