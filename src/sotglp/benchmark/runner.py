"""Run a suite cell by cell in several processes, and resume an interrupted run."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from sotglp.backbone import Backbone
from sotglp.backbone.precision import choose_device
from sotglp.benchmark.cells import Plan, cell_key, plan_cells
from sotglp.benchmark.data import BenchmarkData, load_data
from sotglp.benchmark.protocols import run_cell
from sotglp.benchmark.results import RESULTS_FILE, Result, append, read
from sotglp.benchmark.suite import BackboneChoice, DatasetChoice, Suite
from sotglp.console.parent import exit_with_parent
from sotglp.console.progress import progress_bar, show_warning
from sotglp.console.table import counted
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


def run_suite(run_config: RunConfig, out: Path, *, n_processes: int = 1, show_progress: bool = False) -> Run:
    """Run every cell of a suite that has no result yet.

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
    with _workers(n_processes) as pool, progress_bar("benchmark", len(keys), "cells", show=show_progress) as advance:
        advance(n_before, "")
        try:
            with _interrupts_ignored():
                futures = {
                    pool.submit(_run, run_config, plan, key): plan for key, plan in keys.items() if key not in done
                }
            for future in as_completed(futures):
                cell = futures[future].cell
                label = f"{cell.dataset}, {cell.method}, {counted(cell.shots, 'shot')}, seed {cell.seed}"
                try:
                    result = future.result()
                except SotglpError as error:
                    failed[label] = str(error)
                else:
                    append(path, result)
                    done[result.key] = result
                advance(1, label)
        except BrokenProcessPool as error:
            raise SotglpError(
                "a process of the benchmark was killed, probably for lack of memory: repeat the command with fewer "
                "processes to resume"
            ) from error
    return Run([done[key] for key in keys if key in done], n_before, failed)


@contextmanager
def _workers(n_processes: int) -> Iterator[ProcessPoolExecutor]:
    threads = max((os.cpu_count() or 1) // n_processes, 1)
    # A forked process may hang if threads were computing.
    context = get_context("spawn")
    pool = ProcessPoolExecutor(n_processes, mp_context=context, initializer=_begin, initargs=(threads, os.getpid()))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C, as processes that are started meanwhile do from their first import on.

    The parent handles it, and waits for running cells.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _begin(threads: int, parent: int) -> None:
    """Set up a new process."""
    import torch

    torch.set_num_threads(threads)
    warnings.showwarning = show_warning
    logging.basicConfig(level=logging.ERROR)  # other libraries' notes, as in the first process
    exit_with_parent(parent)


def _run(run_config: RunConfig, plan: Plan, key: str) -> Result:
    """Run one cell in this process."""
    import torch

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
