"""The page of scale.py: what was measured, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sotglp.files.atomic import write_file

Found = Mapping[str, Mapping[str, Any]]
STAGES = ("read", "decode", "encode", "compare", "write")
COUNTS = {"1 M": 1e6, "100 M": 1e8, "10 G": 1e10}
MANY_CLASSES = (1000, 5000, 20_000)
STEPS, SHOTS, BATCH = 100, 16, 32
NETWORKS = {"1 Gbit/s": 125e6, "10 Gbit/s": 1.25e9}

HEAD = """# From a laptop to a cluster: costs and predictions

`python benchmarks/scale.py --data ../shared/data` wrote this page from `docs/scale.jsonl`. Tables under *Measured*
are CPU seconds of one thread (AMD EPYC, Zen 5, torch with oneDNN), medians of three rounds after one that does not
count; the machine was shared, so single values may be off by a tenth or two. Tables under *Extrapolated* follow
from them by the formulas above them and were not run.
"""

PREDICTIONS = """
## Predictions

### Measured

Milliseconds of one core an image, JPEG photos of pacs_photo (227 x 227 pixels, {size:.0f} KB), 10 classes, SOT-GLP,
Parquet rows:

| backbone | images | {stages} | sum | images/s of a core |
|---|---:|{rules}---:|---:|
{rows}

*Read* is from the page cache of the operating system; a network store adds its own waiting time, which overlaps
with encoding but is not part of this table.

### Extrapolated

Images are independent of one another, so N images take N c / (p e) seconds on p cores, where c is the sum above and
e the share of a core that is not idle. The table has e = 1; how much of the
tower's rate `predict` reaches on two threads is [measured](predict_rate.md), with a newer tower of `photo`.

| backbone | images | core hours | hours on 64 cores | hours on 1,000 cores | read |
|---|---:|---:|---:|---:|---:|
{predicted}

**GPUs**: no rate of a GPU was measured (`benchmarks/gpu.py` measures it). With r images/s on each of g GPUs, N
images take N / (g r) seconds as long as the other stages keep up: feeding one GPU takes r d cores, where d is read
and decode together, {feed}.
"""

FITS = """
## Fits

### Measured

CPU seconds of one core for a step of 32 images with stored features, forward and backward, M = 3, N = 4, K = 10,
ImageNet's first class names. The text depends on the classes alone, the head on images and classes:

| backbone | classes | text | scores, transport and losses |
|---|---:|---:|---:|
{steps}

### Extrapolated

Least-squares lines through these rows:

{lines}

Before oneDNN, steps of 500 and 1,000 classes were measured too and linear within 7 %; beyond, the slope is an
assumption. A fit has about {n_steps} steps by default, which show {shown:,} images. An epoch of {shots} shots has
{shots} C / {batch} steps for C classes, so it costs C squared:

| backbone | classes | s of a step | core hours of {n_steps} steps | core hours of an epoch of {shots} shots |
|---|---:|---:|---:|---:|
{fits}
"""

PROCESSES = """
## Processes that share the classes

### Measured

Each process encodes the text of its share of the classes. In a step, processes sum text features, their gradients,
and the gradients of the parameters. Bytes of these tensors, counted in the fit loop for two processes:

| backbone | classes | MB a step | KB of a class | fixed MB |
|---|---:|---:|---:|---:|
{exchanged}

### Extrapolated

A ring all-reduce sends 2 (p - 1) / p times these B bytes from each process, and p processes save (p - 1) / p of the
text's seconds t. So p cancels: exchange pays where t > 2 B / bandwidth, if each process has its own cores. With q
cores in each process, t is q times smaller and the bandwidth q times larger. Processes on one machine whose threads
already use all cores save nothing.

| backbone | classes | s of the text on a core | {networks} | bandwidth at which it pays |
|---|---:|---:|{network_rules}---:|
{pays}

Latency, which was not measured, is not in this table: a step has nine sums. So at 1 Gbit/s and one core in each
process, sharing the classes of ViT-B/16 pays from the smallest numbers of classes on, and that of `photo` from some
tens of classes on.
"""


def write_report(found: Found, path: Path) -> None:
    """Write the page of the rows by "kind backbone classes"."""
    text = HEAD + _predictions(found) + _fits(found) + _processes(found)
    write_file(path, lambda beside: beside.write_text(text, encoding="utf-8"), force=True)


def _predictions(found: Found) -> str:
    rows, predicted, feed = [], [], []
    backbones = {name.split()[1]: row for name, row in found.items() if name.startswith("stages")}
    for name, row in backbones.items():
        seconds = row["seconds"]
        cost = sum(seconds.values())
        cells = [name, row["images"], *(f"{1000 * seconds[stage]:.2f}" for stage in STAGES)]
        rows.append(_row(*cells, f"{1000 * cost:.1f}", f"{1 / cost:.1f}"))
        for title, count in COUNTS.items():
            hours = count * cost / 3600
            parts = (_digits(hours / cores) for cores in (1, 64, 1000))
            predicted.append(_row(name, title, *parts, f"{_digits(count * row['bytes'] / 1e12)} TB"))
        feed.append(f"{1000 * (seconds['read'] + seconds['decode']):.1f} ms for {name}")
    return PREDICTIONS.format(
        size=next(iter(backbones.values()))["bytes"] / 1000,
        stages=" | ".join(STAGES),
        rules="---:|" * len(STAGES),
        rows="\n".join(rows),
        predicted="\n".join(predicted),
        feed=", ".join(feed),
    )


def _fits(found: Found) -> str:
    steps, fits, lines = [], [], []
    for name in _backbones(found, "step"):
        for n_classes, row in _of(found, "step", name).items():
            steps.append(_row(name, n_classes, f"{row['text']:.2f}", f"{row['head']:.3f}"))
        text, head = (_line(found, name, part) for part in ("text", "head"))
        lines.append(f"- {name}: {1000 * text[0]:.1f} ms of text and {1000 * head[0]:.2f} ms of the rest a class")
        for n_classes in MANY_CLASSES:
            seconds = float(np.polyval(text, n_classes) + np.polyval(head, n_classes))
            hours = (_digits(seconds * n / 3600) for n in (STEPS, SHOTS * n_classes / BATCH))
            fits.append(_row(name, f"{n_classes:,}", f"{seconds:,.1f}", *hours))
    join = "\n".join
    sizes = {"n_steps": STEPS, "shown": STEPS * BATCH, "shots": SHOTS, "batch": BATCH}
    return FITS.format(steps=join(steps), fits=join(fits), lines=join(lines), **sizes)


def _processes(found: Found) -> str:
    exchanged, pays = [], []
    for name in _backbones(found, "exchanged"):
        rows = _of(found, "exchanged", name)
        per_class, fixed = np.polyfit(list(rows), [row["bytes"] for row in rows.values()], 1)
        for n_classes, row in rows.items():
            cells = (f"{row['bytes'] / 1e6:.2f}", f"{per_class / 1e3:.1f}", f"{fixed / 1e6:.2f}")
            exchanged.append(_row(name, n_classes, *cells))
        text = _line(found, name, "text")
        for n_classes in (20, 100, *MANY_CLASSES):
            seconds, n_bytes = float(np.polyval(text, n_classes)), fixed + per_class * n_classes
            waits = (f"{2 * n_bytes / rate:.3f} s" for rate in NETWORKS.values())
            cells = (f"{seconds:.1f}", *waits, f"{2 * n_bytes / seconds / 1e6:.1f} MB/s")
            pays.append(_row(name, f"{n_classes:,}", *cells))
    return PROCESSES.format(
        exchanged="\n".join(exchanged),
        pays="\n".join(pays),
        networks=" | ".join(f"2 B at {name}" for name in NETWORKS),
        network_rules="---:|" * len(NETWORKS),
    )


def _digits(value: float) -> str:
    """Return a number with two digits at least."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _backbones(found: Found, kind: str) -> list[str]:
    return list(dict.fromkeys(name.split()[1] for name in found if name.startswith(f"{kind} ")))


def _of(found: Found, kind: str, backbone: str) -> dict[int, Mapping[str, Any]]:
    """Rows of a kind and backbone by their number of classes."""
    return {int(name.split()[2]): row for name, row in found.items() if name.startswith(f"{kind} {backbone} ")}


def _line(found: Found, backbone: str, part: str) -> np.ndarray:
    """Slope and intercept of the seconds of a step against the classes."""
    rows = _of(found, "step", backbone)
    line: np.ndarray = np.polyfit(list(rows), [row[part] for row in rows.values()], 1)
    return line
