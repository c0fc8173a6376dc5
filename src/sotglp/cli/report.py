"""``sotglp report``: a page about one model, or tables and pictures of what ``sotglp benchmark`` measured."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sotglp.cli import options
from sotglp.console.output import check_result_file, say, write_json
from sotglp.errors import SotglpError, SotglpWarning

if TYPE_CHECKING:
    from sotglp.benchmark.results import Result

MODEL_SUFFIX = ".safetensors"

REPORT, LONG_FORM, LATEX = "report.md", "tables.csv", "tables.tex"

PICTURES = {
    "accuracy_shots": "Accuracy against shots",
    "accuracy_auroc": "Accuracy against AUROC of out-of-distribution detection",
    "time_accuracy": "Accuracy against the time of a fit",
}
"""Names of the pictures without their endings, and what they show."""


def report(
    subject: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL|RESULTS",
            help="A model file (.safetensors); or results.jsonl of `sotglp benchmark`, or the folder that holds it.",
        ),
    ],
    test: Annotated[
        Path | None,
        typer.Argument(metavar="TEST", help="Of a model: folder of class folders, or manifest, to measure it on."),
    ] = None,
    *,
    out: Annotated[
        Path, typer.Option("--out", help="The page to write; of a benchmark, the folder for report.md and the rest.")
    ],
    ood: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Folder of images of none of the classes (repeat for more)."),
    ] = None,
    ood_method: options.OodMethod = None,
    temperature: options.Temperature = None,
    pretrained: options.Pretrained = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    workers: options.Workers = 0,
    batch_size: options.BatchSize = 32,
    skip_unreadable: options.SkipUnreadable = False,
    svg: Annotated[bool, typer.Option("--svg", help="Of a benchmark: write the pictures as SVG, too.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier report.")] = False,
    json_file: options.Json = None,
    debug: options.Debug = False,
) -> None:
    """Show what a model is worth on one page, or make tables and pictures of a benchmark's results.

    [bold]Example[/bold]: sotglp report birds.safetensors photos/test --ood photos/no_birds --out birds.html

    [bold]Example[/bold]: sotglp report results --out report

    The page of a model is one file that needs no network. Of a benchmark, tables are in report.md to read, in
    tables.tex for papers and in tables.csv, a line a cell, for programs.
    """
    check_result_file(json_file)
    of_model = {
        "a second argument": test is not None,
        "--ood": bool(ood),
        "--ood-method": ood_method is not None,
        "--temperature": temperature is not None,
        "--pretrained": pretrained is not None,
        "--device": device != "auto",
        "--precision": precision != "auto",
        "--workers": workers != 0,
        "--batch-size": batch_size != 32,
        "--skip-unreadable": skip_unreadable,
    }
    if subject.suffix.lower() != MODEL_SUFFIX:
        for name, is_given in of_model.items():
            if is_given:
                raise SotglpError(
                    f"{name} is for the report of a model, and {subject} is no {MODEL_SUFFIX} file: leave it out, or "
                    "give a model file first"
                )
        _report_benchmark(subject, out, svg=svg, force=force, json_file=json_file)
        return
    if svg:
        raise SotglpError("--svg is for the report of a benchmark: leave it out, the page of a model has its pictures")
    if test is None:
        raise SotglpError(
            f"{subject} is a model: give labelled images to measure it on, too, as in `sotglp report {subject} "
            f"photos/test --out {out}`"
        )
    from sotglp.cli.model_report import Wanted, report_model
    from sotglp.model_file.record import read_record

    told = read_record(subject).calibration
    inference = options.inference_config(batch_size, workers, precision, ood_method, temperature, told)
    wanted = Wanted(subject, test, tuple(ood or ()), out, pretrained, device, skip_unreadable, force, json_file)
    report_model(wanted, inference)


def _report_benchmark(results_path: Path, out: Path, *, svg: bool, force: bool, json_file: str | None) -> None:
    from sotglp.benchmark.render import to_csv, to_latex, to_markdown, to_text
    from sotglp.benchmark.results import latest, read
    from sotglp.benchmark.runner import RESULTS_FILE
    from sotglp.benchmark.table import long_rows, tables
    from sotglp.files.atomic import check_output, write_file

    path = results_path / RESULTS_FILE if results_path.is_dir() else results_path
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
    endings = (".png", ".svg") if svg else (".png",)
    for name in (REPORT, LONG_FORM, LATEX, *(f"{name}{ending}" for name in PICTURES for ending in endings)):
        check_output(out / name, force=force)
    made = tables(results)
    pictures = _draw(results, out, endings, force)
    contents = {
        LONG_FORM: to_csv(long_rows(results)),
        LATEX: "\n".join(["% needs \\usepackage{booktabs}", "", *map(to_latex, made)]),
        REPORT: "\n".join([*_head(results, pictures), *map(to_markdown, made)]),
    }
    for name, content in contents.items():
        write_file(out / name, partial(_write, content), force=force)
    held = f"{out / REPORT} holds {_counted(len(made), 'table')} and {_counted(len(pictures), 'picture')}"
    for line in [*to_text(made[0]).split("\n"), "", held]:
        say(line, json_target=json_file)
    if json_file:
        files = sorted([*contents, *(f"{name}{ending}" for name in pictures for ending in endings)])
        told = {"results": str(path), "n_cells": len(results), "out": str(out), "files": files}
        write_json(json_file, {**told, "tables": [asdict(table) for table in made]})


def _check(path: Path, results: Sequence[Result]) -> None:
    """Refuse results that no table can be made of."""
    if not results:
        raise SotglpError(f"{path} holds no results: run `sotglp benchmark` first")
    backbones = sorted({f"{_backbone(result)} of weights {_weights(result)}" for result in results})
    if len(backbones) > 1:
        raise SotglpError(
            f"{path} holds results of several backbones, {' and '.join(backbones)}, which don't compare: give each a "
            "folder of its own in `sotglp benchmark`"
        )


def _backbone(result: Result) -> str:
    about = result.backbone
    size = " x ".join(map(str, about.get("image_size", ())))
    return f"{about.get('name')} ({about.get('pretrained')}, images {size})"


def _weights(result: Result) -> str:
    """The beginning of the fingerprint, which tells weights apart."""
    return str(result.backbone.get("fingerprint"))[:19]


def _draw(results: Sequence[Result], out: Path, endings: Sequence[str], force: bool) -> list[str]:
    """Names of the pictures that there is something for."""
    from sotglp.benchmark.plots import accuracy_by_auroc, accuracy_by_shots, accuracy_by_time
    from sotglp.benchmark.table import FEW_SHOT
    from sotglp.console.figures import save_figure

    few_shot = [result for result in results if result.cell.protocol == FEW_SHOT]
    drawn = []
    for name, draw in zip(PICTURES, (accuracy_by_shots, accuracy_by_auroc, accuracy_by_time), strict=True):
        figure = draw(few_shot) if few_shot else None
        if figure is not None:
            for ending in endings:
                save_figure(figure, out / f"{name}{ending}", force=force)
            drawn.append(name)
    return drawn


def _head(results: Sequence[Result], pictures: Sequence[str]) -> list[str]:
    """What the report is of, and its pictures."""
    from sotglp.benchmark.render import markdown_text

    def named(values: Iterable[object]) -> str:
        return ", ".join(sorted(set(map(str, values))))

    backbone = f"{markdown_text(_backbone(results[0]))}, weights {_weights(results[0])}"
    versions = named(f"{name} {number}" for result in results for name, number in result.versions.items())
    return [
        f"# Results of {markdown_text(named(result.cell.suite for result in results))}",
        "",
        f"{_counted(len(results), 'cell')} on the backbone {backbone}. Computed by {versions}.",
        "",
        f"Each cell with all of its numbers is in [{LONG_FORM}]({LONG_FORM}); [{LATEX}]({LATEX}) has these tables for "
        "LaTeX.",
        "",
        *(f"![{PICTURES[name]}]({name}.png)\n" for name in pictures),
    ]


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _write(content: str, path: Path) -> None:
    path.write_bytes(content.encode())
