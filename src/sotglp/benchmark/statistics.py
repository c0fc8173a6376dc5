"""Means with confidence intervals, and paired tests between two methods."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from sotglp.benchmark.cells import ANY

CONFIDENCE = 0.95
POWER = 0.8
MIN_RANK_PAIRS = 6
"""With fewer pairs a two-sided signed rank test can't reach p < 0.05."""
MIN_SPREAD = 1e-12
"""Differences of fractions with a smaller range differ by rounding only."""


@dataclass(frozen=True)
class Summary:
    """A mean over ``n`` values with its 95 % interval; None for a single value."""

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Paired:
    """Paired difference of two methods.

    Attributes
    ----------
    difference : float
        Mean of first minus second over ``n`` pairs.
    low, high : float or None
        95 % interval by Student's t; None for one pair, or if all differences are equal.
    p, p_ranks : float or None
        Of the two-sided paired t-test, and of Wilcoxon's signed rank test from six pairs on; else None.
    effect : Summary or None
        The difference in units of the standard deviation of the n differences; see :func:`effect_size`.
    detectable : float or None
        Smallest difference that the t-test finds with a probability of 0.8; see :func:`detectable_effect`.
    unit : {"seeds", "datasets"}
        What is paired.
    """

    difference: float
    low: float | None
    high: float | None
    p: float | None
    p_ranks: float | None
    effect: Summary | None
    detectable: float | None
    n: int
    unit: Literal["seeds", "datasets"]


def summary(values: Sequence[float]) -> Summary:
    """Return the mean of at least one value, with its 95 % interval by Student's t with n - 1 degrees of freedom."""
    numbers = np.asarray(values, dtype=np.float64)
    mean, n = float(numbers.mean()), len(numbers)
    if n == 1:
        return Summary(mean, None, None, n)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * numbers.std(ddof=1) / np.sqrt(n))
    return Summary(mean, mean - half, mean + half, n)


def paired(first: Mapping[tuple[str, int], float], second: Mapping[tuple[str, int], float]) -> Paired | None:
    """Compare two methods, given by their values by (dataset, seed); None if they have no pair.

    Values of the same dataset and seed are paired; a value at seed 0 depends on no seed and is paired with every seed
    of the other method. With one dataset the units of the tests are its seeds. With several, each dataset is one unit,
    its mean over the paired seeds, since seeds of a dataset share its images and aren't independent.

    References
    ----------
    Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 7 (2006), section 3.1.
    """
    pairs = _pairs(first, second)
    if not pairs:
        return None
    unit: Literal["seeds", "datasets"] = "seeds" if len(pairs) == 1 else "datasets"
    if unit == "seeds":
        units = np.asarray(next(iter(pairs.values())))
    else:
        units = np.asarray([np.mean(values, axis=0) for values in pairs.values()])
    one, other = units.T
    differences, n = one - other, len(units)
    low = high = p = p_ranks = effect = detectable = None
    if n > 1 and np.ptp(differences) > MIN_SPREAD:
        test = stats.ttest_rel(one, other)
        interval = test.confidence_interval(CONFIDENCE)
        low, high, p = float(interval.low), float(interval.high), float(test.pvalue)
        effect = effect_size(differences)
        detectable = detectable_effect(n) * float(differences.std(ddof=1))
        if n >= MIN_RANK_PAIRS:
            p_ranks = float(stats.wilcoxon(differences).pvalue)
    return Paired(float(differences.mean()), low, high, p, p_ranks, effect, detectable, n, unit)


def effect_size(differences: NDArray[np.float64]) -> Summary:
    """Return the mean of paired differences (n,) over their standard deviation, d_z, with its 95 % interval.

    The interval holds the effects whose noncentral t distribution has the observed t between its 2.5 and 97.5 %
    quantiles, so that it contains 0 where the t-test has p > 0.05. It is None where they can't be computed, for
    differences that are nearly equal.

    References
    ----------
    Cumming and Finch, A primer on the understanding, use, and calculation of confidence intervals, Educational and
    Psychological Measurement 61 (2001).
    """
    n = len(differences)
    effect = float(differences.mean() / differences.std(ddof=1))
    t = effect * math.sqrt(n)
    spread = math.sqrt(1 + t * t / (2 * (n - 1)))

    def effect_with(below: float) -> float | None:
        def excess(mean: float) -> float:
            return float(stats.nct.cdf(t, n - 1, mean)) - below

        # Step by step, since SciPy's distribution function is NaN far out in its tails, and everywhere for a large t.
        low = high = t
        while excess(low) < 0:
            low -= spread
        while excess(high) > 0:
            high += spread
        is_between = excess(low) >= 0 >= excess(high)
        return float(optimize.brentq(excess, low, high)) / math.sqrt(n) if is_between else None

    outside = (1 - CONFIDENCE) / 2
    return Summary(effect, effect_with(1 - outside), effect_with(outside), n)


def detectable_effect(n: int) -> float:
    """Return the effect size d_z that a two-sided paired t-test of n pairs finds at p < 0.05 with a power of 0.8."""
    critical = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)

    def missing_power(effect: float) -> float:
        # The wrong sign would be found with less than 1e-6, and SciPy's value of that tail may be NaN.
        return float(stats.nct.sf(critical, n - 1, effect * math.sqrt(n))) - POWER

    enough = 1.0
    while missing_power(enough) < 0:
        enough *= 1.5
    return float(optimize.brentq(missing_power, 0.0, enough))


def _pairs(
    first: Mapping[tuple[str, int], float], second: Mapping[tuple[str, int], float]
) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for dataset, seed in sorted({*first, *second}):
        # A value at seed 0 forms an own pair only if the other method has no seeds either.
        is_widened = seed == ANY and any(name == dataset and other != ANY for name, other in (*first, *second))
        both = [values.get((dataset, seed), values.get((dataset, ANY))) for values in (first, second)]
        if both[0] is not None and both[1] is not None and not is_widened:
            found.setdefault(dataset, []).append((both[0], both[1]))
    return found


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values by the Holm-Bonferroni method; None, a comparison without a test, is kept and not counted.

    References
    ----------
    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979).
    """
    tested = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    most = 0.0
    for rank, (p, i) in enumerate(tested):
        most = max(most, min(1.0, (len(tested) - rank) * p))
        adjusted[i] = most
    return adjusted
