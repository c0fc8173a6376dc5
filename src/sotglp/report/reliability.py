"""Reliability of probabilities: accuracy by confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sotglp.scoring.metrics import confidence_bins, expected_calibration_error

N_BINS = 15


@dataclass(frozen=True, eq=False)
class Reliability:
    """Images by the probability of their predicted class, in right-closed intervals of equal width.

    Attributes
    ----------
    counts : NDArray
        Images in each interval, (15,).
    confidence, accuracy : NDArray
        Mean probability and accuracy in each interval, NaN for an empty one, (15,).
    error : float
        Expected calibration error; see :func:`sotglp.scoring.metrics.expected_calibration_error`.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    error: float

    @classmethod
    def of(cls, probabilities: NDArray[np.float32], targets: NDArray[np.int64]) -> Reliability:
        """Compare probabilities (n, C) with class indices (n,)."""
        confidences = probabilities.max(axis=1).astype(np.float64)
        correct = probabilities.argmax(axis=1) == targets
        bins = confidence_bins(confidences, N_BINS)
        counts = np.bincount(bins, minlength=N_BINS)
        known = np.where(counts > 0, counts, np.nan)
        confidence, accuracy = (
            np.bincount(bins, weights=values, minlength=N_BINS) / known for values in (confidences, correct)
        )
        return cls(counts, confidence, accuracy, expected_calibration_error(probabilities, targets, N_BINS))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; empty intervals are omitted."""
        filled = self.counts.nonzero()[0].tolist()
        return {
            "ece": self.error,
            "bins": [
                {
                    "from": i / N_BINS,
                    "to": (i + 1) / N_BINS,
                    "count": int(self.counts[i]),
                    "confidence": float(self.confidence[i]),
                    "accuracy": float(self.accuracy[i]),
                }
                for i in filled
            ],
        }
