"""Which classes are taken for which others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sotglp.report.intervals import Share, share


@dataclass(frozen=True)
class ClassResult:
    """How often images of a class are recognised, and what the others are taken for most often."""

    label: str
    accuracy: Share
    mistaken_for: str
    mistaken_count: int


@dataclass(frozen=True)
class Confused:
    """``count`` of ``n`` images of a class that are taken for another one."""

    label: str
    predicted: str
    count: int
    n: int


@dataclass(frozen=True, eq=False)
class Confusion:
    """How many images of each class are taken for which.

    Attributes
    ----------
    labels : tuple of str
        C classes.
    counts : NDArray
        Images by right class (rows) and predicted one (columns), (C, C).
    """

    labels: tuple[str, ...]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, labels: Sequence[str], targets: NDArray[np.int64], predicted: NDArray[np.int64]) -> Confusion:
        """Count images by their right class and the predicted one.

        Parameters
        ----------
        labels : sequence of str
            C classes.
        targets, predicted : NDArray
            Places among them, (n,).
        """
        counts = np.zeros((len(labels), len(labels)), np.int64)
        np.add.at(counts, (targets, predicted), 1)
        return cls(tuple(labels), counts)

    @property
    def totals(self) -> NDArray[np.int64]:
        """Images of each class, (C,)."""
        totals: NDArray[np.int64] = self.counts.sum(axis=1)
        return totals

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of the images of each class (rows) that is taken for each, (C, C); 0 of a class without images."""
        shares: NDArray[np.float64] = self.counts / np.maximum(self.totals, 1)[:, None]
        return shares

    @property
    def untested(self) -> list[str]:
        """Classes that there are no images of."""
        return [label for label, total in zip(self.labels, self.totals, strict=True) if total == 0]

    def worst(self, most: int) -> list[ClassResult]:
        """Up to so many classes with mistakes, the least recognised first."""
        n_right, totals = self.counts.diagonal(), self.totals
        accuracy = n_right / np.maximum(totals, 1)
        order = np.lexsort((n_right - totals, accuracy))  # of those equally right, the one with most mistakes
        mistaken = [place for place in order.tolist() if n_right[place] < totals[place]]
        return [self._result(place) for place in mistaken[:most]]

    def most_confused(self, most: int) -> list[Confused]:
        """Up to so many pairs of classes, those with most images first."""
        wrong = self.counts.copy()
        np.fill_diagonal(wrong, 0)
        rows, columns = wrong.nonzero()
        order = np.argsort(-wrong[rows, columns], kind="stable")[:most]
        return [
            Confused(self.labels[row], self.labels[column], int(wrong[row, column]), int(self.totals[row]))
            for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True)
        ]

    def to_dicts(self) -> list[dict[str, Any]]:
        """For programs: the fields that are not 0."""
        rows, columns = self.counts.nonzero()
        return [
            {"label": self.labels[row], "predicted": self.labels[column], "count": int(self.counts[row, column])}
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        ]

    def _result(self, place: int) -> ClassResult:
        wrong = self.counts[place].copy()
        wrong[place] = 0
        answer = int(wrong.argmax())
        accuracy = share(int(self.counts[place, place]), int(self.totals[place]))
        return ClassResult(self.labels[place], accuracy, self.labels[answer], int(wrong[answer]))
