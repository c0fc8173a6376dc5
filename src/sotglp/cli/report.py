"""``sotglp report``: a page about one model, or tables and figures of the results of ``sotglp benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from sotglp.cli import options
from sotglp.cli.inputs import inference_config
from sotglp.console.output import check_outputs
from sotglp.console.progress import note_loading
from sotglp.errors import SotglpError
from sotglp.images.columns import Columns
from sotglp.model_file.record import read_record

MODEL_SUFFIX = ".safetensors"


def report(
    subject: Annotated[
        Path,
        Argument(
            metavar="MODEL|RESULTS",
            help="A model file (.safetensors); or results.jsonl of `sotglp benchmark`, or the folder that holds it.",
        ),
    ],
    test: Annotated[
        Path | None,
        Argument(metavar="TEST", help="For a model: folder of class folders, or manifest, to evaluate it on."),
    ] = None,
    *,
    out: Annotated[
        Path, Option("--out", help="The page to write; for a benchmark, the folder for report.md and the rest.")
    ],
    ood: options.OodFolders = None,
    ood_method: options.OodMethod = None,
    temperature: options.Temperature = None,
    pretrained: options.Pretrained = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    workers: options.Workers = 0,
    batch_size: options.BatchSize = 32,
    skip_unreadable: options.SkipUnreadable = False,
    split: options.Split = None,
    path_column: options.PathColumn = None,
    label_column: options.LabelColumn = None,
    svg: Annotated[bool, Option("--svg", help="For a benchmark: write the figures as SVG, too.")] = False,
    force: Annotated[bool, Option("--force", help="Replace an earlier report.")] = False,
    json_file: options.JsonFile = None,
) -> None:
    """Write a report on a model as one page, or tables and figures of the results of a benchmark.

    [bold]Example[/bold]: sotglp report birds.safetensors photos/test --ood photos/no_birds --out birds.html

    [bold]Example[/bold]: sotglp report results --out report

    The page of a model is one file that needs no network. For a benchmark, the tables are in report.md, in tables.tex
    for papers, and in tables.csv, one row per cell, for programs.
    """
    if subject.suffix.lower() == MODEL_SUFFIX:
        if svg:
            raise SotglpError(
                "--svg is for the report of a benchmark: leave it out, the page of a model has its figures"
            )
        if test is None:
            raise SotglpError(
                f"{subject} is a model: give labelled images to evaluate it on, as in `sotglp report {subject} "
                f"photos/test --out {out}`"
            )
        check_outputs({"--json": json_file}, {"--out": out}, force=force)
        inference = inference_config(
            read_record(subject),
            ood_method,
            temperature,
            batch_size=batch_size,
            workers=workers,
            precision=precision,
        )
        note_loading()
        from sotglp.cli.report_model import report_model

        columns = Columns(split, path_column, label_column)
        report_model(
            subject, test, columns, ood or [], out, inference, pretrained, device, skip_unreadable, force, json_file
        )
        return
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
        "--split": split is not None,
        "--path-column": path_column is not None,
        "--label-column": label_column is not None,
    }
    for name, is_given in of_model.items():
        if is_given:
            raise SotglpError(
                f"{name} is for the report of a model, but {subject} isn't a {MODEL_SUFFIX} file: leave it out, or "
                "give a model file first"
            )
    note_loading("matplotlib", "matplotlib")
    from sotglp.cli.report_benchmark import report_benchmark

    report_benchmark(subject, out, svg=svg, force=force, json_file=json_file)
