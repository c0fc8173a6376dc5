"""What a model says of images, and how right it is: the one way that every part of the library evaluates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sotglp.backbone.precision import autocast
from sotglp.console.progress import progress_bar
from sotglp.errors import SotglpError, UnreadableImageError
from sotglp.features.encode import encode_images
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.methods.text_features import TextFeatures
from sotglp.scoring import ood
from sotglp.scoring.calibration import Calibration
from sotglp.scoring.metrics import expected_calibration_error, ood_metrics, oscr
from sotglp.settings import InferenceConfig


@dataclass(frozen=True)
class Predictions:
    """What a model says of n images.

    Attributes
    ----------
    indices : NDArray
        Positions of the images that could be read, (n,).
    probabilities, global_logits, local_logits : NDArray
        (n, C).
    ood_scores : NDArray
        Larger is more in-distribution, (n,); (0,) where none were asked for.
    """

    indices: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    global_logits: NDArray[np.float32]
    local_logits: NDArray[np.float32]
    ood_scores: NDArray[np.float32]


def predict(
    model: AdaptedModel,
    images: ImageSet,
    inference: InferenceConfig = InferenceConfig(),  # noqa: B008 - frozen
    *,
    text: TextFeatures | None = None,
    cache_dir: Path | None = None,
    unreadable: list[UnreadableImageError] | None = None,
    title: str = "predicting",
) -> Predictions:
    """Run a model over images; see :func:`predict_each`. ``text`` is what its prompts gave, if that is known."""
    texts = None if text is None else [text]
    said = predict_each(
        [model], images, inference, texts=texts, cache_dir=cache_dir, unreadable=unreadable, title=title
    )
    return said[0]


@torch.no_grad()
def text_of(model: AdaptedModel, inference: InferenceConfig) -> TextFeatures:
    """Text features of a trained model's prompts, which stay the same for all images that are read so."""
    with autocast(model.backbone.device, inference.precision):
        return model.eval().encode_text()


@torch.no_grad()
def predict_each(
    models: Sequence[AdaptedModel],
    images: ImageSet,
    inference: InferenceConfig = InferenceConfig(),  # noqa: B008 - frozen
    *,
    texts: Sequence[TextFeatures] | None = None,
    cache_dir: Path | None = None,
    unreadable: list[UnreadableImageError] | None = None,
    title: str = "predicting",
    score_all: bool = True,
) -> list[Predictions]:
    """Run models on the same backbone over images, which are encoded once for all of them.

    Parameters
    ----------
    models : sequence of AdaptedModel
        Trained models.
    images : ImageSet
        n images; labels are not looked at.
    inference : InferenceConfig
        How they are read and scored.
    texts : sequence of TextFeatures or None
        Of each model, from :func:`text_of`; None encodes them.
    cache_dir : Path or None
        Folder where encoded images are kept for other runs, their patches in half precision; None keeps none.
    unreadable : list or None
        Collects images that can't be decoded, which are then left out; None raises at the first.
    title : str
        Text of the progress bar.
    score_all : bool, default True
        Score the images by all models; otherwise by the first alone.

    Raises
    ------
    UnreadableImageError
        At an image that can't be decoded, unless ``unreadable`` collects it.
    SotglpError
        If no image at all can be decoded.
    """
    backbone = models[0].backbone
    if texts is None:
        texts = [text_of(model, inference) for model in models]
    rows: list[list[tuple[NDArray[Any], ...]]] = [[] for _ in models]
    with progress_bar(title, len(images), "images", show=inference.show_progress) as advance:
        for indices, encoded in encode_images(backbone, images, inference, cache_dir, unreadable):
            encoded = encoded.to(backbone.device)
            for model, text, own_rows in zip(models, texts, rows, strict=True):
                outputs = model.compare(encoded, text)
                scores = outputs.global_logits.new_empty(0)
                if score_all or model is models[0]:
                    evidence = ood.Evidence(outputs, model, encoded)
                    scores = ood.score_evidence(evidence, inference.ood_method, inference.temperature)
                numbers = (model.probabilities(outputs), outputs.global_logits, outputs.local_logits, scores)
                own_rows.append((indices, *(tensor.cpu().numpy() for tensor in numbers)))
            advance(len(indices), "")
    if not rows[0]:
        raise SotglpError(
            f"none of the {len(images)} images can be read: {unreadable[0] if unreadable else 'no images'}"
        )
    return [Predictions(*map(np.concatenate, zip(*own_rows, strict=True))) for own_rows in rows]


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
) -> dict[str, Any]:
    """Accuracy of a model on labelled images, and how well it tells them from out-of-distribution ones.

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
        Classes that come into question, where the images are known to be of some alone; None takes all.
    calibration : Calibration or None
        The model's; its decisions are judged too where ``inference`` asks for its score.
    cache_dir : Path or None
        See :func:`predict`.
    unreadable : list or None
        Collects images that can't be decoded, which are then left out; None raises at the first.

    Returns
    -------
    dict
        ``accuracy`` (of the prediction), ``accuracy_global``, ``accuracy_local`` (of either branch alone), ``ece``
        (expected calibration error; not where classes are left out), ``n``, and under ``ood`` for each set the entries
        of :class:`sotglp.scoring.metrics.OodMetrics`, ``oscr`` and ``n``. With a calibration, ``ece_calibrated``,
        ``accepted`` (share of images at or above the threshold), ``accuracy_accepted``, and for each set ``rejected``.
        Fractions from 0 to 1.

    Raises
    ------
    SotglpError
        If images have no labels or other ones than the model's classes.
    """
    names = model.class_names if among is None else among
    if strange := [name for name in names if name not in model.class_names]:
        raise SotglpError(f"{strange[0]!r} is none of the {len(model.class_names)} classes of the model: leave it out")
    all_targets = images.targets(names)

    text = text_of(model, inference)

    def predicted(some: ImageSet, title: str) -> Predictions:
        return predict(model, some, inference, text=text, cache_dir=cache_dir, unreadable=unreadable, title=title)

    said = predicted(images, "evaluating")
    others = {name: predicted(some, f"scoring {name}") for name, some in (ood_sets or {}).items()}
    return measure(
        said,
        all_targets[said.indices],
        others,
        inference,
        columns=None if among is None else [model.class_names.index(name) for name in names],
        calibration=calibration,
    )


def measure(
    said: Predictions,
    targets: NDArray[np.int64],
    others: Mapping[str, Predictions],
    inference: InferenceConfig,
    *,
    columns: Sequence[int] | None = None,
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """Judge what a model has said already.

    Parameters
    ----------
    said : Predictions
        Of n labelled images.
    targets : NDArray
        Place of the right class of each, among ``columns`` where they are given, (n,).
    others : mapping of str to Predictions
        Of images of none of the classes, by name of their set.
    inference : InferenceConfig
        How all of them were scored.
    columns : sequence of int or None, default None
        Positions of the classes that come into question; None takes all.
    calibration : Calibration or None
        See :func:`evaluate`.

    Returns
    -------
    dict
        See :func:`evaluate`.
    """
    chosen = slice(None) if columns is None else list(columns)

    def right(scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        answers: NDArray[np.bool_] = scores[:, chosen].argmax(axis=1) == targets
        return answers

    is_right = right(said.probabilities)
    result: dict[str, Any] = {
        "accuracy": float(is_right.mean()),
        "accuracy_global": float(right(said.global_logits).mean()),
        "accuracy_local": float(right(said.local_logits).mean()),
        "n": len(targets),
        "ood": {},
    }
    if columns is None:
        result["ece"] = expected_calibration_error(said.probabilities, targets)
        if calibration:
            calibrated = calibration.probabilities(said.probabilities)
            result["ece_calibrated"] = expected_calibration_error(calibrated, targets)
    decider = calibration if calibration and calibration.is_for(inference) else None
    if decider:
        accepted = ~decider.rejects(said.ood_scores)
        result["accepted"] = float(accepted.mean())
        result["accuracy_accepted"] = float(is_right[accepted].mean()) if accepted.any() else None
    for name, other in others.items():
        result["ood"][name] = {
            **ood_metrics(said.ood_scores, other.ood_scores),
            "oscr": oscr(said.ood_scores, is_right, other.ood_scores),
            "n": len(other.ood_scores),
        }
        if decider:
            result["ood"][name]["rejected"] = float(decider.rejects(other.ood_scores).mean())
    return result
