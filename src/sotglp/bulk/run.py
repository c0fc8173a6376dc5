"""Predict shards one after another, into a folder that the same call continues after an interruption."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sotglp.bulk.parts import Parts
from sotglp.bulk.predict_shard import BulkSettings, shard_predictor
from sotglp.console.progress import progress_bar
from sotglp.engines import EngineConfig, run_tasks
from sotglp.errors import SotglpWarning, some_names
from sotglp.shards.notes import ShardNotes
from sotglp.shards.shard import Shard


def predict_shards(
    settings: BulkSettings,
    classes: Sequence[str],
    shards: Sequence[Shard],
    out: Path,
    *,
    engine: EngineConfig = EngineConfig(),  # noqa: B008 - frozen
    show_progress: bool = False,
) -> dict[str, Any]:
    """Predict shards and write one Parquet file for each, and a manifest, to the folder ``out``.

    Shards that the manifest lists are skipped. The others are predicted where ``engine`` says, each by one process, so
    that rows don't depend on it.

    Returns
    -------
    dict
        ``out``; ``n``, number of rows, and ``labels``, how many have each label; ``parts`` and how many of them were
        ``resumed``; ``unreadable``, names of images that can't be read; ``left_out``, other files of archives by
        suffix; ``seconds`` and ``images_per_second`` of this run.

    Raises
    ------
    SotglpError
        If the folder holds something else, or predictions of another model, other settings or other images.
    UnreadableImageError
        If an image can't be read and ``skip_unreadable`` isn't set.
    """
    parts = Parts(out, settings, classes, shards)
    try:
        n_resumed = len(parts.finished)
        start, n_images = time.perf_counter(), 0
        waiting = [at for at in range(len(shards)) if at not in parts.finished]
        with progress_bar("predicting", len(waiting), "shards", show=show_progress) as advance:

            def so_far() -> str:
                return f"{n_images} images, {n_images / (time.perf_counter() - start):.1f} images/s"

            def report(n: int) -> None:
                nonlocal n_images
                n_images += n
                advance(0, so_far())

            # Shards that other processes predict are reported when they are finished.
            is_here = engine.is_this_process
            set_up = partial(shard_predictor, settings, report if is_here else None)
            with run_tasks(set_up, [shards[at] for at in waiting], engine) as results:
                for index, found in results:
                    parts.write(waiting[index], found)
                    if not is_here:
                        report(len(found.paths))
                    advance(1, so_far())
        seconds = time.perf_counter() - start
    finally:
        parts.close()
    lines = [parts.finished[at] for at in range(len(shards))]
    summary = _summary(lines)
    _warn(summary)
    rate = n_images / seconds if n_images else None
    return {"out": str(out), **summary, "resumed": n_resumed, "seconds": seconds, "images_per_second": rate}


def _summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    labels, left_out, losses = Counter[str](), Counter[str](), Counter[str]()
    for line in lines:
        labels.update(line["labels"])
        left_out.update(line["left_out"])
        losses.update(line["losses"])
    return {
        "n": sum(line["n"] for line in lines),
        "labels": dict(labels.most_common()),
        "parts": len(lines),
        "unreadable": [image["path"] for line in lines for image in line["unreadable"]],
        "left_out": dict(left_out),
        "losses": dict(losses),
    }


def _warn(summary: Mapping[str, Any]) -> None:
    ShardNotes(Counter(summary["left_out"]), Counter(summary["losses"])).warn()
    if names := summary["unreadable"]:
        warnings.warn(
            f"{len(names)} images can't be read and have no row: {some_names(names)}; the manifest has the reasons",
            SotglpWarning,
            stacklevel=3,
        )
