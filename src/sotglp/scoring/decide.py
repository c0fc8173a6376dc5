"""Decisions on predictions: calibrated probabilities, rejected images and prediction sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sotglp.scoring.calibration import Calibration
from sotglp.scoring.predict import Predictions
from sotglp.settings import InferenceConfig


class Decisions(NamedTuple):
    """Decisions on B images.

    ``probabilities`` (B, C), calibrated if the model is; ``is_unknown`` (B,), or None without a threshold for the
    score; ``sets`` (B, C), or None if no coverage is asked for.
    """

    probabilities: NDArray[np.float32]
    is_unknown: NDArray[np.bool_] | None
    sets: NDArray[np.bool_] | None


def decide(
    by_model: Sequence[Predictions],
    calibration: Calibration | None,
    inference: InferenceConfig,
    coverage: float | None = None,
    sets: Mapping[str, Any] | None = None,
) -> Decisions:
    """Decide on the predictions of a model, and of the models of the folds if sets are computed.

    ``sets`` are arguments of :meth:`Calibration.sets`.
    """
    found = by_model[0]
    if calibration is None:
        return Decisions(found.probabilities, None, None)
    has_threshold = inference.threshold_of(calibration) is not None
    return Decisions(
        calibration.probabilities(found.probabilities),
        calibration.rejects(found.ood_scores) if has_threshold else None,
        None
        if coverage is None
        else calibration.sets(np.stack([one.probabilities for one in by_model]), coverage, **(sets or {})),
    )
