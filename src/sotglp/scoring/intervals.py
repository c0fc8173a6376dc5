"""Confidence intervals of shares and of areas under ROC curves."""

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
    """Bounds of a 95 % confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Share:
    """``count`` of ``n`` images, with the confidence interval of their share; None for no images."""

    count: int
    n: int
    interval: Interval | None

    @property
    def value(self) -> float:
        """The share, from 0 to 1."""
        return self.count / self.n


def share(count: int, n: int) -> Share:
    """Return a share with its Wilson score interval, which stays within 0 and 1 and is never empty.

    References
    ----------
    Wilson, JASA 22 (1927); Brown, Cai & DasGupta, Statistical Science 16 (2001), who recommend it for small n.
    """
    if n == 0:
        return Share(0, 0, None)
    found = binomtest(count, n).proportion_ci(CONFIDENCE, method="wilson")
    return Share(count, n, Interval(float(found.low), float(found.high)))


def auroc_interval(in_scores: ArrayLike, out_scores: ArrayLike) -> Interval | None:
    """Compute the 95 % interval of an area under the ROC curve from DeLong's variance on the logit scale.

    Scores of in-distribution (n,) and other images (m,), larger for the former. None if the variance is undefined: for
    a single image, or if all pairs or none are in the right order.

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
    # For each image, the share of images of the other side in the right order with it; ties count half.
    of_inside: NDArray[np.float64] = (ranks[:n] - rankdata(inside)) / m
    of_outside: NDArray[np.float64] = 1 - (ranks[n:] - rankdata(outside)) / n
    area = float(of_inside.mean())
    variance = float(of_inside.var(ddof=1) / n + of_outside.var(ddof=1) / m)
    if variance == 0 or not 0 < area < 1:
        return None
    half = norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt(variance) / (area * (1 - area))
    low, high = expit(logit(area) + np.array([-half, half]))
    return Interval(float(low), float(high))
