"""Predictions of few-shot images by models that did not learn from them: the shots serve for calibration too."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from sotglp.errors import SotglpError
from sotglp.features.distributed import Processes
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.scoring.evaluate import Predictions, predict
from sotglp.settings import InferenceConfig, TrainConfig
from sotglp.training.fit import adapt

MOST_FOLDS = 5
"""Folds where nothing else is asked: each fold's model learns from four fifths of the shots."""


@dataclass(frozen=True)
class CrossFit:
    """What models say of images that they did not learn from.

    Attributes
    ----------
    models : tuple of AdaptedModel
        Model of each fold, learned from all other folds.
    folds : NDArray
        Fold of each image, (n,).
    said : Predictions
        Of all n images in their order, each by the model of its fold.
    """

    models: tuple[AdaptedModel, ...]
    folds: NDArray[np.int64]
    said: Predictions


def cross_fit(
    model: AdaptedModel,
    images: ImageSet,
    config: TrainConfig,
    inference: InferenceConfig,
    *,
    n_folds: int | None = None,
    cache_dir: Path | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> CrossFit:
    """Learn a model for each fold of the shots from the other folds, and let it judge its own.

    Parameters
    ----------
    model : AdaptedModel
        The model that learned from all shots; backbone, classes and settings are taken from it.
    images : ImageSet
        The n labelled images that it learned from.
    config : TrainConfig
        Settings of the run; all images of the other folds are learned from.
    inference : InferenceConfig
        How images are read and scored.
    n_folds : int or None
        Folds, 2 or more; None takes as many as the smallest class has images, at most ``MOST_FOLDS``.
    cache_dir : Path or None
        Folder where encoded images are kept; None keeps them on disk until all folds are done, or where several
        processes share the run, in memory for each fold anew.
    checkpoint : Path or None
        Checkpoint of the run of the model; each fold keeps its state beside it until :func:`remove_checkpoints`.
    resume : bool, default False
        Go on from such states, where there are any.

    Raises
    ------
    SotglpError
        If a class has fewer images than there are folds.
    """
    n_folds = folds_of(images, n_folds)
    splitter = StratifiedKFold(n_folds, shuffle=True, random_state=config.seed)
    folds = np.empty(len(images), dtype=np.int64)
    for fold, (_, held_out) in enumerate(splitter.split(folds, images.targets(model.class_names))):
        folds[held_out] = fold
    with TemporaryDirectory(prefix="sotglp-") as temporary:
        # Several processes have no temporary folder in common.
        alone = Processes(model.backbone.device).count == 1
        kept_in = cache_dir or (Path(temporary) if alone else None)
        parts = []
        models = []
        for fold in range(n_folds):
            which = f"fold {fold + 1} of {n_folds}"
            fitted = adapt(
                model.backbone,
                images.take(folds != fold),
                model.config,
                config.model_copy(update={"shots": None}),
                classes=model.class_names,
                checkpoint=fold_checkpoint(checkpoint, fold) if checkpoint else None,
                resume=resume,
                cache_dir=kept_in,
                show_progress=inference.show_progress,
                title=f"training, {which}",
            )
            models.append(fitted.model)
            held_out = np.flatnonzero(folds == fold)
            own = images.take(held_out)
            said = predict(fitted.model, own, inference, cache_dir=kept_in, title=f"calibrating, {which}")
            parts.append((held_out, said))
    return CrossFit(tuple(models), folds, _in_order(parts))


def folds_of(images: ImageSet, n_folds: int | None = None) -> int:
    """Number of folds that labelled images are divided into; see :func:`cross_fit`.

    Raises
    ------
    SotglpError
        If a class has fewer images than that, or one alone.
    """
    smallest, count = min(Counter(images.labels or ()).items(), key=lambda item: item[1])
    n_folds = max(min(MOST_FOLDS, count), 2) if n_folds is None else n_folds
    if not 2 <= n_folds <= count:
        raise SotglpError(
            f"{n_folds} folds can't be made, since there must be two or more and {smallest!r} has {count} images: give "
            "more images, or calibrate on images that are not trained on"
        )
    return n_folds


def remove_checkpoints(checkpoint: Path) -> None:
    """Remove the state of a finished run and of its folds."""
    checkpoint.unlink(missing_ok=True)
    forget_folds(checkpoint)


def forget_folds(checkpoint: Path) -> None:
    """Remove the state of a run's folds, up to ``MOST_FOLDS`` of them."""
    for fold in range(MOST_FOLDS):
        fold_checkpoint(checkpoint, fold).unlink(missing_ok=True)


def fold_checkpoint(checkpoint: Path, fold: int) -> Path:
    """Where the state of a fold's run is kept."""
    return checkpoint.with_name(f"{checkpoint.name}.fold{fold}")


def _in_order(parts: list[tuple[NDArray[np.int64], Predictions]]) -> Predictions:
    """Predictions of the parts of a set, in the set's order."""
    order = np.argsort(np.concatenate([places for places, _ in parts]))

    def gathered(name: str) -> NDArray[np.float32]:
        return np.concatenate([getattr(said, name) for _, said in parts])[order]

    return Predictions(
        np.arange(len(order)),
        gathered("probabilities"),
        gathered("global_logits"),
        gathered("local_logits"),
        gathered("ood_scores"),
    )
