"""Calibration of a model on images that it was not trained on, and the decisions based on it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from sotglp.backbone_defaults import SHOTS_FOR_THRESHOLD
from sotglp.errors import SotglpError, SotglpWarning, UnknownNameError, UnreadableImageError
from sotglp.images.image_set import ImageSet
from sotglp.methods.base import AdaptedModel
from sotglp.scoring.class_conditional import classes_without_bound, conformal_sets
from sotglp.scoring.cluster_conditional import UNCLUSTERED, cluster_sets
from sotglp.scoring.conformal import cross_sets, split_sets
from sotglp.scoring.conformity import TrueClasses, conformity
from sotglp.scoring.cross_fit import CrossFit
from sotglp.scoring.predict import Predictions, predict
from sotglp.scoring.probability_map import ProbabilityMap, fit_map
from sotglp.scoring.rejection import CONFIDENCE, Rejection, reject_below
from sotglp.scoring.risk_control import reject_for_error
from sotglp.scoring.temperature import fit_temperature, tempered
from sotglp.settings import Calibrator, InferenceConfig, OodMethod, SetScore


@dataclass(frozen=True)
class Calibration:
    """Rejection threshold, temperature, and the probabilities that prediction sets are computed from.

    Attributes
    ----------
    ood_method : str
        Score that the threshold applies to; see :func:`sotglp.ood.score`.
    ood_temperature : float
        Temperature of that score.
    rejection : Rejection
        The threshold, and the share of in-distribution images that it accepts.
    temperature : float
        Probabilities p become p^(1 / temperature), normalised; 1 if calibrated without labels, or by another map.
    true_probabilities : NDArray
        Probability, before temperature, of the true class of each calibration image, (n,); (0,) without labels.
    folds : NDArray or None
        Fold of each calibration image, (n,); None for held-out images.
    fold_models : tuple of AdaptedModel
        For each fold, the model that was trained on the others; empty for held-out images.
    true_classes : TrueClasses or None
        True class of each calibration image and its rank; None without labels, and from files of older versions.
    probability_map : ProbabilityMap or None
        Map of probabilities in place of the temperature; see :mod:`sotglp.scoring.probability_map`.
    """

    ood_method: OodMethod
    ood_temperature: float
    rejection: Rejection
    temperature: float = 1.0
    true_probabilities: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    folds: NDArray[np.int64] | None = None
    fold_models: tuple[AdaptedModel, ...] = ()
    true_classes: TrueClasses | None = None
    probability_map: ProbabilityMap | None = None

    def rejects(self, ood_scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether each image is unknown, (B,), given its scores by ``ood_method``; one whose score is NaN is."""
        accepted: NDArray[np.bool_] = ood_scores >= self.rejection.threshold
        return ~accepted

    def probabilities(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply the temperature, or the map in its place, to probabilities (B, C)."""
        if self.probability_map is not None:
            return self.probability_map.apply(probabilities)
        return tempered(probabilities, self.temperature)

    def sets(
        self,
        probabilities: NDArray[np.float32],
        coverage: float,
        *,
        score: SetScore = "lac",
        per_class: bool = False,
        per_cluster: bool = False,
    ) -> NDArray[np.bool_]:
        """Compute the prediction set of each image, (B, C).

        Parameters
        ----------
        probabilities : NDArray
            Before temperature, from the model and from that of each fold in turn, (1 + F, B, C).
        coverage : float
            Share of images whose set should contain the true class; see :mod:`sotglp.scoring.conformal`.
        score : {"lac", "aps", "raps"}, default "lac"
            Measure that sets are cut at; see :mod:`sotglp.scoring.conformity`.
        per_class : bool, default False
            Cover that share of the images of each class; see :mod:`sotglp.scoring.class_conditional`.
        per_cluster : bool, default False
            Cover that share in each cluster of classes instead; see :mod:`sotglp.scoring.cluster_conditional`.

        Raises
        ------
        SotglpError
            If the model was calibrated without labels, or ``coverage`` is not between 0 and 1; if ``score`` is unknown;
            if both ``per_class`` and ``per_cluster`` are set; if the calibration is of an older version that only has
            what ``lac`` over all images needs.

        Warns
        -----
        SotglpWarning
            If classes have too few calibration images for ``per_class``, so that every set contains them, or for
            ``per_cluster``, so that they are compared with all images.
        """
        if per_class and per_cluster:
            raise SotglpError("sets are calibrated per class or per cluster: choose one of them")
        if score not in get_args(SetScore):
            raise UnknownNameError("score of sets", score, get_args(SetScore))
        if not len(self.true_probabilities):
            raise SotglpError("prediction sets need a calibration with labels: calibrate again and give them")
        if score != "lac" or per_class or per_cluster:
            return self._other_sets(probabilities, coverage, score, per_class, per_cluster)
        if self.folds is None:
            return split_sets(probabilities[0], self.true_probabilities, coverage)
        return cross_sets(probabilities[1:], self.true_probabilities, self.folds, coverage)

    def _other_sets(
        self, probabilities: NDArray[np.float32], coverage: float, score: SetScore, per_class: bool, per_cluster: bool
    ) -> NDArray[np.bool_]:
        if self.true_classes is None:
            raise SotglpError(
                "this calibration is of an older version, which stored no classes: calibrate again for aps, raps or "
                "sets per class"
            )
        targets = self.true_classes.targets
        folds = np.zeros_like(targets) if self.folds is None else self.folds
        by_model = probabilities[:1] if self.folds is None else probabilities[1:]
        known = self.true_classes.conformity(score, self.true_probabilities)
        if per_cluster:
            sets, clusters = cluster_sets(conformity(by_model, score), known, folds, coverage, targets)
            if n_free := int((clusters == UNCLUSTERED).sum()):
                warnings.warn(
                    f"{n_free} of {len(clusters)} classes have too few calibration images to be clustered for a "
                    f"coverage of {coverage:g}, so they are compared with the images of all classes: calibrate on more "
                    "images, or lower the coverage",
                    SotglpWarning,
                    stacklevel=3,
                )
            return sets
        sets = conformal_sets(conformity(by_model, score), known, folds, coverage, targets if per_class else None)
        if per_class and (free := classes_without_bound(targets, sets.shape[1], coverage)):
            warnings.warn(
                f"{len(free)} of {sets.shape[1]} classes have too few calibration images for a coverage of "
                f"{coverage:g} in each class, so every set contains them: calibrate on more images, or lower the "
                "coverage",
                SotglpWarning,
                stacklevel=3,
            )
        return sets


def calibrate_held_out(
    model: AdaptedModel,
    images: ImageSet,
    inference: InferenceConfig,
    tpr: float,
    *,
    max_error: float | None = None,
    confidence: float = CONFIDENCE,
    calibrator: Calibrator = "temperature",
    unreadable: list[UnreadableImageError] | None = None,
) -> Calibration:
    """Calibrate on held-out images of the model's classes.

    Parameters
    ----------
    model, images
        The model and n images; without labels there is no temperature, and no prediction sets.
    inference : InferenceConfig
        How images are read, and the score of the threshold.
    tpr : float
        Share of in-distribution images to accept, above 0 and at most 1.
    max_error, confidence
        Choose the threshold by the error among accepted images instead, which needs labels; see
        :func:`sotglp.scoring.risk_control.reject_for_error`. None for ``tpr``.
    calibrator : {"temperature", "platt", "isotonic"}, default "temperature"
        How probabilities are calibrated; see :mod:`sotglp.scoring.probability_map`.
    unreadable : list or None
        Collects images that can't be decoded and skips them; None raises at the first.

    Raises
    ------
    SotglpError
        If images or ``tpr`` can't be used, or no threshold keeps to ``max_error``.

    Warns
    -----
    SotglpWarning
        If all images are correctly classified, so that there is no temperature to fit.
    """
    labels = None if images.labels is None else images.targets(model.class_names)
    predictions = predict(model, images, inference, unreadable=unreadable, title="calibrating")
    known = None if labels is None else labels[predictions.indices]
    rejection = _rejection(predictions, known, tpr, max_error, confidence)
    return _calibration(predictions, inference, rejection, known, calibrator)


def calibrate_crossed(
    crossed: CrossFit,
    images: ImageSet,
    inference: InferenceConfig,
    tpr: float,
    *,
    max_error: float | None = None,
    confidence: float = CONFIDENCE,
    calibrator: Calibrator = "temperature",
) -> Calibration:
    """Calibrate on the few-shot images, each predicted by a model that was not trained on it.

    ``crossed`` is from :func:`sotglp.scoring.cross_fit.cross_fit` on the labelled ``images``; see
    :func:`calibrate_held_out` for the rest. These models were trained on fewer images than the calibrated one, so the
    threshold is, if anything, lenient, and the interval of :class:`sotglp.scoring.rejection.Rejection` and the bound of
    ``max_error`` are approximate.
    """
    labels = images.targets(crossed.models[0].class_names)
    smallest = int(np.bincount(labels).min())
    if smallest < SHOTS_FOR_THRESHOLD.get(inference.ood_method, 0):
        warnings.warn(
            f"the values of the score {inference.ood_method} depend on the number of shots, and a class has "
            f"{smallest}, so the threshold of cross-fitting probably accepts too many images or none: use the score "
            "gl-mcm, give more images, or calibrate on held-out ones",
            SotglpWarning,
            stacklevel=2,
        )
    rejection = _rejection(crossed.predictions, labels, tpr, max_error, confidence)
    return _calibration(crossed.predictions, inference, rejection, labels, calibrator, crossed)


def _rejection(
    predictions: Predictions,
    labels: NDArray[np.int64] | None,
    tpr: float,
    max_error: float | None,
    confidence: float,
) -> Rejection:
    if max_error is None:
        return reject_below(predictions.ood_scores, tpr)
    if labels is None:
        raise SotglpError("max_error bounds the share of misclassified images, which needs labels: give them")
    is_correct = predictions.probabilities.argmax(axis=1) == labels
    return reject_for_error(predictions.ood_scores, is_correct, max_error, confidence)


def _calibration(
    predictions: Predictions,
    inference: InferenceConfig,
    rejection: Rejection,
    labels: NDArray[np.int64] | None,
    calibrator: Calibrator,
    crossed: CrossFit | None = None,
) -> Calibration:
    if labels is None:
        if calibrator != "temperature":
            raise SotglpError(f"the calibrator {calibrator} needs labels: give them")
        return Calibration(inference.ood_method, inference.temperature, rejection)
    probabilities = predictions.probabilities
    true_probabilities = probabilities[np.arange(len(labels)), labels]
    temperature, probability_map = 1.0, None
    if (true_probabilities == probabilities.max(axis=1)).all():
        warnings.warn(
            f"all {len(labels)} calibration images are correctly classified, so no {calibrator} can be fitted "
            "and probabilities stay as they are: calibrate on more images",
            SotglpWarning,
            stacklevel=3,
        )
    elif calibrator != "temperature":
        probability_map = fit_map(calibrator, probabilities, labels)
    else:
        temperature = fit_temperature(probabilities, labels)
    return Calibration(
        inference.ood_method,
        inference.temperature,
        rejection,
        temperature,
        true_probabilities,
        crossed.folds if crossed else None,
        crossed.models if crossed else (),
        TrueClasses.of(probabilities, labels),
        probability_map,
    )
