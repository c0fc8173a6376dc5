"""How sure a share and an area under a ROC curve are, from the images that there were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit
from scipy.stats import binomtest, norm, rankdata

from sotglp.scoring.arrays import finite_scores

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """Ends of a 95 % interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Share:
    """``count`` of ``n`` images, with the interval of the share that it stands for; None where there are none."""

    count: int
    n: int
    interval: Interval | None

    @property
    def value(self) -> float:
        """The share, from 0 to 1."""
        return self.count / self.n


def share(count: int, n: int) -> Share:
    """A share with its Wilson score interval, which stays within 0 and 1 and is never empty.

    Parameters
    ----------
    count, n : int
        Images of a kind, among how many.

    References
    ----------
    Wilson, JASA 22 (1927); Brown, Cai & DasGupta, Statistical Science 16 (2001), who advise it for small n.
    """
    if n == 0:
        return Share(0, 0, None)
    found = binomtest(count, n).proportion_ci(CONFIDENCE, method="wilson")
    return Share(count, n, Interval(float(found.low), float(found.high)))


def auroc_interval(in_scores: ArrayLike, out_scores: ArrayLike) -> Interval | None:
    """95 % interval of an area under the ROC curve, by DeLong's variance on the logit scale.

    Parameters
    ----------
    in_scores, out_scores : array-like
        Scores of in-distribution (n,) and other images (m,), larger for the former.

    Returns
    -------
    Interval or None
        None where the variance can't be told: of a single image, or where no pair, or every pair, is in the wrong
        order.

    Raises
    ------
    SotglpError
        If a side is empty or has a score that is not finite.

    References
    ----------
    DeLong et al., Biometrics 44 (1988); Sun & Xu, IEEE SPL 21 (2014), for ranks instead of pairs; Pepe, The
    Statistical Evaluation of Medical Tests (2003), section 5.2, for the logit scale, which keeps it within 0 and 1.
    """
    inside, outside = finite_scores(in_scores, "in_scores"), finite_scores(out_scores, "out_scores")
    n, m = len(inside), len(outside)
    if min(n, m) == 1:
        return None
    ranks = rankdata(np.concatenate([inside, outside]))
    # Of each image: the share of the other side's that it is in the right order with; a tie counts half.
    of_inside: NDArray[np.float64] = (ranks[:n] - rankdata(inside)) / m
    of_outside: NDArray[np.float64] = 1 - (ranks[n:] - rankdata(outside)) / n
    area = float(of_inside.mean())
    variance = float(of_inside.var(ddof=1) / n + of_outside.var(ddof=1) / m)
    if variance == 0 or not 0 < area < 1:
        return None
    half = norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt(variance) / (area * (1 - area))
    low, high = expit(logit(area) + np.array([-half, half]))
    return Interval(float(low), float(high))
