"""Run a suite cell by cell in several processes, and resume an interrupted run."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import torch

from sotglp.backbone import Backbone
from sotglp.backbone.precision import choose_device
from sotglp.benchmark.cells import Plan, cell_key, plan_cells
from sotglp.benchmark.data import BenchmarkData, load_data
from sotglp.benchmark.protocols import run_cell
from sotglp.benchmark.results import RESULTS_FILE, Result, append, read
from sotglp.benchmark.suite import BackboneChoice, DatasetChoice, Suite
from sotglp.console.progress import progress_bar
from sotglp.console.table import counted
from sotglp.engines import EngineConfig, run_tasks
from sotglp.errors import SotglpError
from sotglp.files.atomic import check_output
from sotglp.files.versions import installed_versions


@dataclass(frozen=True)
class RunConfig:
    """A suite, the root folder of its data, the folder of the feature cache (None disables it) and the device."""

    suite: Suite
    data_root: Path
    cache_dir: Path | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Run:
    """All results of a suite, how many existed before the run, and the reasons of failed cells."""

    results: list[Result]
    n_before: int
    failed: dict[str, str]


def run_suite(
    run_config: RunConfig, out: Path, *, engine: EngineConfig | None = None, show_progress: bool = False
) -> Run:
    """Run every cell of a suite that has no result yet, by default in this process.

    Each result is written as soon as its cell is finished; the same call resumes an interrupted run. A failed cell does
    not stop the others.
    """
    run_config = replace(run_config, suite=run_config.suite.resolved())
    keys = {_key(run_config, plan): plan for plan in plan_cells(run_config.suite)}
    path = out / RESULTS_FILE
    done = {result.key: result for result in read(path)} if os.path.exists(path) else {}
    check_output(path, force=True)
    n_before = sum(key in done for key in keys)
    failed = {}
    tasks = [_Task(plan, key) for key, plan in keys.items() if key not in done]
    with (
        progress_bar("benchmark", len(keys), "cells", show=show_progress) as advance,
        run_tasks(_Cells(run_config), tasks, engine or EngineConfig()) as results,
    ):
        advance(n_before, "")
        for index, result in results:
            label = _label(tasks[index].plan)
            if isinstance(result, SotglpError):
                failed[label] = str(result)
            else:
                append(path, result)
                done[result.key] = result
            advance(1, label)
    return Run([done[key] for key in keys if key in done], n_before, failed)


def _label(plan: Plan) -> str:
    cell = plan.cell
    return f"{cell.dataset}, {cell.method}, {counted(cell.shots, 'shot')}, seed {cell.seed}"


@dataclass(frozen=True)
class _Task:
    """A cell that has no result yet."""

    plan: Plan
    key: str

    def __str__(self) -> str:
        return f"the cell {_label(self.plan)}"


@dataclass(frozen=True)
class _Cells:
    """Sets up a process that runs cells."""

    run_config: RunConfig

    def __call__(self) -> Callable[[_Task], Result | SotglpError]:
        return self._run

    def _run(self, task: _Task) -> Result | SotglpError:
        """Return the result of a cell, or the reason why it failed, which doesn't stop the others."""
        try:
            return _run(self.run_config, task.plan, task.key)
        except SotglpError as error:
            return error


def _run(run_config: RunConfig, plan: Plan, key: str) -> Result:
    """Run one cell in this process."""
    backbone, data = _backbone_of(run_config, plan), _data_of(run_config, plan)
    outcome = run_cell(
        run_config.suite.protocol, backbone, data, plan.model, plan.training, cache_dir=run_config.cache_dir
    )
    return Result.model_validate(
        {
            "key": key,
            "cell": plan.cell.model_dump(),
            "metrics": outcome.metrics,
            "cost": {**outcome.cost, "threads": torch.get_num_threads()},
            "backbone": _backbone_record(backbone),
            "settings": {"model": plan.model.model_dump(), "training": plan.training.model_dump()},
            "versions": installed_versions(),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
    )


def _key(run_config: RunConfig, plan: Plan) -> str:
    digest = _digest(*_choice_of(run_config, plan))  # reports missing images before the backbone is loaded
    return cell_key(plan, _backbone_record(_backbone_of(run_config, plan)), digest)


def _backbone_record(backbone: Backbone) -> dict[str, Any]:
    return {
        "name": backbone.name,
        "pretrained": backbone.pretrained,
        "fingerprint": backbone.fingerprint,
        "image_size": list(backbone.image_size),
        "patch_attention": backbone.patch_attention,
    }


def _backbone_of(run_config: RunConfig, plan: Plan) -> Backbone:
    choice, own = run_config.suite.backbone, run_config.suite.methods[plan.cell.method].patch_attention
    return _load_backbone(
        choice if own is None else choice.model_copy(update={"patch_attention": own}), run_config.device
    )


def _data_of(run_config: RunConfig, plan: Plan) -> BenchmarkData:
    return _load_data(*_choice_of(run_config, plan))


def _choice_of(run_config: RunConfig, plan: Plan) -> tuple[str, str, Path]:
    """Hashable arguments that load a cell's dataset."""
    name = plan.cell.dataset
    return name, run_config.suite.datasets[name].model_dump_json(), run_config.data_root


@cache
def _load_backbone(choice: BackboneChoice, device: str) -> Backbone:
    return Backbone.load(
        choice.name,
        choice.pretrained,
        image_size=choice.image_size,
        device=choose_device(device),
        patch_attention=choice.patch_attention,
    )


@cache
def _load_data(name: str, choice: str, root: Path) -> BenchmarkData:
    return load_data(name, DatasetChoice.model_validate_json(choice), root)


@cache
def _digest(name: str, choice: str, root: Path) -> str:
    return _load_data(name, choice, root).digest(root)
