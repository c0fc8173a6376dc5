"""Predictions and calibrated decisions, by scikit-learn's interface of classifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted
from typing_extensions import Self

from sotglp.backbone_defaults import crossed_ood_method, default_ood_method
from sotglp.console.output import UNKNOWN, label_unknown, prediction
from sotglp.errors import SotglpError, UnknownNameError
from sotglp.estimators.hub import HubEstimator
from sotglp.estimators.inputs import labelled, maybe_labelled, renamed_labels, unlabelled
from sotglp.explain.explanation import Explanation, explain
from sotglp.images.labels import label_array
from sotglp.scoring.calibration import Calibration, calibrate_crossed, calibrate_held_out
from sotglp.scoring.cross_fit import cross_fit
from sotglp.scoring.evaluation import Evaluation, full_evaluation
from sotglp.scoring.predict import Predictions, predict, predict_each
from sotglp.scoring.prediction_table import PredictionTable
from sotglp.scoring.rejection import CONFIDENCE
from sotglp.scoring.risk_control import check_max_error
from sotglp.settings import Calibrator, InferenceConfig, OodMethod, SetScore, checked
from sotglp.training.fit import drawn_shots


class ImageClassifier(ClassifierMixin, HubEstimator):  # type: ignore[misc]
    """Few-shot image classifier with OOD scores, whatever its method; see :class:`sotglp.SOTGLPClassifier` for X."""

    def predict(self, X: Any, *, reject: bool = True) -> NDArray[Any]:
        """Predict the label of each image, (B,); once calibrated, images below the threshold are "unknown".

        Parameters
        ----------
        X : images
            See the class.
        reject : bool, default True
            Reject unknown images, if the model is calibrated; otherwise every image gets a label of a class.
        """
        predictions = self._calibrated_predictions(X)
        labels: NDArray[Any] = self.classes_[predictions.probabilities.argmax(axis=1)]
        if not reject or self.calibration_ is None:
            return labels
        rejected = self.calibration_.rejects(predictions.ood_scores)
        # Numbers and text can't share an array, and a short text type would cut "unknown" off.
        labels = labels.astype(np.result_type(labels, np.asarray(UNKNOWN)) if labels.dtype.kind == "U" else object)
        labels[rejected] = UNKNOWN
        return labels

    def predict_table(self, X: Any, *, reject: bool = True) -> PredictionTable:
        """Predict as a table, which ``print`` and notebooks show, and which is written as JSON Lines or Parquet.

        Parameters
        ----------
        X : images
            See the class.
        reject : bool, default True
            Label images below the threshold "unknown", if the model is calibrated.

        Returns
        -------
        PredictionTable
            An entry for each image, as ``sotglp predict --json`` writes it.
        """
        check_is_fitted(self, "model_")
        images, calibration = unlabelled(X), self.calibration_
        predictions = self._calibrated_predictions(X)
        probabilities = predictions.probabilities
        rejected: list[bool | None] = [None] * len(probabilities)
        if calibration is not None:
            probabilities = calibration.probabilities(probabilities)
            rejected = calibration.rejects(predictions.ood_scores).tolist()
        rows = [
            prediction(images.name(index), self.classes_.tolist(), of_classes, score, is_unknown)
            for index, of_classes, score, is_unknown in zip(
                predictions.indices, probabilities, predictions.ood_scores, rejected, strict=True
            )
        ]
        if reject:
            label_unknown(rows)
        about = {
            "ood_method": calibration.ood_method if calibration else self._default_ood_method(),
            "threshold": calibration.rejection.threshold if calibration else None,
            "calibration": None,
        }
        return PredictionTable(rows, about)

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Predict class probabilities, in the order of ``classes_``, at the calibrated temperature, (B, C)."""
        probabilities = self._calibrated_predictions(X).probabilities
        return probabilities if self.calibration_ is None else self.calibration_.probabilities(probabilities)

    def predict_sets(
        self,
        X: Any,
        coverage: float = 0.9,
        *,
        score: SetScore = "lac",
        per_class: bool = False,
        per_cluster: bool = False,
    ) -> NDArray[np.bool_]:
        """Predict the set of plausible classes of each image, in the order of ``classes_``, (B, C).

        Parameters
        ----------
        X : images
            See the class.
        coverage : float, default 0.9
            Share of images whose set should contain the true class, between 0 and 1. A set may be empty. See
            :mod:`sotglp.scoring.conformal` for the guarantee.
        score : {"lac", "aps", "raps"}, default "lac"
            Measure that sets are cut at; see :mod:`sotglp.scoring.conformity`.
        per_class : bool, default False
            Cover that share of the images of each class; see :mod:`sotglp.scoring.class_conditional`.
        per_cluster : bool, default False
            Cover that share in each cluster of similar classes; see :mod:`sotglp.scoring.cluster_conditional`.

        Raises
        ------
        SotglpError
            If :meth:`calibrate` has not run with labels.
        """
        calibration = self._known_calibration()
        models = [self.model_, *calibration.fold_models]
        predictions = predict_each(models, unlabelled(X), self._inference_config(), score_all=False)
        by_model = np.stack([one.probabilities for one in predictions])
        return calibration.sets(by_model, coverage, score=score, per_class=per_class, per_cluster=per_cluster)

    def explain(self, image: Any, classes: Sequence[str | int] | str | int = 1) -> Explanation:
        """Explain a prediction by the patches that each local prompt matches; ``.plot()`` draws it.

        Parameters
        ----------
        image : path, PIL image or tensor
            One image; a tensor is (3, H, W).
        classes : sequence of labels or int, default 1
            Classes to explain, or the number of the most probable ones.

        Raises
        ------
        SotglpError
            If the method has no transport plan, a class doesn't exist, or the image can't be read.
        """
        check_is_fitted(self, "model_")
        calibration = self.calibration_
        score = (calibration.ood_method, calibration.ood_temperature) if calibration else ()
        if not isinstance(classes, int | np.integer):
            classes = [self._name_of(label) for label in ([classes] if isinstance(classes, str) else classes)]
        return explain(self.model_, image, classes, self._inference_config(*score), calibration)

    def score(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Compute the accuracy of the most probable labels, without rejection."""
        return float(accuracy_score(label_array(y), self.predict(X, reject=False), sample_weight=sample_weight))

    def evaluate(
        self,
        X: Any,
        y: ArrayLike | None = None,
        *,
        ood: Mapping[str, Any] | None = None,
        method: OodMethod | None = None,
        temperature: float = 1.0,
    ) -> Evaluation:
        """Evaluate on labelled images: accuracy with its interval, calibration error, classes, unknown images.

        Parameters
        ----------
        X, y : images and labels
            As for :meth:`fit`.
        ood : mapping of str to images, optional
            Images of none of the classes, by the name of each set.
        method, temperature
            Score of the unknown images; None takes the calibrated one, or that of the backbone.

        Returns
        -------
        Evaluation
            A mapping, which ``print`` and notebooks show as tables.
        """
        check_is_fitted(self, "model_")
        images = renamed_labels(labelled(X, y)[0], self._names())
        if method is None and self.calibration_ is not None:
            method, temperature = self.calibration_.ood_method, self.calibration_.ood_temperature
        return full_evaluation(
            self.model_,
            images,
            {name: unlabelled(others) for name, others in (ood or {}).items()},
            self._inference_config(method, temperature),
            calibration=self.calibration_,
        )

    def ood_score(self, X: Any, method: OodMethod | None = None, temperature: float = 1.0) -> NDArray[np.float32]:
        """Compute the OOD score of each image, (B,), larger for in-distribution; see :func:`sotglp.ood.score`.

        The default of ``method`` is the backbone's; see :func:`sotglp.backbone_defaults.default_ood_method`.
        """
        return self._predictions(X, method, temperature).ood_scores

    def calibrate(
        self,
        X: Any,
        tpr: float = 0.95,
        method: OodMethod | None = None,
        temperature: float = 1.0,
        *,
        y: ArrayLike | None = None,
        folds: int | None = None,
        max_error: float | None = None,
        confidence: float = CONFIDENCE,
        calibrator: Calibrator = "temperature",
    ) -> Self:
        """Calibrate the rejection threshold, the temperature of probabilities, and prediction sets.

        ``calibration_.rejection`` reports the threshold, the expected share of accepted in-distribution images, and a
        90 % confidence interval of the true share, which is wide for few images.

        Parameters
        ----------
        X : images
            Held-out images of the classes, or with ``folds`` the images of :meth:`fit`.
        tpr : float, default 0.95
            Share of in-distribution images to accept, above 0 and at most 1.
        method, temperature
            Score of the threshold; see :meth:`ood_score`.
        y : array-like or None, default None
            Labels of X, as for :meth:`fit`; they are needed for the temperature and for prediction sets.
        folds : int or None, default None
            Cross-validate the few-shot images, which takes half as many training steps as :meth:`fit`.
        max_error : float or None, default None
            Choose the threshold by the share of misclassified images among accepted ones, in place of ``tpr``; needs
            labels. See :func:`sotglp.scoring.risk_control.reject_for_error`.
        confidence : float, default 0.9
            Probability of keeping to ``max_error``.
        calibrator : {"temperature", "platt", "isotonic"}, default "temperature"
            How probabilities are calibrated; see :mod:`sotglp.scoring.probability_map`. None changes a label.

        Raises
        ------
        SotglpError
            If ``tpr``, images or labels can't be used, a class has fewer images than there are folds, or no threshold
            keeps to ``max_error``.
        """
        check_is_fitted(self, "model_")
        if calibrator not in get_args(Calibrator):
            raise UnknownNameError("calibrator", calibrator, get_args(Calibrator))
        images = renamed_labels(maybe_labelled(X, y), self._names())
        inference = self._inference_config(method, temperature)
        if folds is None:
            self.calibration_ = calibrate_held_out(
                self.model_, images, inference, tpr, max_error=max_error, confidence=confidence, calibrator=calibrator
            )
            return self
        if images.labels is None:
            raise SotglpError("folds need labels: give y, or a folder with a folder for each class")
        config = self._fitted_training()
        shots = drawn_shots(images, config)
        if max_error is not None:
            check_max_error(max_error, confidence, len(shots))
        if method is None:
            has_shots = self.model_.shots is not None
            method = crossed_ood_method(self.model_.backbone.name, has_shots=has_shots, smallest=shots.smallest_class)
            inference = self._inference_config(method, temperature)
        crossed = cross_fit(self.model_, shots, config, inference, n_folds=folds, cache_dir=self._cache_dir())
        self.calibration_ = calibrate_crossed(
            crossed, shots, inference, tpr, max_error=max_error, confidence=confidence, calibrator=calibrator
        )
        return self

    def is_ood(self, X: Any) -> NDArray[np.bool_]:
        """Whether each image scores below the calibrated threshold, (B,).

        Raises
        ------
        SotglpError
            If :meth:`calibrate` has not run.
        """
        calibration = self._known_calibration()
        return calibration.rejects(self._calibrated_predictions(X).ood_scores)

    def _known_calibration(self) -> Calibration:
        check_is_fitted(self, "model_")
        if self.calibration_ is None:
            raise SotglpError("the model isn't calibrated: call calibrate(X) with images of the classes first")
        return self.calibration_

    def _inference_config(self, method: OodMethod | None = None, temperature: float = 1.0) -> InferenceConfig:
        return checked(
            InferenceConfig,
            {
                "workers": self.workers,
                "precision": self.precision,
                "ood_method": method or self._default_ood_method(),
                "temperature": temperature,
                "show_progress": self.verbose,
            },
        )

    def _default_ood_method(self) -> OodMethod:
        return default_ood_method(self.model_.backbone.name, has_shots=self.model_.shots is not None)

    def _predictions(self, X: Any, method: OodMethod | None = None, temperature: float = 1.0) -> Predictions:
        check_is_fitted(self, "model_")
        return predict(self.model_, unlabelled(X), self._inference_config(method, temperature))

    def _calibrated_predictions(self, X: Any) -> Predictions:
        """Predictions with the score that the calibration, if any, applies to."""
        check_is_fitted(self, "model_")
        if self.calibration_ is None:
            return self._predictions(X)
        return self._predictions(X, self.calibration_.ood_method, self.calibration_.ood_temperature)
