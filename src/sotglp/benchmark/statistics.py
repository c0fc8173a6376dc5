"""Means over seeds and datasets, how sure they are, and whether two methods differ."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from sotglp.benchmark.cells import ANY
from sotglp.benchmark.published import published_columns
from sotglp.benchmark.results import Result
from sotglp.methods.method import METHODS

CONFIDENCE = 0.95
FEWEST_FOR_RANKS = 6
"""Fewer pairs can't reach p < 0.05 in a two-sided signed rank test."""
NO_SPREAD = 1e-12
"""Differences of fractions that lie closer together than this differ by rounding alone."""

Measure = Callable[[Result], float | None]
Part = tuple[str, Measure]
"""A dataset, and what of its results enters a mean."""


@dataclass(frozen=True)
class Summary:
    """A mean over ``n`` values with its 95 % interval, which one value does not have."""

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Paired:
    """By how much a method is ahead of another one.

    Attributes
    ----------
    difference : float
        Mean of first minus second over ``n`` pairs.
    low, high : float or None
        95 % interval of Student's t; None for one pair, or where all differences are the same.
    p : float or None
        Of the two-sided paired t-test; None likewise.
    p_ranks : float or None
        Of Wilcoxon's two-sided signed rank test; None also with fewer than six pairs.
    n : int
        Number of pairs.
    unit : {"seeds", "datasets"}
        What is paired.
    """

    difference: float
    low: float | None
    high: float | None
    p: float | None
    p_ranks: float | None
    n: int
    unit: Literal["seeds", "datasets"]


def summary(values: Sequence[float]) -> Summary:
    """Mean of values, and the 95 % interval of Student's t with n - 1 degrees of freedom.

    Parameters
    ----------
    values : sequence of float
        At least one.
    """
    numbers = np.asarray(values, dtype=np.float64)
    mean, n = float(numbers.mean()), len(numbers)
    if n == 1:
        return Summary(mean, None, None, n)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * numbers.std(ddof=1) / np.sqrt(n))
    return Summary(mean, mean - half, mean + half, n)


def paired(first: Mapping[tuple[str, int], float], second: Mapping[tuple[str, int], float]) -> Paired | None:
    """Compare two methods on what both were run on.

    Pairs are formed for each dataset and seed that both have; a value at seed 0 depends on no seed and goes with every
    seed of the other method. With one dataset the units of the tests are its seeds. With several, each dataset is one
    unit, its mean over the paired seeds: seeds of a dataset share its images, so they don't count as independent.

    Parameters
    ----------
    first, second : mapping
        Values by (dataset, seed).

    Returns
    -------
    Paired or None
        None where nothing pairs.

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
    low = high = p = p_ranks = None
    if n > 1 and np.ptp(differences) > NO_SPREAD:
        test = stats.ttest_rel(one, other)
        interval = test.confidence_interval(CONFIDENCE)
        low, high, p = float(interval.low), float(interval.high), float(test.pvalue)
        if n >= FEWEST_FOR_RANKS:
            p_ranks = float(stats.wilcoxon(differences).pvalue)
    return Paired(float(differences.mean()), low, high, p, p_ranks, n, unit)


def _pairs(
    first: Mapping[tuple[str, int], float], second: Mapping[tuple[str, int], float]
) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for dataset, seed in sorted({*first, *second}):
        # A value at seed 0 has a row of its own only where the other method has no seeds either.
        is_widened = seed == ANY and any(name == dataset and at != ANY for name, at in (*first, *second))
        both = [values.get((dataset, seed), values.get((dataset, ANY))) for values in (first, second)]
        if both[0] is not None and both[1] is not None and not is_widened:
            found.setdefault(dataset, []).append((both[0], both[1]))
    return found


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values for their number: by chance, one below a stands in at most a share a of such tables.

    Parameters
    ----------
    p_values : sequence of float or None
        None stands for a comparison without a test: it stays None and is not counted.

    References
    ----------
    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979).
    """
    tested = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    most = 0.0
    for rank, (p, place) in enumerate(tested):
        most = max(most, min(1.0, (len(tested) - rank) * p))
        adjusted[place] = most
    return adjusted


class Scores:
    """Results by method, dataset and shots, with the names in the order of tables.

    Parameters
    ----------
    results : sequence of Result
        Of one protocol on one backbone, one for each cell: see :func:`sotglp.benchmark.results.latest`.

    Attributes
    ----------
    methods, datasets : tuple of str
        Those that sotglp knows in its own order, then others by name.
    shots : tuple of int
        Ascending; 0 alone where no method of the results uses shots.
    """

    def __init__(self, results: Sequence[Result]) -> None:
        self._cells: dict[tuple[str, str, int], dict[int, Result]] = {}
        for result in results:
            cell = result.cell
            self._cells.setdefault((cell.method, cell.dataset, cell.shots), {})[cell.seed] = result
        self.methods = _in_order({result.cell.method for result in results}, list(METHODS))
        self.datasets = _in_order({result.cell.dataset for result in results}, published_columns("accuracy"))
        self.shots = tuple(sorted({result.cell.shots for result in results} - {ANY})) or (ANY,)

    def uses_shots(self, method: str) -> bool:
        """Whether the method has a cell with a number of shots."""
        return any(name == method and shots != ANY for name, _, shots in self._cells)

    def by_seed(self, method: str, dataset: str, shots: int, measure: Measure) -> dict[int, float]:
        """What was measured at each seed; a cell without shots stands for every number of them."""
        found = self._cells.get((method, dataset, shots)) or self._cells.get((method, dataset, ANY), {})
        measured = {seed: measure(result) for seed, result in sorted(found.items())}
        return {seed: value for seed, value in measured.items() if value is not None}

    def over(self, method: str, shots: int, parts: Sequence[Part]) -> dict[int, float]:
        """Means over datasets at each seed.

        Nothing where the method lacks one of them, since means over other datasets don't compare. Where the datasets
        were not all run with the same seeds, the mean of their means stands at seed 0.
        """
        each = [self.by_seed(method, dataset, shots, measure) for dataset, measure in parts]
        if not each or not all(each):
            return {}
        if all(values.keys() == each[0].keys() for values in each):
            return {seed: float(np.mean([values[seed] for values in each])) for seed in each[0]}
        return {ANY: float(np.mean([np.mean(list(values.values())) for values in each]))}

    def names(self, of: Callable[[Result], Iterable[str]]) -> dict[str, tuple[str, ...]]:
        """Sets that results measure besides, each with the datasets whose results do, both in order."""
        found: dict[str, set[str]] = {}
        for (_, dataset, _), by_seed in self._cells.items():
            for result in by_seed.values():
                for name in of(result):
                    found.setdefault(name, set()).add(dataset)
        known = (*published_columns("accuracy"), *published_columns("auroc"), *published_columns("shift"))
        return {
            name: tuple(dataset for dataset in self.datasets if dataset in found[name])
            for name in _in_order(found, known)
        }


def _in_order(names: Iterable[str], known: Sequence[str]) -> tuple[str, ...]:
    """Known names as they come, then others by name, with numbers in them by value."""

    def place(name: str) -> tuple[int, list[tuple[bool, float, str]]]:
        parts = re.findall(r"\d+\.?\d*|\D+", name)
        natural = [(not part[0].isdecimal(), float(part) if part[0].isdecimal() else 0.0, part) for part in parts]
        return (known.index(name) if name in known else len(known)), natural

    return tuple(sorted(names, key=place))
