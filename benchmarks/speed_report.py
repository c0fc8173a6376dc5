"""The table and the plot of speed.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import open_clip
import torch

from sotglp.files.atomic import write_file

Found = dict[str, dict[str, Any]]

PARTS = {
    "text": "text, forward and backward",
    "head": "local and global head, transport, losses, forward and backward",
    "image": "image features and patch tokens",
    "step": "whole step, images re-encoded",
    "stored": "whole step, stored features",
}
HEAD = """# Speed and memory of a step

`python benchmarks/speed.py` wrote this page. {backbone}, random weights, float32, {threads} threads, torch {torch},
open_clip {open_clip}; M = 3, N = 4, K = 10; ImageNet's first class names. *Plain* is `benchmarks/plain.py`: 77 tokens,
all patches, dense tensors, autograd alone. Both took turns in one process for each row; times are medians (of one where
a run is long), memory is the peak above the loaded model. "Plain" beside stored features is the plain step that encodes
its images again.

![Seconds and memory of a step against the number of classes](pictures/speed.png)

| part | classes | images | seconds | plain | times faster | MiB | plain | times smaller |
|---|---|---|---|---|---|---|---|---|
"""
FOOT = """
The plain text of 100 classes runs in groups of 50 classes, because 24 GiB do not hold it at once. It was not
run with 500 and 1000 classes.

"""


def write_report(found: Found, backbone: str, docs: Path) -> None:
    """Write docs/speed.md and docs/pictures/speed.png from the rows by "part classes batch"."""
    threads, versions = torch.get_num_threads(), {"torch": torch.__version__, "open_clip": open_clip.__version__}
    text = HEAD.format(backbone=backbone, threads=threads, **versions) + "".join(_rows(found)) + FOOT
    text += "\n".join(_sentences(found)) + "\n\n" + _differences(found)
    write_file(docs / "speed.md", lambda beside: beside.write_text(text, encoding="utf-8"), force=True)
    _plot(found, docs / "pictures" / "speed.png")


def _rows(found: Found) -> list[str]:
    lines = []
    for part, title in PARTS.items():
        for name, row in found.items():
            of, n_classes, batch = name.split()
            if of != part and not (part == "stored" and of == "step"):
                continue
            ours = row["stored"] if part == "stored" and of == "step" else row["ours"]
            n_images = "-" if part == "text" else batch
            n_classes = "-" if part == "image" else n_classes
            lines.append(f"| {title} | {n_classes} | {n_images} | {_beside(ours, row.get('plain'))} |\n")
    return lines


def _beside(ours: dict[str, float], plain: dict[str, float] | None) -> str:
    if plain is None:
        return f"{ours['seconds']:.2f} | - | - | {ours['MiB']:.0f} | - | -"
    faster, smaller = plain["seconds"] / ours["seconds"], plain["MiB"] / ours["MiB"]
    return (
        f"{ours['seconds']:.2f} | {plain['seconds']:.2f} | {faster:.1f} | "
        f"{ours['MiB']:.0f} | {plain['MiB']:.0f} | {smaller:.1f}"
    )


def _sentences(found: Found) -> list[str]:
    lines = []
    for name, row in found.items():
        part, n_classes, batch = name.split()
        if "operations" in row:
            rate = row["operations"] / row["ours"]["seconds"]
            what = f"{batch} images" if part == "image" else f"the text of {n_classes} classes"
            lines.append(
                f"- {what}: {rate / 1e9:.0f} GFLOP/s in matrix products, {rate / row['peak']:.0%} of "
                f"{row['peak'] / 1e9:.0f} (product of two 2048 x 2048 matrices)."
            )
        if "open_clip" in row:
            ratio = row["open_clip"]["seconds"] / row["ours"]["seconds"]
            lines.append(
                f"- {batch} images with patch tokens: {ratio:.2f} of the images/s of open_clip's encode_image."
            )
        if part == "evaluation":
            lines.append(
                f"- Evaluation of {row['rows']} stored rows against {n_classes} classes: {row['seconds']:.0f} s, "
                f"{row['rows'] / row['seconds']:.0f} images/s, {row['MiB']:.0f} MiB."
            )
    return lines


def _differences(found: Found) -> str:
    row = next(row for row in found.values() if "differences" in row)
    lines = [f"| {what} | {value:.1e} |\n" for what, value in row["differences"].items()]
    head = "Largest relative difference between ours and plain, 20 classes:\n\n| | |\n|---|---|\n"
    return head + "".join(lines)


def _plot(found: Found, path: Path) -> None:
    matplotlib.use("agg")
    from matplotlib import pyplot

    points: dict[str, list[tuple[int, float, float]]] = {"ours": [], "plain": []}
    for name, row in found.items():
        part, n_classes, batch = name.split()
        if batch != "32" or part not in ("step", "stored"):
            continue
        ours = row["stored" if part == "step" else "ours"]
        points["ours"].append((int(n_classes), ours["seconds"], ours["MiB"] / 1024))
        if "plain" in row:
            points["plain"].append((int(n_classes), row["plain"]["seconds"], row["plain"]["MiB"] / 1024))
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    looks = {
        "ours": {"color": "#0072b2", "marker": "o", "label": "sotglp, stored features"},
        "plain": {"color": "#d55e00", "marker": "s", "label": "plain, images re-encoded"},
    }
    for column, (axis, label) in enumerate(zip(axes, ("seconds a step", "GiB above the loaded model"), strict=True)):
        for name, look in looks.items():
            n_classes = [point[0] for point in points[name]]
            axis.plot(n_classes, [point[1 + column] for point in points[name]], **look)
        first = points["ours"][0]
        line = [first[1 + column] * n / first[0] for n in (20, 1000)]
        axis.plot((20, 1000), line, ":", color="grey", label="linear in classes")
        axis.set(xscale="log", yscale="log", xlabel="classes", ylabel=label)
        axis.grid(alpha=0.3, which="both")
    axes[0].legend()
    figure.suptitle("A training step of 32 images on two CPU cores")
    figure.savefig(path, dpi=120)
