"""The most confident mistakes of a model, and where its local prompts looked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sotglp.explain.explanation import ClassExplanation, Explanation, explain_each, has_maps
from sotglp.images.decode import open_image
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.methods.text_features import TextFeatures
from sotglp.report.pictures import Thumbnail
from sotglp.scoring.calibration import Calibration
from sotglp.settings import InferenceConfig

MAX_MISTAKES = 12


@dataclass(frozen=True, eq=False)
class ClassMap(ClassExplanation):
    """The scores of a class, and the mass of its prompts on patches of a thumbnail.

    Attributes
    ----------
    boxes : NDArray
        Left, top, right and bottom of each patch in pixels of the thumbnail, (rows, columns, 4).
    """

    boxes: NDArray[np.float64]

    @property
    def mean_mass(self) -> NDArray[np.float32]:
        """Mean mass of the prompts, (rows, columns)."""
        mean: NDArray[np.float32] = self.mass.mean(axis=0)
        return mean


@dataclass(frozen=True, eq=False)
class Mistake:
    """A misclassified image: calibrated probabilities and maps of the predicted and of the true class."""

    name: str
    label: str
    predicted: str
    probability: float
    label_probability: float
    thumbnail: Thumbnail
    maps: tuple[ClassMap, ...]


def find_mistakes(
    model: AdaptedModel,
    text: TextFeatures,
    images: ImageSet,
    targets: NDArray[np.int64],
    predicted: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    inference: InferenceConfig,
    calibration: Calibration | None,
    names: Sequence[str],
) -> tuple[Mistake, ...]:
    """Return mistakes, the most confident first, from class indices (n,) and calibrated probabilities (n, C).

    They are spread over the true classes: the most confident one of each class comes before the second of any.
    ``names`` of the images, (n,), are what the report calls them.
    """
    confidence = probabilities[np.arange(len(targets)), predicted]
    wrong = (predicted != targets).nonzero()[0]
    chosen = spread(wrong[np.argsort(-confidence[wrong], kind="stable")], targets)
    if not chosen:
        return ()
    pairs = [(model.class_names[predicted[i]], model.class_names[targets[i]]) for i in chosen]
    if has_maps(model):
        # One call for all images and all their classes, so that the backbone sees batches.
        classes = list(dict.fromkeys(label for pair in pairs for label in pair))
        explained = explain_each(model, images.take(chosen), classes, inference, calibration, text=text)
        drawn = [class_maps(one, pair) for one, pair in zip(explained, pairs, strict=True)]
    else:
        drawn = [(_thumbnail(images, i), ()) for i in chosen]
    return tuple(
        Mistake(names[i], label, answer, float(confidence[i]), float(probabilities[i, targets[i]]), *picture)
        for i, (answer, label), picture in zip(chosen, pairs, drawn, strict=True)
    )


def spread(ordered: NDArray[np.int64], targets: NDArray[np.int64]) -> list[int]:
    """Choose up to ``MAX_MISTAKES`` of images in an order, classes in turn, and return them in that order."""
    seen: dict[int, int] = {}
    rounds = []
    for index in ordered.tolist():
        own = int(targets[index])
        seen[own] = seen.get(own, -1) + 1
        rounds.append(seen[own])
    chosen = np.sort(np.argsort(np.array(rounds, dtype=np.int64), kind="stable")[:MAX_MISTAKES])
    kept: list[int] = ordered[chosen].tolist()
    return kept


def class_maps(explanation: Explanation, labels: tuple[str, ...]) -> tuple[Thumbnail, tuple[ClassMap, ...]]:
    """Scale an explanation to a thumbnail, for some of its classes."""
    thumbnail = Thumbnail.of(explanation.image)
    across, down = thumbnail.width / explanation.image.width, thumbnail.height / explanation.image.height
    boxes = explanation.boxes * np.array([across, down, across, down])
    explained = {one.label: one for one in explanation.classes}
    return thumbnail, tuple(ClassMap(**vars(explained[label]), boxes=boxes) for label in labels)


def _thumbnail(images: ImageSet, i: int) -> Thumbnail:
    source = images.images[i]
    assert isinstance(source, Path | Image.Image)
    return Thumbnail.of(open_image(source, images.ranges))
