"""What there is to say of a model on labelled images and on images of no class, as values; a page shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_curve

from sotglp.errors import UnreadableImageError
from sotglp.explain.context_words import ContextWords, context_words
from sotglp.explain.explanation import explain_each, has_maps
from sotglp.explain.prompt_use import PromptUse, prompt_use
from sotglp.images.decode import open_image
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.methods.text_features import TextFeatures
from sotglp.report.confusion import Confusion
from sotglp.report.intervals import Interval, Share, auroc_interval, share
from sotglp.report.pictures import Looked, Thumbnail
from sotglp.report.reliability import Reliability
from sotglp.scoring.calibration import Calibration
from sotglp.scoring.evaluate import measure, predict, text_of
from sotglp.settings import InferenceConfig
from sotglp.transport.plans import prompt_similarity

MOST_MISTAKES = 12
MOST_FOR_PROMPTS = 200
"""Images that the use of prompts is measured on, at equal distances: they have to be encoded once more."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What the model said of each image that could be read.

    Attributes
    ----------
    names : tuple of str
        Paths of the n images.
    labels, predicted : tuple of str
        Right and predicted class of each.
    probabilities : NDArray
        Of the predicted class at the calibrated temperature, (n,).
    scores : NDArray
        How much each is like an image of the classes, (n,).
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    predicted: tuple[str, ...]
    probabilities: NDArray[np.float32]
    scores: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class OodSet:
    """How well images of no class are told from those of the classes.

    Attributes
    ----------
    scores : NDArray
        Of the m images, (m,).
    figures : dict
        See the entry ``ood`` of :func:`sotglp.scoring.evaluate.evaluate`.
    interval : Interval or None
        Of the AUROC; see :func:`sotglp.report.intervals.auroc_interval`.
    false_accepted, true_accepted : NDArray
        The ROC curve: shares of these images and of those of the classes that reach a score.
    """

    scores: NDArray[np.float32]
    figures: dict[str, float]
    interval: Interval | None
    false_accepted: NDArray[np.float64]
    true_accepted: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Mistake:
    """An image whose predicted class is wrong, with probabilities at the calibrated temperature.

    ``looked`` has the maps of the predicted and of the right class; it is None of a model without maps.
    """

    name: str
    label: str
    predicted: str
    probability: float
    label_probability: float
    thumbnail: Thumbnail
    looked: Looked | None


class Prompts(TypedDict):
    """How local prompts share images, on ``n`` of them, and the mean cosine between two prompts of a class."""

    use: PromptUse
    n: int
    n_prompts: int
    similarity: float


@dataclass(frozen=True, eq=False)
class Findings:
    """All that a report tells of a model.

    Attributes
    ----------
    figures : dict
        See :func:`sotglp.scoring.evaluate.evaluate`.
    accuracy : Share
        Images that are rightly classified.
    answers : Answers
        What was said of each.
    confusion : Confusion
        Which classes are taken for which.
    mistakes : tuple of Mistake
        Those that the model was surest of, the surest first.
    has_maps : bool
        Whether the model can show where it looked.
    reliability, calibrated : Reliability, Reliability or None
        Before and after the calibrated temperature; None of a model without one.
    threshold : float or None
        Images that score lower are called unknown; None of a model that is not calibrated for this score.
    ood : dict of str to OodSet
        By name.
    prompts : Prompts or None
        None of a model without local prompts.
    words : ContextWords or None
        None of a model without learned contexts.
    inference : InferenceConfig
        How images were read and scored.
    unreadable : tuple of str
        Images that were left out.
    """

    figures: dict[str, Any]
    accuracy: Share
    answers: Answers
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
        """Plain values for programs: :attr:`figures`, and what is drawn."""
        ood = {
            name: {
                **one.figures,
                "auroc_interval": None if one.interval is None else list(one.interval),
                "roc": {"fpr": one.false_accepted.tolist(), "tpr": one.true_accepted.tolist()},
                "scores": one.scores.tolist(),
            }
            for name, one in self.ood.items()
        }
        return self.figures | {
            "accuracy_interval": None if self.accuracy.interval is None else list(self.accuracy.interval),
            "classes": list(self.confusion.labels),
            "confusion": self.confusion.to_dicts(),
            "reliability": self.reliability.to_dict(),
            "reliability_calibrated": self.calibrated.to_dict() if self.calibrated else None,
            "ood": ood,
            "ood_method": self.inference.ood_method,
            "temperature": self.inference.temperature,
            "threshold": self.threshold,
            "prompts": self.prompts,
            "context_words": self.words.to_dict() if self.words else None,
            "images": self._images(),
            "mistakes": [
                {
                    "path": mistake.name,
                    "label": mistake.label,
                    "predicted": mistake.predicted,
                    "probability": mistake.probability,
                    "label_probability": mistake.label_probability,
                }
                for mistake in self.mistakes
            ],
            "unreadable": list(self.unreadable),
        }

    def _images(self) -> list[dict[str, Any]]:
        said = self.answers
        columns = (said.names, said.labels, said.predicted, said.probabilities.tolist(), said.scores.tolist())
        keys = ("path", "label", "predicted", "probability", "ood_score")
        return [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]


def evaluate_for_report(
    model: AdaptedModel,
    images: ImageSet,
    ood_sets: Mapping[str, ImageSet],
    inference: InferenceConfig,
    calibration: Calibration | None = None,
    *,
    unreadable: list[UnreadableImageError] | None = None,
) -> Findings:
    """Measure a model for a report.

    Parameters
    ----------
    model : AdaptedModel
        A trained model.
    images : ImageSet
        Labelled images of its classes, in files or PIL images.
    ood_sets : mapping of str to ImageSet
        Images of none of its classes, by name.
    inference : InferenceConfig
        How images are read and scored.
    calibration : Calibration or None, default None
        The model's.
    unreadable : list or None, default None
        Collects images that can't be decoded, which are then left out; None raises at the first.

    Raises
    ------
    SotglpError
        If images have no labels or other ones than the model's classes, or can't be read.
    """
    names = model.class_names
    all_targets = images.targets(names)
    text = text_of(model, inference)
    said = predict(model, images, inference, text=text, unreadable=unreadable, title="evaluating")
    targets = all_targets[said.indices]
    others = {
        name: predict(model, some, inference, text=text, unreadable=unreadable, title=f"scoring {name}")
        for name, some in ood_sets.items()
    }
    figures = measure(said, targets, others, inference, calibration=calibration)
    predicted = said.probabilities.argmax(axis=1)
    probabilities = calibration.probabilities(said.probabilities) if calibration else said.probabilities
    readable = images.take(said.indices)
    sureness = probabilities[np.arange(len(targets)), predicted]
    wrong = (predicted != targets).nonzero()[0]
    surest = wrong[np.argsort(-sureness[wrong], kind="stable")[:MOST_MISTAKES]]
    return Findings(
        figures,
        share(int((predicted == targets).sum()), len(targets)),
        Answers(
            tuple(readable.name(place) for place in range(len(readable))),
            tuple(names[place] for place in targets),
            tuple(names[place] for place in predicted),
            sureness,
            said.ood_scores,
        ),
        Confusion.of(names, targets, predicted),
        _mistakes(model, text, readable, surest.tolist(), predicted, targets, probabilities, inference, calibration),
        has_maps(model),
        Reliability.of(said.probabilities, targets),
        Reliability.of(probabilities, targets) if calibration else None,
        calibration.rejection.threshold if calibration and calibration.is_for(inference) else None,
        {name: _ood_set(said.ood_scores, other.ood_scores, figures["ood"][name]) for name, other in others.items()},
        _prompts(model, text, readable, inference),
        context_words(model),
        inference,
        tuple(str(error.source) for error in unreadable or []),
    )


def _ood_set(inside: NDArray[np.float32], outside: NDArray[np.float32], figures: dict[str, float]) -> OodSet:
    is_in = np.arange(len(inside) + len(outside)) < len(inside)
    false_accepted, true_accepted, _ = roc_curve(is_in, np.concatenate([inside, outside]))
    return OodSet(outside, figures, auroc_interval(inside, outside), false_accepted, true_accepted)


def _mistakes(
    model: AdaptedModel,
    text: TextFeatures,
    images: ImageSet,
    places: list[int],
    predicted: NDArray[np.int64],
    targets: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    inference: InferenceConfig,
    calibration: Calibration | None,
) -> tuple[Mistake, ...]:
    """What is to say of the images at these places; the others are those of all images."""
    if not places:
        return ()
    pairs = [(model.class_names[predicted[place]], model.class_names[targets[place]]) for place in places]
    looked: list[Looked | None] = [None] * len(places)
    if has_maps(model):
        # All at once and for the classes of all of them, so that they go through the backbone in batches.
        classes = list(dict.fromkeys(label for pair in pairs for label in pair))
        explained = explain_each(model, images.take(places), classes, inference, calibration, text=text)
        looked = [Looked.of(one, pair) for one, pair in zip(explained, pairs, strict=True)]
    return tuple(
        Mistake(
            images.name(place),
            label,
            answer,
            float(probabilities[place, predicted[place]]),
            float(probabilities[place, targets[place]]),
            seen.thumbnail if seen else _thumbnail(images, place),
            seen,
        )
        for place, (answer, label), seen in zip(places, pairs, looked, strict=True)
    )


def _thumbnail(images: ImageSet, place: int) -> Thumbnail:
    source = images.images[place]
    assert isinstance(source, Path | Image.Image)
    return Thumbnail.of(open_image(source))


def _prompts(model: AdaptedModel, text: TextFeatures, images: ImageSet, inference: InferenceConfig) -> Prompts | None:
    if len(images) > MOST_FOR_PROMPTS:
        images = images.take(np.linspace(0, len(images) - 1, MOST_FOR_PROMPTS).astype(np.int64))
    use = prompt_use(model, images, inference, text=text)
    if use is None:
        return None
    similarity = float(prompt_similarity(text.local).mean())
    return {"use": use, "n": len(images), "n_prompts": text.local.shape[1], "similarity": similarity}
