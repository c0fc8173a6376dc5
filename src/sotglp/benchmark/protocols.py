"""Run one cell of a suite: fit a method once, and measure it as the protocol requires."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import harmonic_mean
from typing import Any

from sotglp.backbone import Backbone
from sotglp.benchmark.data import BenchmarkData
from sotglp.benchmark.suite import Protocol
from sotglp.errors import OldClassesOnlyError
from sotglp.explain.prompt_use import prompt_use
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.scoring.evaluate import evaluate
from sotglp.settings import InferenceConfig, Settings, TrainConfig
from sotglp.training.fit import adapt

PROCESS = Path("/proc/self")


@dataclass(frozen=True)
class Outcome:
    """``metrics`` and ``cost`` of a cell, as stored in its result."""

    metrics: dict[str, Any]
    cost: dict[str, Any]


def run_cell(
    protocol: Protocol,
    backbone: Backbone,
    data: BenchmarkData,
    model_settings: Settings,
    config: TrainConfig,
    *,
    cache_dir: Path | None = None,
) -> Outcome:
    """Fit a method to the shots of a dataset, and measure it as the protocol requires.

    ``few-shot``: train and test on all classes. ``base-to-new``: train on the first half of the classes, and test on
    both halves, each among its own classes.

    References
    ----------
    CoOp, arXiv 2109.01134, for few-shot, domain shift and cross-dataset tests; CoCoOp, arXiv 2203.05557, for
    base-to-new classes and the harmonic mean.
    """
    base = data.classes
    if protocol == "base-to-new":
        base = data.classes[: (len(data.classes) + 1) // 2]
    inference = InferenceConfig(precision=config.precision, workers=config.workers)
    has_peak = reset_peak_memory()
    started = time.perf_counter()
    train = _of_classes(data.train, base)
    fitted = adapt(backbone, train, model_settings, config, classes=base, cache_dir=cache_dir)
    model = fitted.model
    fit_seconds = time.perf_counter() - started
    started = time.perf_counter()
    if protocol == "base-to-new":
        metrics = _base_to_new(model, data, base, inference, cache_dir)
    else:
        metrics = _on_all_classes(model, data, inference, cache_dir)
    evaluate_seconds = time.perf_counter() - started
    if fitted.history:
        metrics["curves"] = {name: [round(epoch[name], 6) for epoch in fitted.history] for name in ("loss", "accuracy")}
    peak = peak_memory_mb() if has_peak else None
    return Outcome(metrics, {"fit_seconds": fit_seconds, "evaluate_seconds": evaluate_seconds, "peak_memory_mb": peak})


def reset_peak_memory() -> bool:
    """Reset the peak of this process's resident memory; False on systems other than Linux."""
    with suppress(OSError):
        (PROCESS / "clear_refs").write_text("5")
        return True
    return False


def peak_memory_mb() -> float:
    """Return the peak of this process's resident memory since the reset, in 2**20 bytes."""
    (line,) = (line for line in (PROCESS / "status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def _on_all_classes(
    model: AdaptedModel, data: BenchmarkData, inference: InferenceConfig, cache_dir: Path | None
) -> dict[str, Any]:
    metrics = evaluate(model, data.test, data.ood, inference, cache_dir=cache_dir)
    metrics["prompts"] = prompt_use(model, data.test, inference, cache_dir=cache_dir)
    metrics["shift"], metrics["transfer"] = {}, {}
    for name, splits in data.shift.items():
        result = evaluate(model, splits.test, None, inference, among=splits.classes, cache_dir=cache_dir)
        metrics["shift"][name] = {"accuracy": result["accuracy"], "n": result["n"]}
    for name, splits in data.transfer.items():
        metrics["transfer"][name] = _on_new_classes(model, splits.classes, splits.test, inference, cache_dir)
    return metrics


def _base_to_new(
    model: AdaptedModel, data: BenchmarkData, base: Sequence[str], inference: InferenceConfig, cache_dir: Path | None
) -> dict[str, Any]:
    new = data.classes[len(base) :]
    metrics = evaluate(model, _of_classes(data.test, base), None, inference, cache_dir=cache_dir)
    on_new = _on_new_classes(model, new, _of_classes(data.test, new), inference, cache_dir)
    mean = None if on_new["accuracy"] is None else harmonic_mean([metrics["accuracy"], on_new["accuracy"]])
    metrics["base_to_new"] = {
        "base": metrics["accuracy"],
        "new": on_new["accuracy"],
        "harmonic_mean": mean,
        "n_base": metrics["n"],
        "n_new": on_new["n"],
    }
    return metrics


def _on_new_classes(
    model: AdaptedModel, classes: Sequence[str], images: ImageSet, inference: InferenceConfig, cache_dir: Path | None
) -> dict[str, Any]:
    """Accuracy among classes that were not trained on; None for a method that can't predict them."""
    try:
        other = model.for_new_classes(classes)
    except OldClassesOnlyError:
        return {"accuracy": None, "n": len(images)}
    result = evaluate(other, images, None, inference, cache_dir=cache_dir)
    return {"accuracy": result["accuracy"], "n": result["n"]}


def _of_classes(images: ImageSet, classes: Sequence[str]) -> ImageSet:
    """The images with one of these labels."""
    labels = images.labels or ()
    wanted = set(classes)
    return images if set(labels) <= wanted else images.take([i for i, label in enumerate(labels) if label in wanted])
