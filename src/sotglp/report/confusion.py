"""The confusion matrix: classes with low accuracy, and pairs of classes that are confused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sotglp.scoring.intervals import Share, share


@dataclass(frozen=True)
class ClassResult:
    """Accuracy on images of a class, and the most frequent wrong prediction."""

    label: str
    accuracy: Share
    mistaken_for: str
    mistaken_count: int


@dataclass(frozen=True)
class Confused:
    """``count`` of ``n`` images of a class are predicted as another one."""

    label: str
    predicted: str
    count: int
    n: int


@dataclass(frozen=True, eq=False)
class Confusion:
    """Number of images by true class (rows) and predicted class (columns), (C, C), of C labels."""

    labels: tuple[str, ...]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, labels: Sequence[str], targets: NDArray[np.int64], predicted: NDArray[np.int64]) -> Confusion:
        """Count images by true and predicted class indices, (n,) each."""
        counts = np.zeros((len(labels), len(labels)), np.int64)
        np.add.at(counts, (targets, predicted), 1)
        return cls(tuple(labels), counts)

    @property
    def totals(self) -> NDArray[np.int64]:
        """Number of images of each class, (C,)."""
        totals: NDArray[np.int64] = self.counts.sum(axis=1)
        return totals

    @property
    def shares(self) -> NDArray[np.float64]:
        """:attr:`counts` as shares of their row, 0 for a class without images, (C, C)."""
        shares: NDArray[np.float64] = self.counts / np.maximum(self.totals, 1)[:, None]
        return shares

    @property
    def untested(self) -> list[str]:
        """Classes without images."""
        return [label for label, total in zip(self.labels, self.totals, strict=True) if total == 0]

    def worst(self, most: int) -> list[ClassResult]:
        """Return at most ``most`` classes with mistakes, lowest accuracy first."""
        n_correct, totals = self.counts.diagonal(), self.totals
        accuracy = n_correct / np.maximum(totals, 1)
        order = np.lexsort((n_correct - totals, accuracy))  # at equal accuracy, more mistakes first
        mistaken = [i for i in order.tolist() if n_correct[i] < totals[i]]
        return [self._result(i) for i in mistaken[:most]]

    def most_confused(self, most: int) -> list[Confused]:
        """Return at most ``most`` confused pairs of classes, most images first."""
        wrong = self.counts.copy()
        np.fill_diagonal(wrong, 0)
        rows, columns = wrong.nonzero()
        order = np.argsort(-wrong[rows, columns], kind="stable")[:most]
        return [
            Confused(self.labels[row], self.labels[column], int(wrong[row, column]), int(self.totals[row]))
            for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True)
        ]

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the nonzero cells for JSON."""
        rows, columns = self.counts.nonzero()
        return [
            {"label": self.labels[row], "predicted": self.labels[column], "count": int(self.counts[row, column])}
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        ]

    def _result(self, i: int) -> ClassResult:
        wrong = self.counts[i].copy()
        wrong[i] = 0
        answer = int(wrong.argmax())
        accuracy = share(int(self.counts[i, i]), int(self.totals[i]))
        return ClassResult(self.labels[i], accuracy, self.labels[answer], int(wrong[answer]))
