"""Run a suite cell by cell, in several processes; what is finished is never run again."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from sotglp.backbone import Backbone
from sotglp.backbone.precision import choose_device
from sotglp.benchmark.cells import Plan, cell_key, plan_cells
from sotglp.benchmark.material import Material, read_material
from sotglp.benchmark.protocols import run_cell
from sotglp.benchmark.results import RESULTS_FILE, Result, append, read
from sotglp.benchmark.suite import BackboneChoice, DatasetChoice, Suite
from sotglp.console.progress import progress_bar, show_warning
from sotglp.errors import SotglpError
from sotglp.files.atomic import check_output
from sotglp.files.versions import installed_versions

PARENT_WATCH_SECONDS = 1.0


@dataclass(frozen=True)
class Setting:
    """Where and how the cells of a suite run; the same in every process.

    Attributes
    ----------
    suite : Suite
        The suite.
    data_root : Path
        Folder that the suite's places are below.
    cache_dir : Path or None
        Folder of stored features; None stores none.
    device : str
        Where the backbone goes.
    """

    suite: Suite
    data_root: Path
    cache_dir: Path | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Run:
    """What a run of a suite came to: all its results, how many were there before, and which cells failed and why."""

    results: list[Result]
    n_before: int
    failed: dict[str, str]


def run_suite(setting: Setting, out: Path, *, n_processes: int = 1, show_progress: bool = False) -> Run:
    """Run every cell of a suite that has no result yet.

    A cell's result is written as soon as it is there, so a run that was killed goes on with the same call. A cell that
    fails leaves the others alone.

    Parameters
    ----------
    setting : Setting
        What is run.
    out : Path
        Folder of the results, in results.jsonl.
    n_processes : int, default 1
        Processes that share the cells; each has an equal part of the processor's cores.
    show_progress : bool, default False
        Show a progress bar on a terminal.

    Raises
    ------
    SotglpError
        If the suite, its images or the backbone can't be used, results can't be written, or a process is killed.
    """
    keys = {_key(setting, plan): plan for plan in plan_cells(setting.suite)}
    path = out / RESULTS_FILE
    done = {result.key: result for result in read(path)} if path.exists() else {}
    check_output(path, force=True)
    n_before = sum(key in done for key in keys)
    failed = {}
    with _workers(n_processes) as pool, progress_bar("benchmark", len(keys), "cells", show=show_progress) as advance:
        advance(n_before, "")
        try:
            futures = {pool.submit(_run, setting, plan, key): plan for key, plan in keys.items() if key not in done}
            for future in as_completed(futures):
                cell = futures[future].cell
                label = f"{cell.dataset}, {cell.method}, {cell.shots} shots, seed {cell.seed}"
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
                "a process of the benchmark was killed, perhaps for want of memory: run the same command again to go "
                "on, with fewer processes"
            ) from error
    return Run([done[key] for key in keys if key in done], n_before, failed)


@contextmanager
def _workers(n_processes: int) -> Iterator[ProcessPoolExecutor]:
    threads = max((os.cpu_count() or 1) // n_processes, 1)
    # Spawned, not forked: a fork of a process whose threads are computing may hang.
    context = get_context("spawn")
    pool = ProcessPoolExecutor(n_processes, mp_context=context, initializer=_begin, initargs=(threads, os.getpid()))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(threads: int, parent: int) -> None:
    """Make a new process ready for cells."""
    import torch

    torch.set_num_threads(threads)
    warnings.showwarning = show_warning
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and waits for the cells that run
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone, killed before it could say so."""
    while os.getppid() == parent:
        time.sleep(PARENT_WATCH_SECONDS)
    os._exit(1)


def _run(setting: Setting, plan: Plan, key: str) -> Result:
    """Run one cell in this process."""
    import torch

    backbone, material = _backbone_of(setting, plan), _material_of(setting, plan)
    outcome = run_cell(
        setting.suite.protocol, backbone, material, plan.model, plan.training, cache_dir=setting.cache_dir
    )
    return Result.model_validate(
        {
            "key": key,
            "cell": plan.cell.model_dump(),
            "metrics": outcome.metrics,
            "cost": {**outcome.cost, "threads": torch.get_num_threads()},
            "backbone": _told_of(backbone),
            "settings": {"model": plan.model.model_dump(), "training": plan.training.model_dump()},
            "versions": installed_versions(),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
    )


def _key(setting: Setting, plan: Plan) -> str:
    digest = _digest(*_choice_of(setting, plan))  # before the backbone, which takes long: images may be missing
    return cell_key(plan, _told_of(_backbone_of(setting, plan)), digest)


def _told_of(backbone: Backbone) -> dict[str, Any]:
    return {
        "name": backbone.name,
        "pretrained": backbone.pretrained,
        "fingerprint": backbone.fingerprint,
        "image_size": list(backbone.image_size),
        "patch_attention": backbone.patch_attention,
    }


def _backbone_of(setting: Setting, plan: Plan) -> Backbone:
    choice, own = setting.suite.backbone, setting.suite.methods[plan.cell.method].patch_attention
    return _load_backbone(choice if own is None else choice.model_copy(update={"patch_attention": own}), setting.device)


def _material_of(setting: Setting, plan: Plan) -> Material:
    return _read_material(*_choice_of(setting, plan))


def _choice_of(setting: Setting, plan: Plan) -> tuple[str, str, Path]:
    """What a cell's dataset is read by, in values that a cache can take."""
    name = plan.cell.dataset
    return name, setting.suite.datasets[name].model_dump_json(), setting.data_root


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
def _read_material(name: str, choice: str, root: Path) -> Material:
    return read_material(name, DatasetChoice.model_validate_json(choice), root)


@cache
def _digest(name: str, choice: str, root: Path) -> str:
    return _read_material(name, choice, root).digest(root)
