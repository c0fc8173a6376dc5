"""Cross-validation of the few-shot images, for calibration without held-out ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sotglp.errors import DivergedError, SotglpError
from sotglp.features.view_cache import CacheDir, ViewCache
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.scoring.predict import Predictions, predict
from sotglp.settings import MAX_SKLEARN_SEED, SHOT_SCORES, InferenceConfig, TrainConfig
from sotglp.training.fit import adapt

MAX_FOLDS = 5
"""Default number of folds: each model is trained on four fifths of the shots."""


SHARE_OF_STEPS = 0.5
"""Steps of the models of all folds together, as a share of the steps of the fit (docs/fold_training.md)."""

LEAST_STEPS = 5
"""Fewest steps of the model of a fold, unless the fit takes fewer."""


@dataclass(frozen=True)
class CrossFit:
    """Out-of-fold predictions of n images in their order, each by the model of its fold.

    ``models`` holds for each fold the model that was trained on all others, ``folds`` the fold of each image, (n,).
    """

    models: tuple[AdaptedModel, ...]
    folds: NDArray[np.int64]
    predictions: Predictions


def cross_fit(
    model: AdaptedModel,
    images: ImageSet,
    config: TrainConfig,
    inference: InferenceConfig,
    *,
    n_folds: int | None = None,
    shorten: bool = True,
    cache_dir: CacheDir = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    on_fold: Callable[[NDArray[np.int64], Predictions], None] | None = None,
) -> CrossFit:
    """Train a model for each fold of the shots on the other folds, and predict that fold with it.

    Raise a SotglpError if a class has fewer images than there are folds.

    Parameters
    ----------
    model, images, config
        The model that was trained on all shots, these n labelled images, and the settings of the run without ``shots``.
    inference : InferenceConfig
        How images are read and scored.
    n_folds : int or None
        2 or more; None takes the number of images of the smallest class, at most ``MAX_FOLDS``.
    shorten : bool, default True
        Train the models of the folds for fewer, larger steps, by :func:`fold_training`; False trains them as
        ``config`` says, at ``n_folds`` - 1 times the steps of the fit.
    cache_dir : Path, ViewCache or None
        Folder of the feature cache, or the cache of the fit on all images, whose views the folds share; None encodes
        them once for all folds.
    checkpoint, resume
        See :func:`sotglp.training.fit.adapt`; each fold stores its own checkpoint beside that of the model's run, until
        :func:`remove_checkpoints`.
    on_fold : callable or None
        Called after each fold with the indices of its images and their predictions.
    """
    # Whoever predicts with a calibrated model imports this module, but not scikit-learn.
    from sklearn.model_selection import StratifiedKFold

    n_folds = folds_of(images, n_folds)
    splitter = StratifiedKFold(n_folds, shuffle=True, random_state=config.seed % MAX_SKLEARN_SEED)
    # The random views of an image are those of the fit on all images, whatever its position among those of a fold.
    images = replace(images, ranges=model.value_ranges, numbers=tuple(range(len(images))))
    cache = ViewCache.of(cache_dir)
    folds = np.empty(len(images), dtype=np.int64)
    for fold, (_, held_out) in enumerate(splitter.split(folds, images.targets(model.class_names))):
        folds[held_out] = fold
    # Nothing else needs what the model of a fold remembers: it is not written to files.
    remember = config.remember and inference.ood_method in SHOT_SCORES
    whole = config.model_copy(update={"shots": None, "remember": remember})
    shortened = fold_training(whole, len(images), n_folds) if shorten else whole
    parts = []
    models = []
    for fold in range(n_folds):
        which = f"fold {fold + 1} of {n_folds}"
        fit_fold = partial(
            adapt,
            model.backbone,
            images.take(folds != fold),
            model.config,
            classes=model.class_names,
            cache_dir=cache,
            show_progress=inference.show_progress,
            title=f"training, {which}",
        )
        own_checkpoint = fold_checkpoint(checkpoint, fold) if checkpoint else None
        try:
            fitted = fit_fold(shortened, checkpoint=own_checkpoint, resume=resume)
        except DivergedError:
            if shortened.learning_rate == whole.learning_rate:
                raise
            fitted = fit_fold(whole)  # the steps of the fit itself, which did not diverge
        models.append(fitted.model)
        held_out = np.flatnonzero(folds == fold)
        own = images.take(held_out)
        predictions = predict(fitted.model, own, inference, cache_dir=cache, title=f"calibrating, {which}")
        parts.append((held_out, predictions))
        if on_fold:
            on_fold(held_out, predictions)
    return CrossFit(tuple(models), folds, joined(parts))


def fold_training(config: TrainConfig, n_images: int, n_folds: int) -> TrainConfig:
    """Return the settings of the models of folds that together take ``SHARE_OF_STEPS`` of the steps of a fit.

    With fewer epochs, the step size is larger by so much that the sum of the step sizes is half that of a fit on
    ``n_images``, or it is that of the fit. A model of a fold takes ``LEAST_STEPS`` steps or as many as a fit.
    """
    epochs = config.n_epochs(n_images)
    steps_per_epoch = config.steps_per_epoch(n_images - n_images // n_folds)
    fewer = max(round(SHARE_OF_STEPS * epochs / (n_folds - 1)), math.ceil(LEAST_STEPS / steps_per_epoch))
    fewer = min(fewer, epochs)
    return config.model_copy(
        update={
            "epochs": fewer,
            "learning_rate": config.learning_rate * max((epochs + 1) / (2 * (fewer + 1)), 1.0),  # of the cosine
            "warmup_epochs": round(config.warmup_epochs * fewer / epochs),
        }
    )


def folds_of(images: ImageSet, n_folds: int | None = None) -> int:
    """Return the number of folds for labelled images, by the rule of :func:`cross_fit`."""
    smallest, count = min(Counter(images.labels or ()).items(), key=lambda item: item[1])
    n_folds = max(min(MAX_FOLDS, count), 2) if n_folds is None else n_folds
    if not 2 <= n_folds <= count:
        raise SotglpError(
            f"can't split the images into {n_folds} folds, since 2 is the least and {smallest!r} has {count} "
            f"{'image' if count == 1 else 'images'}: give more images, or calibrate on held-out ones"
        )
    return n_folds


def remove_checkpoints(checkpoint: Path) -> None:
    """Remove the checkpoint of a finished run and those of its folds."""
    # Last, since it shows that a run killed in between can be resumed, which removes the rest.
    remove_fold_checkpoints(checkpoint)
    checkpoint.unlink(missing_ok=True)


def remove_fold_checkpoints(checkpoint: Path) -> None:
    """Remove the checkpoints of a run's folds, up to ``MAX_FOLDS`` of them."""
    for fold in range(MAX_FOLDS):
        fold_checkpoint(checkpoint, fold).unlink(missing_ok=True)


def fold_checkpoint(checkpoint: Path, fold: int) -> Path:
    """Path of the checkpoint of a fold."""
    return checkpoint.with_name(f"{checkpoint.name}.fold{fold}")


def joined(parts: list[tuple[NDArray[np.int64], Predictions]]) -> Predictions:
    """Join the predictions of the parts of a set, in the set's order."""
    order = np.argsort(np.concatenate([indices for indices, _ in parts]))
    rows = ("probabilities", "global_logits", "local_logits", "ood_scores")
    joined = (np.concatenate([getattr(predictions, name) for _, predictions in parts])[order] for name in rows)
    return Predictions(np.arange(len(order)), *joined)
