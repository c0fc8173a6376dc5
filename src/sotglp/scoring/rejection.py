"""From which score on an image is taken to be of a known class, so that a chosen share of such images passes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta

from sotglp.errors import SotglpError
from sotglp.scoring.arrays import finite_scores

CONFIDENCE = 0.9
"""Of the interval of the true share."""
LARGEST_DENOMINATOR = 10**9
"""Shares are read as the nearest fraction with at most this denominator, which undoes the rounding of floats."""


@dataclass(frozen=True)
class Rejection:
    """A threshold on scores, and how many images of known classes it lets pass.

    Attributes
    ----------
    threshold : float
        Images with a smaller score are rejected.
    tpr : float
        Share of in-distribution images that should pass, as asked for.
    n : int
        Number of images that the threshold was chosen on.
    expected_tpr : float
        Share that passes on average; less than ``tpr`` where n is too small for it.
    interval : tuple of float
        Between these the true share lies in 90 % of all draws of n images.
    """

    threshold: float
    tpr: float
    n: int
    expected_tpr: float
    interval: tuple[float, float]


def reject_below(scores: ArrayLike, tpr: float = 0.95) -> Rejection:
    """Choose the threshold below which images are rejected.

    It is the k-th smallest score, k = floor((n + 1) (1 - tpr)). Over draws of n images the share of new ones that pass
    follows Beta(n + 1 - k, k), whatever the distribution of the scores is; where scores tie, more pass. With fewer
    than tpr / (1 - tpr) images k is 0 and no score is low enough: the smallest is taken, and ``expected_tpr``,
    n / (n + 1), says so.

    Parameters
    ----------
    scores : array-like
        Scores of in-distribution images on which the model was not trained, larger is more in-distribution, (n,).
    tpr : float, default 0.95
        Share of in-distribution images that should pass, above 0, at most 1.

    Returns
    -------
    Rejection
        The threshold. At least the share ``tpr`` of the given images passes.

    Raises
    ------
    SotglpError
        If ``tpr`` is not in that range, there are no scores, or one is not finite.

    References
    ----------
    Wilks, 1941, Determination of sample sizes for setting tolerance limits; Vovk, arXiv 1209.2673.
    """
    check_tpr(tpr)
    ascending = np.sort(finite_scores(scores, "scores"))
    n = len(ascending)
    k = max(rank_below(n, tpr), 1)
    low, high = beta.interval(CONFIDENCE, n + 1 - k, k)
    return Rejection(float(ascending[k - 1]), tpr, n, (n + 1 - k) / (n + 1), (float(low), float(high)))


def check_tpr(tpr: float) -> None:
    """Refuse a share of images that should pass, unless it is above 0 and at most 1."""
    if not 0 < tpr <= 1:
        raise SotglpError(f"tpr = {tpr} must be above 0 and at most 1")


def rank_below(n: int, share: float) -> int:
    """Rank among n known values that a new one, drawn like them, reaches with a probability of at least ``share``.

    Parameters
    ----------
    n : int
        Number of known values.
    share : float
        Above 0, at most 1.

    Returns
    -------
    int
        k = floor((n + 1) (1 - share)), from 0 to n: the new value lies below the k-th smallest of the known ones with
        probability k / (n + 1) if none tie. It is exact where floats are not: 20 (1 - 0.95) counts as 1.
    """
    exact = Fraction(float(share)).limit_denominator(LARGEST_DENOMINATOR)
    return min(math.floor((n + 1) * (1 - exact)), n)
