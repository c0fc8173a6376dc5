"""What an evaluation needs of predictions: a few numbers an image, however many classes there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sotglp.scoring.calibration import Calibration
from sotglp.scoring.predict import Predictions


@dataclass(frozen=True)
class Outcomes:
    """Outcomes of n predictions.

    Attributes
    ----------
    targets, predicted, predicted_global, predicted_local : NDArray
        True class index, and that of the prediction and of either branch alone, (n,).
    confidence : NDArray
        Probability of the predicted class, (n,).
    predicted_calibrated, confidence_calibrated : NDArray
        Both with calibrated probabilities, (n,); those of the model itself without a calibration.
    ood_scores : NDArray
        Larger is more in-distribution, (n,).
    """

    targets: NDArray[np.int64]
    predicted: NDArray[np.int64]
    predicted_global: NDArray[np.int64]
    predicted_local: NDArray[np.int64]
    confidence: NDArray[np.float32]
    predicted_calibrated: NDArray[np.int64]
    confidence_calibrated: NDArray[np.float32]
    ood_scores: NDArray[np.float32]

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """Whether each prediction is correct, (n,)."""
        right: NDArray[np.bool_] = self.predicted == self.targets
        return right


def outcomes_of(
    predictions: Predictions,
    targets: NDArray[np.int64],
    *,
    columns: Sequence[int] | None = None,
    calibration: Calibration | None = None,
) -> Outcomes:
    """Return the outcomes of predictions of n images with the true class indices ``targets`` (n,).

    They are counted among ``columns``, the class indices to predict among, if given.
    """
    chosen = slice(None) if columns is None else list(columns)
    probabilities = predictions.probabilities[:, chosen]
    calibrated = probabilities
    if calibration is not None and columns is None:
        calibrated = calibration.probabilities(predictions.probabilities)
    return Outcomes(
        targets,
        probabilities.argmax(axis=1),
        predictions.global_logits[:, chosen].argmax(axis=1),
        predictions.local_logits[:, chosen].argmax(axis=1),
        probabilities.max(axis=1),
        calibrated.argmax(axis=1),
        calibrated.max(axis=1),
        predictions.ood_scores,
    )
