"""``sotglp benchmark``: compare methods on datasets, cell by cell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from sotglp.benchmark.cells import Plan, plan_cells
from sotglp.benchmark.results import RESULTS_FILE
from sotglp.benchmark.suite import BackboneChoice, Suite, load_suite
from sotglp.cli import options
from sotglp.cli.inputs import cache_folder
from sotglp.console.output import check_outputs, emit
from sotglp.console.progress import note_loading
from sotglp.console.table import counted
from sotglp.datasets import data_root
from sotglp.engines import EngineConfig
from sotglp.errors import SotglpError

FAILED = 1


def benchmark(
    suite_name: Annotated[
        str, Argument(metavar="SUITE", help="Name of a suite (`sotglp info --suites`) or a YAML file.")
    ],
    out: Annotated[
        Path | None, Option("--out", metavar="DIR", help="Folder of the results; a run continues there.")
    ] = None,
    root: options.DataRoot = None,
    backbone: Annotated[
        str | None, Option(help="Backbone instead of the suite's; photo and tiny ship with the package.")
    ] = None,
    pretrained: Annotated[
        str | None, Option(help="Its weights: a tag, a file, none, or auto for the usual ones.")
    ] = None,
    methods: Annotated[
        str | None, Option(help="Methods instead of the suite's, separated by commas (`sotglp info --methods`).")
    ] = None,
    shots: Annotated[str | None, Option(help="Numbers of shots instead of the suite's, such as 1,4,16.")] = None,
    seeds: Annotated[str | None, Option(help="Seeds instead of the suite's, such as 1,2,3.")] = None,
    processes: options.Processes = None,
    engine: options.Engine = "local",
    ray_address: options.RayAddress = None,
    dry_run: Annotated[bool, Option("--dry-run", help="List the runs and their settings, and run nothing.")] = False,
    device: options.Device = "auto",
    cache_dir: options.CacheDir = None,
    no_cache: options.NoCache = False,
    json_file: options.JsonFile = None,
) -> None:
    """Compare methods on datasets; an interrupted run continues, and finished cells are not run again.

    [bold]Example[/bold]: sotglp benchmark few-shot --root data --out results --processes 2

    On a Ray cluster: sotglp benchmark few-shot --root data --out results --engine ray --ray-address 10.0.0.1:6379

    `sotglp report results --out report` writes the tables and figures.
    """
    suite = _with_backbone(load_suite(suite_name), backbone, pretrained)
    suite = suite.changed(
        None if methods is None else [name.strip() for name in methods.split(",")],
        _numbers("--shots", shots),
        _numbers("--seeds", seeds),
    ).resolved()
    plans = plan_cells(suite)
    run_on = EngineConfig(engine, processes, ray_address, use_gpus=device != "cpu")
    if dry_run:
        check_outputs({"--json": json_file})
        emit(
            _dry_lines(suite, plans), {"suite": suite.model_dump(), "cells": [_cell(plan) for plan in plans]}, json_file
        )
        return
    if out is None:
        raise SotglpError("there is no folder for the results: give --out DIR, or --dry-run to run nothing")
    check_outputs({"--json": json_file}, {"--out": out / RESULTS_FILE}, force=True)
    features_dir = cache_folder(cache_dir, no_cache)
    note_loading()
    from sotglp.benchmark.runner import RunConfig, run_suite

    run_config = RunConfig(suite, data_root(root), features_dir, device)
    run = run_suite(run_config, out, engine=run_on, show_progress=True)
    n_new = len(run.results) - run.n_before
    lines = [
        f"{out / RESULTS_FILE}: {len(run.results)} of {counted(len(plans), 'cell')}, {n_new} of them new",
        *(f"failed: {label}: {reason}" for label, reason in run.failed.items()),
    ]
    results = [result.model_dump() for result in run.results]
    emit(lines, {"results": results, "n_before": run.n_before, "failed": run.failed}, json_file)
    if run.failed:
        raise typer.Exit(FAILED)


def _with_backbone(suite: Suite, name: str | None, pretrained: str | None) -> Suite:
    """Return the suite with another backbone or other weights, if they are given."""
    if name is None and pretrained is None:
        return suite
    start = suite.backbone if name is None else BackboneChoice(name=name)
    changed = start if pretrained is None else start.model_copy(update={"pretrained": pretrained})
    return suite.model_copy(update={"backbone": changed})


def _numbers(option: str, text: str | None) -> list[int] | None:
    """Read whole numbers that are separated by commas."""
    if text is None:
        return None
    least = 1 if option == "--shots" else 0
    numbers = [int(part) if part.strip().isdecimal() and len(part) < 20 else -1 for part in text.split(",")]
    if min(numbers) < least:
        raise SotglpError(f"{option} {text!r:.100} can't be used: give whole numbers from {least}, such as 1,2,4")
    return numbers


def _dry_lines(suite: Suite, plans: list[Plan]) -> list[str]:
    """List the settings of each method on each dataset, and the number of cells."""
    lines = [
        f"suite {suite.name}: protocol {suite.protocol}, backbone {suite.backbone.name} ({suite.backbone.pretrained}), "
        f"shots {_listed(suite.shots)}, seeds {_listed(suite.seeds)}; {counted(len(plans), 'cell')}"
    ]
    seen = set()
    for plan in plans:
        name = plan.cell.dataset, plan.cell.method
        if name in seen:
            continue
        seen.add(name)
        settings = {**plan.model.model_dump(), **plan.training.model_dump(exclude={"shots", "seed"})}
        lines.append(f"{name[0]}, {name[1]}")
        lines.append(f"    zero_shot_template={suite.preset(name[0]).zero_shot_template!r}")
        lines += [f"    {name}={value}" for name, value in settings.items() if name != "zero_shot_template"]
    return lines


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def _cell(plan: Plan) -> dict[str, Any]:
    return {
        "cell": plan.cell.model_dump(),
        "settings": {"model": plan.model.model_dump(), "training": plan.training.model_dump()},
    }
