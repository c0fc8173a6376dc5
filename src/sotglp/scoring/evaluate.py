"""Evaluate a model on labelled and OOD images: the one evaluation that every part of the library uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sotglp.errors import SotglpError, UnreadableImageError
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.scoring.baseline import compare_with_baseline, predict_beside
from sotglp.scoring.calibration import Calibration
from sotglp.scoring.metrics import calibration_gap, ood_metrics, oscr
from sotglp.scoring.outcomes import Outcomes, outcomes_of
from sotglp.scoring.predict import Predictions, predict, text_of
from sotglp.settings import InferenceConfig


def evaluate(
    model: AdaptedModel,
    images: ImageSet,
    ood_sets: Mapping[str, ImageSet] | None = None,
    inference: InferenceConfig = InferenceConfig(),  # noqa: B008 - frozen
    *,
    among: Sequence[str] | None = None,
    calibration: Calibration | None = None,
    cache_dir: Path | None = None,
    unreadable: list[UnreadableImageError] | None = None,
    by_class: bool = False,
    baseline: bool = False,
) -> dict[str, Any]:
    """Evaluate a model on labelled images and on sets of OOD images.

    Parameters
    ----------
    model : AdaptedModel
        A trained model.
    images : ImageSet
        Labelled images of its classes.
    ood_sets : mapping of str to ImageSet, optional
        Images of none of its classes, by name.
    inference : InferenceConfig
        How images are read and scored.
    among : sequence of str or None
        Predict among these classes alone; None takes all.
    calibration : Calibration or None
        Calibration of the model; its decisions are evaluated if ``inference`` has its score.
    cache_dir, unreadable
        See :func:`sotglp.scoring.predict.predict_each`.
    by_class : bool
        Add ``per_class``: for each class that has images its ``class``, ``n``, number ``correct``, ``accuracy``, and
        the class that is predicted most often instead, ``mistaken_for``, ``n_mistaken_for`` times; worst class first.
    baseline : bool
        Add ``accuracy_zero_shot``, None if there is none, and warn if the model is near chance or below it; see
        :mod:`sotglp.scoring.baseline`.

    Returns
    -------
    dict
        ``accuracy`` (of the prediction), ``accuracy_global``, ``accuracy_local`` (of either branch alone), ``ece``
        (expected calibration error; not with ``among``), ``n``, and under ``ood`` for each set the entries of
        :class:`sotglp.scoring.metrics.OodMetrics`, ``oscr`` and ``n``. With a calibration, ``ece_calibrated``,
        ``accepted`` (share of images at or above the threshold), ``accuracy_accepted``, and for each set ``rejected``.
        Fractions from 0 to 1.

    Raises
    ------
    SotglpError
        If images have no labels, or labels that aren't classes of the model.
    """
    names = model.class_names if among is None else among
    if strange := [name for name in names if name not in model.class_names]:
        raise SotglpError(f"{strange[0]!r} isn't one of the {len(model.class_names)} classes of the model: remove it")
    all_targets = images.targets(names)

    text = text_of(model, inference)

    def predicted(some: ImageSet, title: str) -> Predictions:
        return predict(model, some, inference, text=text, cache_dir=cache_dir, unreadable=unreadable, title=title)

    beside = None
    if baseline:
        predictions, beside = predict_beside(model, text, images, inference, cache_dir=cache_dir, unreadable=unreadable)
    else:
        predictions = predicted(images, "evaluating")
    others = {name: predicted(some, f"scoring {name}") for name, some in (ood_sets or {}).items()}
    targets = all_targets[predictions.indices]
    columns = None if among is None else [model.class_names.index(name) for name in names]
    result = evaluate_predictions(predictions, targets, others, inference, columns=columns, calibration=calibration)
    if baseline:
        result["accuracy_zero_shot"] = compare_with_baseline(predictions, beside, targets, columns)
    if by_class:
        probabilities = predictions.probabilities if columns is None else predictions.probabilities[:, columns]
        result["per_class"] = accuracy_by_class(probabilities.argmax(axis=1), targets, names)
    return result


def evaluate_predictions(
    predictions: Predictions,
    targets: NDArray[np.int64],
    others: Mapping[str, Predictions],
    inference: InferenceConfig,
    *,
    columns: Sequence[int] | None = None,
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """Evaluate predictions of n labelled images, and of OOD sets by name; see :func:`evaluate`.

    ``targets`` (n,) are true class indices, counted among ``columns``, the class indices to predict among, if given.
    """
    outcomes = outcomes_of(predictions, targets, columns=columns, calibration=calibration)
    scores = {name: other.ood_scores for name, other in others.items()}
    return evaluate_outcomes(outcomes, scores, inference, calibration=calibration, has_all_classes=columns is None)


def evaluate_outcomes(
    outcomes: Outcomes,
    others: Mapping[str, NDArray[np.float32]],
    inference: InferenceConfig,
    *,
    calibration: Calibration | None = None,
    has_all_classes: bool = True,
) -> dict[str, Any]:
    """Evaluate n labelled images by their outcomes, and OOD sets by name by their scores; see :func:`evaluate`.

    Without all classes there is no calibration error.
    """
    targets, is_right = outcomes.targets, outcomes.is_right
    result: dict[str, Any] = {
        "accuracy": float(is_right.mean()),
        "accuracy_global": float((outcomes.predicted_global == targets).mean()),
        "accuracy_local": float((outcomes.predicted_local == targets).mean()),
        "n": len(targets),
        "ood": {},
    }
    if has_all_classes:
        result["ece"] = calibration_gap(outcomes.confidence, is_right)
        if calibration:
            is_right_calibrated = outcomes.predicted_calibrated == targets
            result["ece_calibrated"] = calibration_gap(outcomes.confidence_calibrated, is_right_calibrated)
    decider = None if inference.threshold_of(calibration) is None else calibration
    if decider:
        accepted = ~decider.rejects(outcomes.ood_scores)
        result["accepted"] = float(accepted.mean())
        result["accuracy_accepted"] = float(is_right[accepted].mean()) if accepted.any() else None
    for name, scores in others.items():
        result["ood"][name] = {
            **ood_metrics(outcomes.ood_scores, scores),
            "oscr": oscr(outcomes.ood_scores, is_right, scores),
            "n": len(scores),
        }
        if decider:
            result["ood"][name]["rejected"] = float(decider.rejects(scores).mean())
    return result


def accuracy_by_class(
    predicted: NDArray[np.int64], targets: NDArray[np.int64], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the accuracy of each class that has images, and its most frequent mistake; worst class first."""
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, (targets, predicted), 1)
    rows = []
    for index in np.unique(targets).tolist():
        n, correct = int(counts[index].sum()), int(counts[index, index])
        mistakes = counts[index].copy()
        mistakes[index] = 0
        row = {"class": names[index], "n": n, "correct": correct, "accuracy": correct / n}
        most = int(mistakes.argmax())
        n_most = int(mistakes[most])
        rows.append(row | {"mistaken_for": names[most] if n_most else None, "n_mistaken_for": n_most})
    return sorted(rows, key=lambda row: (row["accuracy"], -row["n"]))
