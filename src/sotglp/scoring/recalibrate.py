"""Calibrate a model again after its classes changed, on the shots that it stores."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray

from sotglp.errors import SotglpError, SotglpWarning
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.methods.shot_features import stored_shots
from sotglp.scoring.calibration import Calibration, calibrate_crossed
from sotglp.scoring.cross_fit import CrossFit, cross_fit, joined
from sotglp.scoring.predict import predict, text_of
from sotglp.settings import Calibrator, InferenceConfig, TrainConfig
from sotglp.training.class_changes import renamed, without_class

TOLERANCE = 0.05
"""Median difference of probabilities from which on the models of the folds were not those of the stored shots."""


class ClassChange(NamedTuple):
    """A change of a model's classes without training, which the models of the folds undergo too.

    ``apply`` changes a model; ``removed`` is the class that is left out.
    """

    apply: Callable[[AdaptedModel], AdaptedModel]
    removed: str | None = None

    @classmethod
    def removing(cls, name: str) -> ClassChange:
        """Return the change that removes a class."""
        return cls(lambda model: without_class(model, name), name)

    @classmethod
    def renaming(cls, old: str, new: str) -> ClassChange:
        """Return the change that renames a class."""
        return cls(lambda model: renamed(model, old, new))


class Recalibration(NamedTuple):
    """A calibration after a change of classes, None if there is none, and a sentence on what was done."""

    calibration: Calibration | None
    said: str


def recalibrate(
    calibration: Calibration | None,
    before: AdaptedModel,
    after: AdaptedModel,
    change: ClassChange | None,
    config: TrainConfig,
    *,
    cache_dir: Path | None = None,
    show_progress: bool = False,
) -> Recalibration:
    """Calibrate a changed model as it was calibrated before: threshold, temperature or map, and prediction sets.

    It is repeated by cross-fits on the stored shots. If a class was removed or renamed, the models of the folds that
    the calibration has are changed instead of trained. If only the name of a class changed, and no text with it, the
    calibration stays.

    Parameters
    ----------
    calibration : Calibration or None
        That of the model before; None stays None.
    before, after, change
        The model before and after, and the change; None if a class was added.
    config : TrainConfig
        Settings of the run that trained the model.
    cache_dir, show_progress
        See :func:`sotglp.training.fit.adapt`.

    Warns
    -----
    SotglpWarning
        If the calibration is removed: the model stores no shots of all classes, or too few of one.
    """
    if calibration is None:
        return Recalibration(None, "")
    inference = config.inference_config().with_score(calibration.ood_method, calibration.ood_temperature)
    inference = inference.model_copy(update={"show_progress": show_progress})
    if change and change.removed is None and _same_text(before, after, inference):
        return Recalibration(calibration, "the calibration stays as it is")
    try:
        found = _recalibrated(calibration, before, after, change, config, inference, cache_dir)
    except SotglpError as error:
        warnings.warn(
            f"the calibration was removed, since the classes changed and it can't be repeated ({error}): calibrate "
            "again",
            SotglpWarning,
            stacklevel=3,
        )
        return Recalibration(None, "")
    rejection = found.rejection
    low, high = rejection.interval
    return Recalibration(
        found,
        f"threshold, probabilities and sets recalibrated on {rejection.n} stored shots, threshold "
        f"{calibration.rejection.threshold:.4g} -> {rejection.threshold:.4g}: {rejection.expected_tpr:.1%} accepted "
        f"({low:.1%} to {high:.1%})",
    )


def _same_text(before: AdaptedModel, after: AdaptedModel, inference: InferenceConfig) -> bool:
    texts = zip(text_of(before, inference), text_of(after, inference), strict=True)
    return all(torch.equal(one, other) for one, other in texts)


def _recalibrated(
    calibration: Calibration,
    before: AdaptedModel,
    after: AdaptedModel,
    change: ClassChange | None,
    config: TrainConfig,
    inference: InferenceConfig,
    cache_dir: Path | None,
) -> Calibration:
    images = stored_shots(after)
    if images is None or len(images.classes) < len(after.class_names):
        raise SotglpError("the model doesn't store shots of all classes")
    crossed = change and _changed_folds(calibration, before, after, change, images, inference)
    if crossed is None:
        settings = config.model_copy(update={"augment": False})
        crossed = cross_fit(after, images, settings, inference, cache_dir=cache_dir)
    bound = calibration.rejection.accepted_error
    options = {} if bound is None else {"max_error": bound.max_error, "confidence": bound.confidence}
    known_map = calibration.probability_map
    return calibrate_crossed(
        crossed,
        images,
        inference,
        calibration.rejection.tpr,
        calibrator=cast(Calibrator, known_map.kind) if known_map else "temperature",
        **options,
    )


def _changed_folds(
    calibration: Calibration,
    before: AdaptedModel,
    after: AdaptedModel,
    change: ClassChange,
    images: ImageSet,
    inference: InferenceConfig,
) -> CrossFit | None:
    """Change the models of the folds; None if they are not those of the shots that the model stores, all of them."""
    folds, shots, known = calibration.folds, before.shots, stored_shots(before)
    if folds is None or shots is None or after.shots is None or known is None:
        return None
    if not len(folds) == len(shots.classes) == len(known) or len(images) != len(after.shots.classes):
        return None
    if not _fits(calibration, before, folds, known, inference):
        return None
    n_folds = len(calibration.fold_models)
    removed = None if change.removed is None else before.class_index(change.removed)
    folds_after = folds[[own != removed for own in shots.classes.tolist()]]
    models, parts = [], []
    for fold, learned in enumerate(calibration.fold_models):
        changed = change.apply(learned)
        changed.shots = after.shots.of_rows(np.flatnonzero(folds_after != fold).tolist())
        models.append(changed)
        held_out = np.flatnonzero(folds_after == fold)
        title = f"calibrating, fold {fold + 1} of {n_folds}"
        parts.append((held_out, predict(changed, images.take(held_out), inference, title=title)))
    return CrossFit(tuple(models), folds_after, joined(parts))


def _fits(
    calibration: Calibration,
    before: AdaptedModel,
    folds: NDArray[np.int64],
    images: ImageSet,
    inference: InferenceConfig,
) -> bool:
    """Whether the models of the folds give the stored shots the probabilities that the calibration is based on."""
    targets = images.targets(before.class_names)
    plain = inference.model_copy(update={"ood_method": "mcm", "show_progress": False})
    found = np.empty(len(images))
    for fold, model in enumerate(calibration.fold_models):
        held_out = np.flatnonzero(folds == fold)
        probabilities = predict(model, images.take(held_out), plain).probabilities
        found[held_out] = probabilities[np.arange(len(held_out)), targets[held_out]]
    return bool(np.median(np.abs(found - calibration.true_probabilities)) < TOLERANCE)
