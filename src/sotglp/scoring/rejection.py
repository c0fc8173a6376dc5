"""Choose the threshold below which images are rejected as unknown."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from sotglp.errors import SotglpError
from sotglp.scoring.arrays import finite_scores

CONFIDENCE = 0.9
"""Confidence level of the interval of the true share."""
LARGEST_DENOMINATOR = 10**9
"""Shares are read as the nearest fraction with at most this denominator, which undoes the rounding of floats."""


Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class AcceptedError:
    """A bound of the error among accepted images, and the test that a threshold passed for it.

    ``max_error`` is kept to with a probability of ``confidence``; of ``n`` accepted calibration images ``n_wrong`` were
    misclassified. See :func:`sotglp.scoring.risk_control.reject_for_error`.
    """

    max_error: Annotated[float, Field(gt=0, lt=1)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    n: Annotated[int, Field(ge=1)]
    n_wrong: Annotated[int, Field(ge=0)]

    def __str__(self) -> str:
        return (
            f"error among accepted images at most {self.max_error:.1%} with {self.confidence:.0%} confidence "
            f"({self.n_wrong} of {self.n} wrong)"
        )


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Rejection:
    """A threshold on scores, and the share of in-distribution images that it accepts.

    Attributes
    ----------
    threshold : float
        Images with a smaller score are rejected.
    tpr : float
        Requested share of accepted in-distribution images.
    n : int
        Number of images that the threshold was chosen on.
    expected_tpr : float
        Expected share of accepted images; less than ``tpr`` if n is too small.
    interval : tuple of float
        90 % confidence interval of the true share, over draws of n images.
    accepted_error : AcceptedError or None
        Bound of the error among accepted images, if the threshold was chosen for it; None if it was chosen for ``tpr``.
    """

    threshold: float
    tpr: Annotated[float, Field(gt=0, le=1)]
    n: Annotated[int, Field(ge=1)]
    expected_tpr: Share
    interval: tuple[Share, Share]
    accepted_error: AcceptedError | None = None


def reject_below(scores: ArrayLike, tpr: float = 0.95) -> Rejection:
    """Choose the threshold below which images are rejected.

    The threshold is the k-th smallest score, k = floor((n + 1) (1 - tpr)). Over draws of n images, the share of
    accepted new images follows Beta(n + 1 - k, k) for any continuous distribution of scores; ties increase it. With
    fewer than tpr / (1 - tpr) images k is 0: the threshold is then the smallest score, and ``expected_tpr`` is
    n / (n + 1).

    Parameters
    ----------
    scores : array-like
        Scores of in-distribution images that the model was not trained on, larger is more in-distribution, (n,).
    tpr : float, default 0.95
        Share of in-distribution images to accept, above 0, at most 1.

    Returns
    -------
    Rejection
        Its threshold accepts at least the share ``tpr`` of the given images.

    Raises
    ------
    SotglpError
        If ``tpr`` is out of range, there are no scores, or one is not finite.

    References
    ----------
    Wilks, 1941, Determination of sample sizes for setting tolerance limits; Vovk, arXiv 1209.2673.
    """
    check_tpr(tpr)
    ascending = np.sort(finite_scores(scores, "scores"))
    return reject_at_rank(ascending, max(rank_below(len(ascending), tpr), 1), tpr)


def reject_at_rank(
    ascending: NDArray[np.float64], k: int, tpr: float, accepted_error: AcceptedError | None = None
) -> Rejection:
    """Return the rejection of images below the k-th smallest score, or up to it for a bound of ``accepted_error``."""
    # Model files are described without SciPy, which takes half a second to import.
    from scipy.stats import beta

    n = len(ascending)
    low, high = beta.interval(CONFIDENCE, n + 1 - k, k)
    threshold = float(ascending[k - 1])
    if accepted_error is not None:
        # An image at the threshold is accepted. Scores are float32, so this is the next larger one.
        threshold = float(np.nextafter(np.float32(threshold), np.float32(np.inf)))
    return Rejection(threshold, float(tpr), n, (n + 1 - k) / (n + 1), (float(low), float(high)), accepted_error)


def check_tpr(tpr: float) -> None:
    """Raise a SotglpError unless ``tpr`` is above 0 and at most 1."""
    if not 0 < tpr <= 1:
        raise SotglpError(f"tpr = {tpr} must be above 0 and at most 1")


def rank_below(n: int, share: float) -> int:
    """Compute the rank among n known values that a new value reaches with a probability of at least ``share``.

    It is k = floor((n + 1) (1 - share)), from 0 to n: without ties, the new value is below the k-th smallest known one
    with probability k / (n + 1). The product is exact: 20 (1 - 0.95) is 1.
    """
    # By way of text, since float(np.float32(0.8)) is not the 0.8 that was meant.
    exact = Fraction(str(share)).limit_denominator(LARGEST_DENOMINATOR)
    return min(math.floor((n + 1) * (1 - exact)), n)
