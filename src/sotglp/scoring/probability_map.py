"""Platt scaling and isotonic regression: maps of probabilities beside the temperature.

One increasing map serves all classes: it is fitted to the pairs of each class's probability and whether the class is
the true one, of all images and classes, and mapped probabilities are normalised. So it never changes a label, and a few
images of each class suffice (Zhang et al., arXiv 2003.07329). Maps of each class alone, one against the rest, would do
neither.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sotglp.errors import SotglpError, UnknownNameError
from sotglp.scoring.arrays import class_probabilities, class_targets

KINDS = ("platt", "isotonic")

TILT = 1e-4
"""Slope that isotonic maps get in addition, so that they are strictly increasing."""

SMALLEST = 1e-7
"""Probabilities are clipped to this and 1 less it before log-odds."""


class ProbabilityMap(NamedTuple):
    """An increasing map of probabilities.

    For ``platt``, sigmoid(x log-odds + y), with ``x`` and ``y`` of shape (1,). For ``isotonic``, linear between the
    points ``x`` and ``y``, (k,), both increasing, and constant beyond.
    """

    kind: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]

    def apply(self, probabilities: ArrayLike) -> NDArray[np.float32]:
        """Map probabilities (n, C) and normalise them over the classes."""
        given = class_probabilities(probabilities, "probabilities").astype(np.float64)
        if self.kind == "platt":
            mapped = 1 / (1 + np.exp(-(self.x[0] * _log_odds(given) + self.y[0])))
        else:
            mapped = np.interp(given, self.x, self.y) + TILT * given
        normalised: NDArray[np.float64] = mapped / mapped.sum(axis=1, keepdims=True)
        return normalised.astype(np.float32)

    def is_valid(self) -> bool:
        """Whether the map is one of the known kinds and increasing."""
        fits = self.x.shape == self.y.shape and self.x.ndim == 1 and len(self.x) > 0
        if not fits or not (np.isfinite(self.x) & np.isfinite(self.y)).all():
            return False
        if self.kind == "platt":
            return len(self.x) == 1 and bool(self.x[0] > 0)
        in_range = ((self.y >= 0) & (self.y <= 1)).all()
        return bool(
            self.kind == "isotonic" and in_range and (np.diff(self.x) > 0).all() and (np.diff(self.y) >= 0).all()
        )


def fit_map(kind: str, probabilities: ArrayLike, targets: ArrayLike) -> ProbabilityMap:
    """Fit a map to images that the model was not trained on.

    Parameters
    ----------
    kind : {"platt", "isotonic"}
        Logistic regression on log-odds, or the best increasing step function, which needs hundreds of images.
    probabilities : array-like
        (n, C).
    targets : array-like of int
        True class indices, (n,); at least one image is misclassified.

    Raises
    ------
    SotglpError
        If the kind is unknown, values can't be used, or larger probabilities go with fewer true classes.

    References
    ----------
    Platt, 1999, Probabilistic outputs for support vector machines; Zadrozny and Elkan, KDD 2002.
    """
    # Model files are described without scikit-learn.
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    if kind not in KINDS:
        raise UnknownNameError("calibrator", kind, ("temperature", *KINDS))
    given = class_probabilities(probabilities, "probabilities").astype(np.float64)
    right = class_targets(targets, *given.shape)
    is_true = (right[:, None] == np.arange(given.shape[1])).ravel()
    if kind == "isotonic":
        steps = IsotonicRegression(out_of_bounds="clip").fit(given.ravel(), is_true.astype(np.float64))
        return ProbabilityMap(kind, np.asarray(steps.X_thresholds_), np.asarray(steps.y_thresholds_))
    logistic = LogisticRegression(C=1e8, tol=1e-8, max_iter=1000).fit(_log_odds(given).reshape(-1, 1), is_true)
    found = ProbabilityMap(kind, logistic.coef_[0].astype(np.float64), logistic.intercept_.astype(np.float64))
    if not found.is_valid():
        raise SotglpError(
            f"Platt scaling needs a model that is better than chance on the {len(given)} calibration images: calibrate "
            "with temperature, or on other images"
        )
    return found


def _log_odds(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    clipped = np.clip(probabilities, SMALLEST, 1 - SMALLEST)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))
