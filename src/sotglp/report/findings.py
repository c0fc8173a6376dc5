"""Evaluate a model for a report: everything that the page shows, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from sotglp.errors import UnreadableImageError
from sotglp.explain.context_words import ContextWords, context_words
from sotglp.explain.explanation import has_maps
from sotglp.explain.prompt_use import PromptUse, prompt_use
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.methods.text_features import TextFeatures
from sotglp.report.confusion import Confusion
from sotglp.report.mistakes import Mistake, find_mistakes
from sotglp.report.reliability import Reliability
from sotglp.scoring.baseline import compare_with_baseline, predict_beside
from sotglp.scoring.calibration import Calibration
from sotglp.scoring.evaluate import evaluate_predictions
from sotglp.scoring.intervals import Interval, Share, auroc_interval, share
from sotglp.scoring.predict import Predictions, predict, text_of
from sotglp.settings import InferenceConfig
from sotglp.transport.plans import prompt_similarity

MAX_FOR_PROMPTS = 200
"""Number of evenly spaced images on which prompt use is measured, since they are encoded a second time."""


@dataclass(frozen=True, eq=False)
class ImageResults:
    """Results of the n images that could be read: paths, classes, calibrated confidence and OOD scores."""

    names: tuple[str, ...]
    labels: tuple[str, ...]
    predicted: tuple[str, ...]
    probabilities: NDArray[np.float32]
    scores: NDArray[np.float32]

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one row per image."""
        columns = (self.names, self.labels, self.predicted, self.probabilities.tolist(), self.scores.tolist())
        keys = ("path", "label", "predicted", "probability", "ood_score")
        return [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]


@dataclass(frozen=True, eq=False)
class OodSet:
    """Detection of one out-of-distribution set.

    Attributes
    ----------
    scores : NDArray
        OOD scores of its m images, (m,).
    figures : dict
        Its entry in ``ood`` of :func:`sotglp.scoring.evaluate.evaluate`.
    interval : Interval or None
        Of the AUROC.
    fpr, tpr : NDArray
        The ROC curve.
    """

    scores: NDArray[np.float32]
    figures: dict[str, float]
    interval: Interval | None
    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]

    @classmethod
    def of(cls, inside: NDArray[np.float32], outside: NDArray[np.float32], figures: dict[str, float]) -> OodSet:
        """Compare scores of in-distribution images and of the set."""
        is_in = np.arange(len(inside) + len(outside)) < len(inside)
        fpr, tpr, _ = roc_curve(is_in, np.concatenate([inside, outside]))
        return cls(outside, figures, auroc_interval(inside, outside), fpr, tpr)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return self.figures | {
            "auroc_interval": None if self.interval is None else list(self.interval),
            "roc": {"fpr": self.fpr.tolist(), "tpr": self.tpr.tolist()},
            "scores": self.scores.tolist(),
        }


class Prompts(TypedDict):
    """Use of the local prompts on ``n`` images, and the mean cosine between two prompts of a class."""

    use: PromptUse
    n: int
    n_prompts: int
    similarity: float


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything that a report shows of a model.

    ``figures`` come from :func:`sotglp.scoring.evaluate.evaluate`; ``reliability`` is that before calibration and
    ``calibrated`` that after it; None stands for what the model doesn't have.
    """

    figures: dict[str, Any]
    accuracy: Share
    images: ImageResults
    confusion: Confusion
    mistakes: tuple[Mistake, ...]
    has_maps: bool
    reliability: Reliability
    calibrated: Reliability | None
    threshold: float | None
    ood: dict[str, OodSet]
    prompts: Prompts | None
    words: ContextWords | None
    inference: InferenceConfig
    unreadable: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: :attr:`figures`, and what the page draws."""
        keys = ("label", "predicted", "probability", "label_probability")
        return self.figures | {
            "accuracy_interval": None if self.accuracy.interval is None else list(self.accuracy.interval),
            "classes": list(self.confusion.labels),
            "confusion": self.confusion.to_dicts(),
            "reliability": self.reliability.to_dict(),
            "reliability_calibrated": self.calibrated.to_dict() if self.calibrated else None,
            "ood": {name: one.to_dict() for name, one in self.ood.items()},
            "ood_method": self.inference.ood_method,
            "temperature": self.inference.temperature,
            "threshold": self.threshold,
            "prompts": self.prompts,
            "context_words": self.words.to_dict() if self.words else None,
            "images": self.images.to_dicts(),
            "mistakes": [{"path": one.name} | {key: getattr(one, key) for key in keys} for one in self.mistakes],
            "unreadable": list(self.unreadable),
        }


def evaluate_for_report(
    model: AdaptedModel,
    images: ImageSet,
    ood_sets: Mapping[str, ImageSet],
    inference: InferenceConfig,
    calibration: Calibration | None = None,
    *,
    unreadable: list[UnreadableImageError] | None = None,
) -> Findings:
    """Evaluate a model for a report; ``unreadable`` collects images that can't be decoded, None raises at the first."""
    images.targets(model.class_names)  # raises an error for other labels, before the work
    text = text_of(model, inference)
    predictions, beside = predict_beside(model, text, images, inference, unreadable=unreadable)
    readable = images.take(predictions.indices)
    others = {
        name: predict(model, some, inference, text=text, unreadable=unreadable, title=f"scoring {name}")
        for name, some in ood_sets.items()
    }
    found = describe_predictions(
        model, text, readable, predictions, others, inference, calibration, unreadable=unreadable
    )
    zero_shot = compare_with_baseline(predictions, beside, readable.targets(model.class_names))
    return replace(found, figures=found.figures | {"accuracy_zero_shot": zero_shot})


def describe_predictions(
    model: AdaptedModel,
    text: TextFeatures,
    images: ImageSet,
    predictions: Predictions,
    others: Mapping[str, Predictions],
    inference: InferenceConfig,
    calibration: Calibration | None = None,
    *,
    names: Sequence[str] | None = None,
    unreadable: Sequence[UnreadableImageError] | None = None,
) -> Findings:
    """Return what a report shows of predictions of n labelled images, and of OOD sets by name.

    ``model`` with the features ``text`` draws the maps. It need not have made the predictions: those of cross-fitting
    come from other models. ``names`` of the images, (n,), default to their paths.
    """
    classes, targets = model.class_names, images.targets(model.class_names)
    names = [images.name(index) for index in range(len(images))] if names is None else names
    figures = evaluate_predictions(predictions, targets, others, inference, calibration=calibration)
    raw, scores = predictions.probabilities, predictions.ood_scores
    probabilities = calibration.probabilities(raw) if calibration else raw
    predicted = raw.argmax(axis=1)
    return Findings(
        figures=figures,
        accuracy=share(int((predicted == targets).sum()), len(targets)),
        images=ImageResults(
            tuple(names),
            tuple(classes[i] for i in targets),
            tuple(classes[i] for i in predicted),
            probabilities[np.arange(len(targets)), predicted],
            scores,
        ),
        confusion=Confusion.of(classes, targets, predicted),
        mistakes=find_mistakes(model, text, images, targets, predicted, probabilities, inference, calibration, names),
        has_maps=has_maps(model),
        reliability=Reliability.of(raw, targets),
        calibrated=Reliability.of(probabilities, targets) if calibration else None,
        threshold=inference.threshold_of(calibration),
        ood={name: OodSet.of(scores, other.ood_scores, figures["ood"][name]) for name, other in others.items()},
        prompts=_prompts(model, text, images, inference),
        words=context_words(model),
        inference=inference,
        unreadable=tuple(str(error.source) for error in unreadable or []),
    )


def _prompts(model: AdaptedModel, text: TextFeatures, images: ImageSet, inference: InferenceConfig) -> Prompts | None:
    if len(images) > MAX_FOR_PROMPTS:
        images = images.take(np.linspace(0, len(images) - 1, MAX_FOR_PROMPTS).astype(np.int64))
    use = prompt_use(model, images, inference, text=text)
    if use is None:
        return None
    similarity = float(prompt_similarity(text.local).mean())
    return {"use": use, "n": len(images), "n_prompts": text.local.shape[1], "similarity": similarity}
