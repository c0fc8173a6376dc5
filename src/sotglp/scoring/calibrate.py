"""Calibration of a model on images that it did not learn from, kept apart for that or the few shots themselves."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from sotglp.errors import SotglpWarning, UnreadableImageError
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.scoring.calibration import Calibration
from sotglp.scoring.cross_fit import CrossFit
from sotglp.scoring.evaluate import Predictions, predict
from sotglp.scoring.rejection import reject_below
from sotglp.scoring.temperature import fit_temperature
from sotglp.settings import InferenceConfig


def calibrate_held_out(
    model: AdaptedModel,
    images: ImageSet,
    inference: InferenceConfig,
    tpr: float,
    *,
    unreadable: list[UnreadableImageError] | None = None,
) -> Calibration:
    """Calibrate on images of the classes that the model did not learn from.

    Parameters
    ----------
    model : AdaptedModel
        The model.
    images : ImageSet
        n images; without labels, temperature and prediction sets are left out.
    inference : InferenceConfig
        How images are read, and the score that the threshold is for.
    tpr : float
        Share of images of the classes that should pass, above 0 and at most 1.
    unreadable : list or None
        Collects images that can't be decoded, which are then left out; None raises at the first.

    Raises
    ------
    SotglpError
        If images or ``tpr`` can't be used.

    Warns
    -----
    SotglpWarning
        If all images are rightly classified, so that no temperature can be found.
    """
    labels = None if images.labels is None else images.targets(model.class_names)
    said = predict(model, images, inference, unreadable=unreadable, title="calibrating")
    return _calibration(said, inference, tpr, None if labels is None else labels[said.indices])


def calibrate_crossed(crossed: CrossFit, images: ImageSet, inference: InferenceConfig, tpr: float) -> Calibration:
    """Calibrate on the few-shot images themselves, each judged by a model that did not learn from it.

    These models learned from fewer images than the one that the calibration is for, so the threshold is, if anything,
    lenient, and the interval of :class:`Rejection` holds roughly.

    Parameters
    ----------
    crossed : CrossFit
        From :func:`sotglp.scoring.cross_fit.cross_fit`.
    images : ImageSet
        The labelled images that it was made on.
    inference, tpr
        See :func:`calibrate_held_out`, which warns of the same.
    """
    labels = images.targets(crossed.models[0].class_names)
    return _calibration(crossed.said, inference, tpr, labels, crossed)


def _calibration(
    said: Predictions,
    inference: InferenceConfig,
    tpr: float,
    labels: NDArray[np.int64] | None,
    crossed: CrossFit | None = None,
) -> Calibration:
    rejection = reject_below(said.ood_scores, tpr)
    if labels is None:
        return Calibration(inference.ood_method, inference.temperature, rejection)
    true_probabilities = said.probabilities[np.arange(len(labels)), labels]
    return Calibration(
        inference.ood_method,
        inference.temperature,
        rejection,
        _temperature(said.probabilities, true_probabilities, labels),
        true_probabilities,
        crossed.folds if crossed else None,
        crossed.models if crossed else (),
    )


def _temperature(
    probabilities: NDArray[np.float32], true_probabilities: NDArray[np.float32], labels: NDArray[np.int64]
) -> float:
    """Temperature that fits the labels; 1 where all images are right, which would make every probability 0 or 1."""
    if (true_probabilities == probabilities.max(axis=1)).all():
        warnings.warn(
            f"all {len(labels)} calibration images are rightly classified, which does not tell how sure to be: "
            "probabilities stay as they are; more images would tell",
            SotglpWarning,
            stacklevel=4,
        )
        return 1.0
    return fit_temperature(probabilities, labels)
