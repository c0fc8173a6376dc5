"""Results arranged for tables and plots: by method, dataset, shots and seed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from sotglp.benchmark.cells import ANY
from sotglp.benchmark.published import published_columns
from sotglp.benchmark.results import Result
from sotglp.methods.method import METHODS

Measure = Callable[[Result], float | None]
Part = tuple[str, Measure]
"""A dataset, and the measure of its results that enters a mean."""


class Scores:
    """Results of one protocol on one backbone, one result per cell.

    Attributes
    ----------
    methods, datasets : tuple of str
        Known names in the order of papers, then others by name.
    shots : tuple of int
        Ascending; (0,) if no method uses shots.
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
        """Return whether the method has a cell with shots."""
        return any(name == method and shots != ANY for name, _, shots in self._cells)

    def by_seed(self, method: str, dataset: str, shots: int, measure: Measure) -> dict[int, float]:
        """Return a measure by seed; a cell without shots counts for every number of shots."""
        found = self._cells.get((method, dataset, shots)) or self._cells.get((method, dataset, ANY), {})
        measured = {seed: measure(result) for seed, result in sorted(found.items())}
        return {seed: value for seed, value in measured.items() if value is not None}

    def over(self, method: str, shots: int, parts: Sequence[Part]) -> dict[int, float]:
        """Return the mean over parts by seed.

        Empty if the method has no result for one of them, since means over different datasets aren't comparable. If
        the datasets have different seeds, the mean of their means at seed 0.
        """
        each = [self.by_seed(method, dataset, shots, measure) for dataset, measure in parts]
        if not each or not all(each):
            return {}
        if all(values.keys() == each[0].keys() for values in each):
            return {seed: float(np.mean([values[seed] for values in each])) for seed in each[0]}
        return {ANY: float(np.mean([np.mean(list(values.values())) for values in each]))}

    def names(self, of: Callable[[Result], Iterable[str]]) -> dict[str, tuple[str, ...]]:
        """Return the additional test sets of results, each with the datasets that were tested on it."""
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
    """Known names first, then others in natural order."""

    def position(name: str) -> tuple[int, list[tuple[bool, float, str]]]:
        parts = re.findall(r"\d+\.?\d*|\D+", name)
        natural = [(not part[0].isdecimal(), float(part) if part[0].isdecimal() else 0.0, part) for part in parts]
        return (known.index(name) if name in known else len(known)), natural

    return tuple(sorted(names, key=position))
