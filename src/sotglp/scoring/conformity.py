"""How well a class conforms with an image, from its probabilities: what prediction sets are cut at.

Larger is more conforming. ``lac`` is the probability of the class (least ambiguous sets, arXiv 1609.00451). ``aps`` is
the negative mass of the class and of all more probable ones (adaptive sets, arXiv 2006.02544), so that hard images have
larger sets. ``raps`` subtracts a penalty for classes of a low rank, which cuts the long tails of ``aps`` (arXiv
2009.14193). The papers' scores are randomised, to fill the coverage exactly with the smallest sets. These are not, so
that the same image always has the same set: the guarantee is the same, and sets are somewhat larger.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from sotglp.settings import SetScore

RAPS_PENALTY, RAPS_FREE = 0.01, 5
"""Penalty of each rank beyond the free ones: lambda and k_reg, typical values of the paper, which tunes them."""


class TrueClasses(NamedTuple):
    """True class of n calibration images, its rank by probability, from 1 on, and the mass up to it, (n,)."""

    targets: NDArray[np.int64]
    ranks: NDArray[np.int64]
    masses: NDArray[np.float64]

    @classmethod
    def of(cls, probabilities: NDArray[np.float32], targets: NDArray[np.int64]) -> Self:
        """Look up the true classes in probabilities (n, C)."""
        rows = np.arange(len(targets))
        ranks, masses = _ranks_and_masses(probabilities)
        return cls(targets, ranks[rows, targets], masses[rows, targets])

    def conformity(self, score: SetScore, probabilities: NDArray[np.float32]) -> NDArray[np.floating]:
        """Compute the conformity of the true classes, whose ``probabilities`` are (n,); see :func:`conformity`."""
        return probabilities if score == "lac" else _negative_mass(self.ranks, self.masses, score)


def conformity(probabilities: NDArray[np.float32], score: SetScore) -> NDArray[np.floating]:
    """Compute the conformity of each class from probabilities (..., C); see this module."""
    return probabilities if score == "lac" else _negative_mass(*_ranks_and_masses(probabilities), score)


def _ranks_and_masses(probabilities: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rank of each class from the most probable on, equal ones in their order, and the mass up to it, (..., C)."""
    given = probabilities.astype(np.float64)
    order = np.argsort(-given, axis=-1, kind="stable")
    ranks = np.argsort(order, axis=-1, kind="stable")
    cumulative = np.take_along_axis(given, order, axis=-1).cumsum(axis=-1)
    return ranks + 1, np.take_along_axis(cumulative, ranks, axis=-1)


def _negative_mass(ranks: NDArray[np.int64], masses: NDArray[np.float64], score: SetScore) -> NDArray[np.float64]:
    return -masses if score == "aps" else -(masses + RAPS_PENALTY * np.maximum(ranks - RAPS_FREE, 0))
