"""One cell of a suite: a method fitted once, and everything that is measured of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import harmonic_mean
from typing import Any

from sotglp.backbone import Backbone
from sotglp.benchmark.material import Material
from sotglp.benchmark.peak import PeakMemory
from sotglp.benchmark.suite import Protocol
from sotglp.errors import OldClassesOnlyError
from sotglp.explain.prompt_use import prompt_use
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.scoring.evaluate import evaluate
from sotglp.settings import InferenceConfig, Settings, TrainConfig
from sotglp.training.fit import adapt


@dataclass(frozen=True)
class Outcome:
    """What a cell gave: ``metrics`` and ``cost`` as a line of results holds them."""

    metrics: dict[str, Any]
    cost: dict[str, Any]


def run_cell(
    protocol: Protocol,
    backbone: Backbone,
    material: Material,
    model_settings: Settings,
    config: TrainConfig,
    *,
    cache_dir: Path | None = None,
) -> Outcome:
    """Fit a method to the shots of a dataset, and measure it as the protocol says.

    Parameters
    ----------
    protocol : {"few-shot", "base-to-new"}
        ``few-shot``: all classes are trained on and tested. ``base-to-new``: the first half of the classes is trained
        on, and both halves are tested, each among its own classes.
    backbone : Backbone
        Frozen model.
    material : Material
        Images.
    model_settings, config : Settings, TrainConfig
        Settings of the method's model and of its training.
    cache_dir : Path or None
        Folder of stored features; None stores none.

    References
    ----------
    CoOp, arXiv 2109.01134, for few-shot, domain shift and cross-dataset tests; CoCoOp, arXiv 2203.05557, for
    base-to-new classes and the harmonic mean.
    """
    base = material.classes
    if protocol == "base-to-new":
        base = material.classes[: (len(material.classes) + 1) // 2]
    inference = InferenceConfig(precision=config.precision, workers=config.workers)
    with PeakMemory() as memory:
        started = time.perf_counter()
        fitted = adapt(
            backbone, _of_classes(material.train, base), model_settings, config, classes=base, cache_dir=cache_dir
        )
        fit_seconds = time.perf_counter() - started
        started = time.perf_counter()
        if protocol == "base-to-new":
            metrics = _base_to_new(fitted.model, material, base, inference, cache_dir)
        else:
            metrics = _on_all_classes(fitted.model, material, inference, cache_dir)
        evaluate_seconds = time.perf_counter() - started
    cost = {"fit_seconds": fit_seconds, "evaluate_seconds": evaluate_seconds, "peak_memory_mb": memory.megabytes}
    return Outcome(metrics, cost)


def _on_all_classes(
    model: AdaptedModel, material: Material, inference: InferenceConfig, cache_dir: Path | None
) -> dict[str, Any]:
    metrics = evaluate(model, material.test, material.ood, inference, cache_dir=cache_dir)
    metrics["prompts"] = prompt_use(model, material.test, inference, cache_dir=cache_dir)
    metrics["shift"], metrics["transfer"] = {}, {}
    for name, splits in material.shift.items():
        result = evaluate(model, splits.test, None, inference, among=splits.classes, cache_dir=cache_dir)
        metrics["shift"][name] = {"accuracy": result["accuracy"], "n": result["n"]}
    for name, splits in material.transfer.items():
        metrics["transfer"][name] = _on_new_classes(model, splits.classes, splits.test, inference, cache_dir)
    return metrics


def _base_to_new(
    model: AdaptedModel, material: Material, base: Sequence[str], inference: InferenceConfig, cache_dir: Path | None
) -> dict[str, Any]:
    new = material.classes[len(base) :]
    metrics = evaluate(model, _of_classes(material.test, base), None, inference, cache_dir=cache_dir)
    on_new = _on_new_classes(model, new, _of_classes(material.test, new), inference, cache_dir)
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
    """Accuracy among classes that were not trained on; None of a method that has nothing to say of them."""
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
