"""Tables and figures of the results of ``sotglp benchmark`` for ``sotglp report``."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from sotglp.benchmark.curves import training_by_epoch
from sotglp.benchmark.plots import accuracy_by_auroc, accuracy_by_shots, accuracy_by_time
from sotglp.benchmark.results import RESULTS_FILE, Result, latest, read
from sotglp.benchmark.table import markdown_text, to_csv, to_latex, to_markdown, to_text
from sotglp.benchmark.tables import FEW_SHOT, long_rows, tables
from sotglp.console.figures import save_figure
from sotglp.console.output import check_outputs, emit
from sotglp.console.table import counted
from sotglp.errors import SotglpError, SotglpWarning
from sotglp.files.atomic import write_file

REPORT, LONG_FORM, LATEX = "report.md", "tables.csv", "tables.tex"

FIGURES = {
    "accuracy_shots": ("Accuracy by shots", accuracy_by_shots),
    "accuracy_auroc": ("Accuracy by AUROC of OOD detection", accuracy_by_auroc),
    "time_accuracy": ("Accuracy by time of a fit", accuracy_by_time),
    "training_epochs": ("Loss and accuracy on the shots by epoch", training_by_epoch),
}
"""Title and function of each figure, by file name without suffix."""


def report_benchmark(results_path: Path, out: Path, *, svg: bool, force: bool, json_file: str | None) -> None:
    """Write tables and figures of results into a folder."""
    path = results_path / RESULTS_FILE if os.path.isdir(results_path) else results_path
    everything = read(path)
    results = latest(everything)
    _check(path, results)
    if n_replaced := len(everything) - len(results):
        warnings.warn(
            f"{n_replaced} of the {len(everything)} results are left out, since their cells were run again later with "
            "other settings, images or weights",
            SotglpWarning,
            stacklevel=2,
        )
    suffixes = (".png", ".svg") if svg else (".png",)
    names = [REPORT, LONG_FORM, LATEX, *(name + suffix for name in FIGURES for suffix in suffixes)]
    check_outputs({"--json": json_file}, {name: out / name for name in names}, force=force)
    made = tables(results)
    figures = _draw(results, out, suffixes, force)
    contents = {
        LONG_FORM: to_csv(long_rows(results)),
        LATEX: "\n".join(["% needs \\usepackage{booktabs}", "", *map(to_latex, made)]),
        REPORT: "\n".join([*_head(results, figures), *map(to_markdown, made)]),
    }
    for name, content in contents.items():
        write_file(out / name, partial(_write, content), force=force)
    line = f"{out / REPORT}: {counted(len(made), 'table')} and {counted(len(figures), 'figure')}"
    files = sorted([*contents, *(name + suffix for name in figures for suffix in suffixes)])
    result = {"results": str(path), "n_cells": len(results), "out": str(out), "files": files}
    emit([*to_text(made[0]).split("\n"), "", line], {**result, "tables": [asdict(table) for table in made]}, json_file)


def _check(path: Path, results: Sequence[Result]) -> None:
    """Refuse results that don't form one table."""
    if not results:
        raise SotglpError(f"{path} holds no results: run `sotglp benchmark` first")
    backbones = sorted({f"{_backbone(result)} of weights {_weights(result)}" for result in results})
    if len(backbones) > 1:
        raise SotglpError(
            f"{path} holds results of several backbones, {' and '.join(backbones)}, which can't be compared: give each "
            "its own folder in `sotglp benchmark`"
        )


def _backbone(result: Result) -> str:
    about = result.backbone
    size = " x ".join(map(str, about.get("image_size", ())))
    return f"{about.get('name')} ({about.get('pretrained')}, images {size})"


def _weights(result: Result) -> str:
    """Return the beginning of the fingerprint."""
    return str(result.backbone.get("fingerprint"))[:19]


def _draw(results: Sequence[Result], out: Path, suffixes: Sequence[str], force: bool) -> list[str]:
    """Write the figures that the results are enough for, and return their names."""
    few_shot = [result for result in results if result.cell.protocol == FEW_SHOT]
    drawn = []
    for name, (_, draw) in FIGURES.items():
        figure = draw(few_shot) if few_shot else None
        if figure is not None:
            for suffix in suffixes:
                save_figure(figure, out / f"{name}{suffix}", force=force)
            drawn.append(name)
    return drawn


def _head(results: Sequence[Result], figures: Sequence[str]) -> list[str]:
    def named(values: Iterable[object]) -> str:
        return ", ".join(sorted(set(map(str, values))))

    backbone = f"{markdown_text(_backbone(results[0]))}, weights {_weights(results[0])}"
    versions = named(f"{name} {number}" for result in results for name, number in result.versions.items())
    return [
        f"# Results of {markdown_text(named(result.cell.suite for result in results))}",
        "",
        f"{counted(len(results), 'cell')} on the backbone {backbone}. Computed by {versions}.",
        "",
        f"Each cell with all of its numbers is in [{LONG_FORM}]({LONG_FORM}); [{LATEX}]({LATEX}) has these tables for "
        "LaTeX.",
        "",
        *(f"![{FIGURES[name][0]}]({name}.png)\n" for name in figures),
    ]


def _write(content: str, path: Path) -> None:
    path.write_bytes(content.encode())
