"""How often predictions of a given probability are right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sotglp.scoring.metrics import confidence_bins, expected_calibration_error

N_BINS = 15


@dataclass(frozen=True, eq=False)
class Reliability:
    """Images by the probability of their predicted class, in intervals of equal width that hold their upper end.

    Attributes
    ----------
    counts : NDArray
        Images in each interval, (15,).
    confidence, accuracy : NDArray
        Mean probability and share of right predictions there, NaN where there are no images, (15,).
    error : float
        Expected calibration error; see :func:`sotglp.scoring.metrics.expected_calibration_error`.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    error: float

    @classmethod
    def of(cls, probabilities: NDArray[np.float32], targets: NDArray[np.int64]) -> Reliability:
        """Compare probabilities (n, C) with the places of the right classes (n,)."""
        sure = probabilities.max(axis=1).astype(np.float64)
        right = probabilities.argmax(axis=1) == targets
        bins = confidence_bins(sure, N_BINS)
        counts = np.bincount(bins, minlength=N_BINS)
        known = np.where(counts > 0, counts, np.nan)
        confidence, accuracy = (np.bincount(bins, weights=values, minlength=N_BINS) / known for values in (sure, right))
        return cls(counts, confidence, accuracy, expected_calibration_error(probabilities, targets, N_BINS))

    def to_dict(self) -> dict[str, Any]:
        """For programs: the intervals that have images."""
        filled = self.counts.nonzero()[0].tolist()
        return {
            "ece": self.error,
            "bins": [
                {
                    "from": place / N_BINS,
                    "to": (place + 1) / N_BINS,
                    "count": int(self.counts[place]),
                    "confidence": float(self.confidence[place]),
                    "accuracy": float(self.accuracy[place]),
                }
                for place in filled
            ],
        }
