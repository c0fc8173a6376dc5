"""Temperature scaling: probabilities made as sure as they are right, by one number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import softmax

from sotglp.errors import SotglpError
from sotglp.scoring.arrays import class_probabilities, class_targets

LOWEST, HIGHEST = 0.01, 100.0
"""Between these a temperature is sought; cosines without CLIP's scale of 100 need the lowest."""


def fit_temperature(probabilities: ArrayLike, targets: ArrayLike) -> float:
    """Temperature at which probabilities fit the labels of images best.

    It minimises the mean negative log-likelihood of p^(1/T), normalised, which is softmax(logits / T) where p is
    softmax(logits). That is convex in 1/T, so T is where its slope is 0.

    Parameters
    ----------
    probabilities : array-like
        Of images on which the model was not trained, (n, C). Those below the smallest normal float32, 1.2e-38, are
        taken for that.
    targets : array-like of int
        Place of the right class, (n,).

    Returns
    -------
    float
        T, from 0.01 to 100: above 1 where the model is too sure, below 1 where it is not sure enough. The lowest
        where all images are rightly classified, and 1 where no temperature changes anything.

    Raises
    ------
    SotglpError
        If there are no images, targets don't fit, or a probability is none.

    References
    ----------
    Guo et al., arXiv 1706.04599, section 4.2.
    """
    given = class_probabilities(probabilities, "probabilities")
    rows = np.arange(len(given))
    right = class_targets(targets, *given.shape)
    logits = _logits(given)

    def slope(log_temperature: float) -> float:
        """Slope of the negative log-likelihood in 1/T, which falls as T grows."""
        expected = (softmax(logits / math.exp(log_temperature), axis=1) * logits).sum(axis=1)
        return float((expected - logits[rows, right]).mean())

    if not logits.any():
        return 1.0
    lowest, highest = math.log(LOWEST), math.log(HIGHEST)
    if slope(lowest) <= 0:
        return LOWEST
    if slope(highest) >= 0:
        return HIGHEST
    return math.exp(brentq(slope, lowest, highest, xtol=1e-12))


def tempered(probabilities: ArrayLike, temperature: float) -> NDArray[np.float32]:
    """Probabilities at another temperature: p^(1/T), normalised over the classes.

    Parameters
    ----------
    probabilities : array-like
        (n, C); those below the smallest normal float32 are taken for that.
    temperature : float
        T, above 0. 1 leaves every value as it is; no temperature changes which class is the likeliest.

    Returns
    -------
    NDArray
        (n, C).

    Raises
    ------
    SotglpError
        If the temperature is not positive and finite, or a probability is none.
    """
    if not 0 < temperature < math.inf:
        raise SotglpError(f"temperature = {temperature} must be above 0 and finite")
    given = class_probabilities(probabilities, "probabilities").astype(np.float32)
    if temperature == 1:
        return given
    shares: NDArray[np.float64] = softmax(_logits(given) / temperature, axis=1)
    return shares.astype(np.float32)


def _logits(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Logarithms, of which the largest in a row is 0, so that rows of equal values are exactly zeros."""
    logarithms = np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny))
    largest: NDArray[np.float64] = logarithms.max(axis=1, keepdims=True)
    return logarithms - largest
