"""Temperature scaling: one number that calibrates probabilities."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from sotglp.scoring.arrays import check_temperature, class_probabilities, class_targets

LOWEST, HIGHEST = 0.01, 100.0
"""Range of the search; cosines without CLIP's scale of 100 need the lowest."""


def fit_temperature(probabilities: ArrayLike, targets: ArrayLike) -> float:
    """Fit the temperature that minimises the negative log-likelihood of the labels.

    The likelihood is that of p^(1/T), normalised, which is softmax(logits / T) where p is softmax(logits). Its mean
    negative logarithm is convex in 1/T, so T is the root of its derivative.

    Parameters
    ----------
    probabilities : array-like
        Of images that the model was not trained on, (n, C); values below the smallest normal float32, 1.2e-38, count
        as that.
    targets : array-like of int
        True class indices, (n,).

    Returns
    -------
    float
        T, from 0.01 to 100: above 1 for an overconfident model, below 1 for an underconfident one; 0.01 if all images
        are correctly classified, and 1 if no temperature changes the probabilities.

    Raises
    ------
    SotglpError
        If there are no images, targets don't match, or a value isn't a probability.

    References
    ----------
    Guo et al., arXiv 1706.04599, section 4.2.
    """
    given = class_probabilities(probabilities, "probabilities")
    rows = np.arange(len(given))
    right = class_targets(targets, *given.shape)
    logits = _logits(given)

    def slope(log_temperature: float) -> float:
        """Derivative of the negative log-likelihood by 1/T, which decreases in T."""
        expected = (softmax(logits / math.exp(log_temperature), axis=1) * logits).sum(axis=1)
        return float((expected - logits[rows, right]).mean())

    if not logits.any():
        return 1.0
    from scipy.optimize import brentq  # predictions do without it

    lowest, highest = math.log(LOWEST), math.log(HIGHEST)
    if slope(lowest) <= 0:
        return LOWEST
    if slope(highest) >= 0:
        return HIGHEST
    return math.exp(brentq(slope, lowest, highest, xtol=1e-12))


def tempered(probabilities: ArrayLike, temperature: float) -> NDArray[np.float32]:
    """Apply a temperature to probabilities: p^(1/T), normalised over the classes.

    Parameters
    ----------
    probabilities : array-like
        (n, C); values below the smallest normal float32 count as that.
    temperature : float
        T, from 1e-6 to 1e6; 1 returns the values unchanged. No temperature changes the most probable class.

    Returns
    -------
    NDArray
        (n, C).

    Raises
    ------
    SotglpError
        If the temperature is out of range, or a value isn't a probability.
    """
    check_temperature(temperature)
    given = class_probabilities(probabilities, "probabilities").astype(np.float32)
    if temperature == 1:
        return given
    scaled: NDArray[np.float64] = softmax(_logits(given) / temperature, axis=1)
    return scaled.astype(np.float32)


def _logits(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Log-probabilities minus the largest of each row, so that rows of equal values are exactly 0."""
    logarithms = np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny))
    largest: NDArray[np.float64] = logarithms.max(axis=1, keepdims=True)
    return logarithms - largest
