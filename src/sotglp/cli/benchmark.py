"""``sotglp benchmark``: methods compared on datasets, cell by cell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sotglp.cli import options
from sotglp.console.output import check_result_file, say, write_json
from sotglp.errors import SotglpError

if TYPE_CHECKING:
    from sotglp.benchmark.cells import Plan
    from sotglp.benchmark.suite import Suite

FAILED = 1


def benchmark(
    suite_name: Annotated[
        str, typer.Argument(metavar="SUITE", help="Name of a suite (`sotglp info --suites`) or a YAML file.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of the results; a run goes on there.")
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option("--root", metavar="DIR", help="Folder of the datasets; if not given, $SOTGLP_DATA or data."),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Backbone in place of the suite's; tiny lies in the package.")
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="Its weights, if not those that go with it (auto): a tag, a file, or none.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes that share the cells.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would run with which settings.")] = False,
    device: options.Device = "auto",
    cache_dir: options.CacheDir = None,
    no_cache: options.NoCache = False,
    json_file: options.Json = None,
    debug: options.Debug = False,
) -> None:
    """Compare methods on datasets: every cell is run once, and a run that was stopped goes on.

    [bold]Example[/bold]: sotglp benchmark few-shot --root data --out results --processes 2

    Tables and plots come from `sotglp report results --out report`.
    """
    from sotglp.benchmark.cells import plan_cells
    from sotglp.benchmark.suite import load_suite
    from sotglp.datasets import data_root as root_of

    check_result_file(json_file)
    suite = _with_backbone(load_suite(suite_name), backbone, pretrained)
    plans = plan_cells(suite)
    if dry_run:
        for line in _dry_lines(suite, plans):
            say(line, json_target=json_file)
        if json_file:
            write_json(json_file, {"suite": suite.model_dump(), "cells": [_told(plan) for plan in plans]})
        return
    if out is None:
        raise SotglpError("there is no place for the results: give --out DIR, or --dry-run to run nothing")
    from sotglp.benchmark.runner import RESULTS_FILE, Setting, run_suite

    setting = Setting(suite, root_of(data_root), options.cache_folder(cache_dir, no_cache), device)
    run = run_suite(setting, out, n_processes=processes, show_progress=True)
    n_run = len(run.results) - run.n_before
    say(
        f"{out / RESULTS_FILE}: {len(run.results)} of {len(plans)} cells, {n_run} of them run now",
        json_target=json_file,
    )
    for label, reason in run.failed.items():
        say(f"failed: {label}: {reason}", json_target=json_file)
    if json_file:
        results = [result.model_dump() for result in run.results]
        write_json(json_file, {"results": results, "n_before": run.n_before, "failed": run.failed})
    if run.failed:
        raise typer.Exit(FAILED)


def _with_backbone(suite: Suite, name: str | None, pretrained: str | None) -> Suite:
    """The suite on another backbone, or with other weights, where they are given."""
    from sotglp.benchmark.suite import BackboneChoice

    if name is None and pretrained is None:
        return suite
    start = suite.backbone if name is None else BackboneChoice(name=name)
    changed = start if pretrained is None else start.model_copy(update={"pretrained": pretrained})
    return suite.model_copy(update={"backbone": changed})


def _dry_lines(suite: Suite, plans: list[Plan]) -> list[str]:
    """What would run: one line for each method on each dataset, and how many cells there are."""
    lines = [
        f"suite {suite.name}: protocol {suite.protocol}, backbone {suite.backbone.name} ({suite.backbone.pretrained}), "
        f"shots {_listed(suite.shots)}, seeds {_listed(suite.seeds)}; {len(plans)} cells"
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


def _told(plan: Plan) -> dict[str, Any]:
    return {
        "cell": plan.cell.model_dump(),
        "settings": {"model": plan.model.model_dump(), "training": plan.training.model_dump()},
    }
