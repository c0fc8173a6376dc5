"""Whether a model is worth its training: its accuracy beside chance and beside zero-shot classification."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from sotglp.errors import SotglpError, SotglpWarning, UnreadableImageError
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.methods.configs import ZeroShotConfig
from sotglp.methods.text_features import TextFeatures
from sotglp.methods.zero_shot import ZeroShot
from sotglp.scoring.predict import Predictions, predict_each, text_of
from sotglp.settings import InferenceConfig
from sotglp.training.chance import SIGNIFICANCE, is_near_chance


def zero_shot_beside(model: AdaptedModel) -> ZeroShot | None:
    """Return the zero-shot classifier of a model's classes with its sentence, or the default one.

    None if the model is one itself, its backbone has no text, or a class name is too long for the sentence.
    """
    if model.kind == ZeroShot.kind or not model.backbone.has_text:
        return None
    template = getattr(model.config, "zero_shot_template", ZeroShotConfig().zero_shot_template)
    try:
        return ZeroShot(model.backbone.frozen, model.class_names, zero_shot_template=template).eval()
    except SotglpError:
        return None


def predict_beside(
    model: AdaptedModel,
    text: TextFeatures,
    images: ImageSet,
    inference: InferenceConfig,
    *,
    cache_dir: Path | None = None,
    unreadable: list[UnreadableImageError] | None = None,
) -> tuple[Predictions, Predictions | None]:
    """Predict images, which are encoded once, with a model and with :func:`zero_shot_beside` it, if there is one."""
    zero_shot = zero_shot_beside(model)
    others = [zero_shot] if zero_shot else []
    predictions, *beside = predict_each(
        [model, *others],
        images,
        inference,
        texts=[text, *(text_of(other, inference) for other in others)],
        cache_dir=cache_dir,
        unreadable=unreadable,
        title="evaluating",
        score_all=False,
    )
    return predictions, beside[0] if beside else None


def compare_with_baseline(
    predictions: Predictions,
    beside: Predictions | None,
    targets: NDArray[np.int64],
    columns: Sequence[int] | None = None,
) -> float | None:
    """Return the accuracy of the predictions ``beside``, if there are any, and warn by :func:`warn_if_weak`.

    ``targets`` (n,) are true class indices, counted among ``columns``, the class indices to predict among, if given.
    """
    chosen = slice(None) if columns is None else list(columns)
    is_right, *others = (
        one.probabilities[:, chosen].argmax(axis=1) == targets for one in (predictions, beside) if one is not None
    )
    warn_if_weak(is_right, others[0] if others else None, targets)
    return float(others[0].mean()) if others else None


def warn_if_weak(
    is_right: NDArray[np.bool_], zero_shot_is_right: NDArray[np.bool_] | None, targets: NDArray[np.int64]
) -> None:
    """Emit a SotglpWarning if n predictions are near chance, or clearly fewer are right than zero-shot.

    Chance is the share of the commonest class, as in :mod:`sotglp.training.chance`. Clearly is a one-sided sign test on
    the images that only one of both classifies correctly, at the same level.
    """
    n, n_correct = len(is_right), int(is_right.sum())
    chance = int(np.bincount(targets).max()) / n
    accuracy = f"accuracy {n_correct / n:.1%} on {n} images"
    if chance < 1 and is_near_chance(n_correct, n, chance):
        warnings.warn(
            f"{accuracy} is near chance ({chance:.1%}, the share of the commonest class): check that the images belong "
            "to the model's classes, or fit another method or backbone",
            SotglpWarning,
            stacklevel=2,
        )
    if zero_shot_is_right is None:
        return
    lost, gained = int((zero_shot_is_right & ~is_right).sum()), int((is_right & ~zero_shot_is_right).sum())
    if lost > gained and binomtest(lost, lost + gained, alternative="greater").pvalue < SIGNIFICANCE:
        warnings.warn(
            f"{accuracy} is below zero-shot classification without training ({zero_shot_is_right.mean():.1%}): use "
            "the method zero-shot, or fit with more images, another learning rate or --method auto",
            SotglpWarning,
            stacklevel=2,
        )
