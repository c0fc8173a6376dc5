"""The table and the plot of speed.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import open_clip
import torch

from sotglp.files.atomic import write_file


class Row(NamedTuple):
    """A measured part of a step: classes, images of a batch, whether the activation is QuickGELU, and the processor.

    ``vectors`` is what torch calls the processor's capability: sotglp's products differ between AVX2 and AVX512.
    """

    part: str
    classes: int
    batch: int
    quick_gelu: bool = False
    vectors: str = "AVX512"

    def is_named(self, names: Sequence[str]) -> bool:
        """Return whether one of the names, PART or PART:CLASSES, is this row's."""
        return self.part in names or f"{self.part}:{self.classes}" in names


Found = dict[Row, dict[str, Any]]

PARTS = {
    "text": "text, forward and backward",
    "head": "local and global head, transport, losses, forward and backward",
    "image": "image features and patch tokens",
    "step": "whole step, images re-encoded",
    "stored": "whole step, stored features",
}
COLUMNS = (
    "part | processor | activation | classes | images | threads",
    "s | plain, s | times faster | MKL, s | times faster | MiB | plain, MiB | times smaller",
)
HEAD = """# Speed and memory of a step

`python benchmarks/speed.py` wrote this page from `docs/speed.jsonl`. {backbone}, random weights, float32, torch
{torch}, open_clip {open_clip}; M = 3, N = 4, K = 10; ImageNet's first class names. *Plain* is `benchmarks/plain.py`:
77 tokens, all patches, dense tensors, autograd alone. *MKL* is ours with PyTorch's own matrix products. All took
turns in one process for each row. Seconds are CPU seconds, which other work on the machine disturbs least; times are
medians (of one where a run is long), threads are PyTorch's in the process that measured the row, and memory is the
peak above the loaded model. "Plain" beside stored features is the plain step that encodes its images again. OpenAI's
weights use QuickGELU. The processors are an AMD EPYC with AVX-512 (Zen 5) and one with AVX2 alone (Zen 3), where ours
uses PyTorch's own products too; compare rows of one processor.

![Seconds and memory of a step against the number of classes](pictures/speed.png)

"""
FOOT = """
The plain text of 100 classes runs in groups of 50 classes, because 24 GiB do not hold it at once. It was not
run with 500 and 1000 classes.

"""
CHANGES = """
## What changed, and what did not pay

On AMD processors, MKL, which PyTorch calls for float32 products, reaches less than half of what oneDNN does: 105
against 240 GFLOP/s on one thread of a Zen 5. The frozen linear layers of open_clip's text tower and ViT use oneDNN
there (`sotglp.backbone.blocks`). With AVX2 alone (Zen 3) MKL is the faster one: 95 against 81 GFLOP/s in the learned
projection, 94 against 64 in its gradient, and the image tower of `photo` takes 12 to 18 % longer with oneDNN; so
PyTorch's own products stay. Before and after took turns in one process on one thread of the Zen 5 (medians of CPU
seconds of 2 to 4 rounds):

| | before | now | times faster |
|---|---:|---:|---:|
| text, forward and backward, 20 classes, GELU | 1.30 | 0.71 | 1.88 |
| text, forward and backward, 20 classes, QuickGELU | 1.23 | 0.63 | 1.99 |
| text, forward and backward, 100 classes, GELU | 7.24 | 3.74 | 1.94 |
| image features and patch tokens, 8 images, GELU | 3.26 | 1.87 | 1.75 |
| image features and patch tokens, 8 images, QuickGELU | 3.14 | 1.66 | 1.86 |

QuickGELU as SiLU, its factor in the norm, the biases and the sum, is 1.06 times of that by itself (20 classes) and
needs two thirds of the memory. With 100 classes, one buffer for the gradients of query, key and value changed nothing
(1.00 times), and chunks of 2 GiB or 256 MiB instead of 512 MiB were slower (0.94 times each), so none of them is in
the code. Queries of the last block for [EOT] alone and the first block's input projection once for each class name
would save 0.7 % and 1.3 % of the products; neither they nor `torch.compile` were tried.

The aims beside the plain way at 100 classes were 20 times for the text, 8 for the whole step and 25 with stored
features; the table has 29.6, 11.3 and 28.1, and 6.4 times less memory. Before oneDNN, 14.8, 7.9 and 20.0 times were
measured (wall-clock seconds, number of threads not recorded). A step of 1,000 classes with stored features took 56 s
and 4.2 GiB then.
"""


def write_report(found: Found, backbone: str, docs: Path) -> None:
    """Write docs/speed.md and docs/pictures/speed.png from the rows."""
    columns = " | ".join(COLUMNS)
    head = f"| {columns} |\n|{'---|' * (columns.count('|') + 1)}\n"
    versions = {"torch": torch.__version__, "open_clip": open_clip.__version__}
    text = HEAD.format(backbone=backbone, **versions) + head + "".join(_rows(found)) + FOOT
    text += "\n".join(_sentences(found)) + "\n" + _differences(found) + CHANGES
    write_file(docs / "speed.md", lambda beside: beside.write_text(text, encoding="utf-8"), force=True)
    _plot(found, docs / "pictures" / "speed.png")


def _rows(found: Found) -> list[str]:
    lines = []
    for part, title in PARTS.items():
        for key, row in found.items():
            if key.part != part and not (part == "stored" and key.part == "step"):
                continue
            ours = row["stored"] if part == "stored" and key.part == "step" else row["ours"]
            cells = [
                title,
                key.vectors,
                _activation(key) if part != "head" else "-",
                "-" if part == "image" else key.classes,
                "-" if part == "text" else key.batch,
                row["threads"],
                f"{ours['seconds']:.2f}",
                *_beside(ours, row.get("plain"), "seconds", ".2f"),
                *_beside(ours, row.get("torch"), "seconds", ".2f"),
                f"{ours['MiB']:.0f}",
                *_beside(ours, row.get("plain"), "MiB", ".0f"),
            ]
            lines.append(f"| {' | '.join(map(str, cells))} |\n")
    return lines


def _activation(key: Row) -> str:
    return "QuickGELU" if key.quick_gelu else "GELU"


def _beside(ours: dict[str, float], other: dict[str, float] | None, what: str, digits: str) -> tuple[str, str]:
    if other is None:
        return "-", "-"
    return f"{other[what]:{digits}}", f"{other[what] / ours[what]:.1f}"


def _sentences(found: Found) -> list[str]:
    lines = []
    for key, row in found.items():
        if "operations" in row:
            rate = row["operations"] / row["ours"]["seconds"]
            what = f"{key.batch} images" if key.part == "image" else f"the text of {key.classes} classes"
            lines.append(
                f"- {what}, {_activation(key)}, {key.vectors}: {rate / 1e9:.0f} GFLOP/s in matrix products, "
                f"{rate / row['peak']:.0%} of {row['peak'] / 1e9:.0f} (product of two 2048 x 2048 matrices)."
            )
        if "open_clip" in row:
            ratio = row["open_clip"]["seconds"] / row["ours"]["seconds"]
            lines.append(
                f"- {key.batch} images with patch tokens, {_activation(key)}, {key.vectors}: {ratio:.2f} of the "
                "images/s of open_clip's encode_image."
            )
        if key.part == "evaluation":
            lines.append(
                f"- Evaluation of {row['rows']} stored rows against {key.classes} classes, {key.vectors}: "
                f"{row['seconds']:.0f} s, {row['rows'] / row['seconds']:.0f} images/s, {row['MiB']:.0f} MiB."
            )
    return lines


def _differences(found: Found) -> str:
    row = next((row for row in found.values() if "differences" in row), None)
    if row is None:
        return ""
    lines = [f"| {what} | {value:.1e} |\n" for what, value in row["differences"].items()]
    head = "\nLargest relative difference between ours and plain, 20 classes:\n\n| | |\n|---|---|\n"
    return head + "".join(lines)


def _plot(found: Found, path: Path) -> None:
    matplotlib.use("agg")
    from matplotlib import pyplot

    points: dict[str, list[tuple[int, float, float]]] = {"ours": [], "plain": []}
    steps = [key for key in found if key.batch == 32 and key.part in ("step", "stored") and not key.quick_gelu]
    processors = [key.vectors for key in steps]
    vectors = max(processors, key=processors.count, default="")
    for key in steps:
        row = found[key]
        if key.vectors != vectors:
            continue
        ours = row["stored" if key.part == "step" else "ours"]
        points["ours"].append((key.classes, ours["seconds"], ours["MiB"] / 1024))
        if "plain" in row:
            points["plain"].append((key.classes, row["plain"]["seconds"], row["plain"]["MiB"] / 1024))
    if not points["ours"]:  # no step is measured yet
        return
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    looks = {
        "ours": {"color": "#0072b2", "marker": "o", "label": "sotglp, stored features"},
        "plain": {"color": "#d55e00", "marker": "s", "label": "plain, images re-encoded"},
    }
    for column, (axis, label) in enumerate(
        zip(axes, ("CPU seconds a step", "GiB above the loaded model"), strict=True)
    ):
        for name, look in looks.items():
            n_classes = [point[0] for point in points[name]]
            axis.plot(n_classes, [point[1 + column] for point in points[name]], **look)
        first = points["ours"][0]
        line = [first[1 + column] * n / first[0] for n in (20, 1000)]
        axis.plot((20, 1000), line, ":", color="grey", label="linear in classes")
        axis.set(xscale="log", yscale="log", xlabel="classes", ylabel=label)
        axis.grid(alpha=0.3, which="both")
    axes[0].legend()
    figure.suptitle(f"A training step of 32 images on one CPU core ({vectors})")
    figure.savefig(path, dpi=120)
