"""What was chosen among candidates by held-out shots, and by which margin. Importing this module loads no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Measure = Literal["accuracy", "AUROC"]

CLEAR = 1.5
"""A candidate replaces the preferred one if it is better by more than this many standard errors of the difference."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Choice:
    """A value that was chosen for a setting, and the evidence.

    Attributes
    ----------
    setting : str
        Name of the setting: ``method``, ``learning_rate`` or ``ood_method``.
    chosen, preferred : str
        The chosen value, and the one that is chosen unless another is clearly better.
    measure : {"accuracy", "AUROC"}
        What candidates were compared by.
    merits : dict
        That measure on held-out shots for each candidate; empty if nothing could be held out.
    rival : str or None
        The preferred value, or if that was chosen, the best other one.
    margin, error : float
        Merit of the chosen value less that of the rival, and its standard error.
    n : int
        Number of held-out shots, or for ``ood_method`` of groups of classes.
    cost : float
        Training steps that the comparison took, in units of a whole fit of the dearest candidate.
    """

    setting: Annotated[str, Field(max_length=100)]
    chosen: Annotated[str, Field(max_length=100)]
    preferred: Annotated[str, Field(max_length=100)]
    measure: Measure
    merits: dict[str, float]
    rival: str | None
    margin: float
    error: Annotated[float, Field(ge=0)]
    n: Annotated[int, Field(ge=0)]
    cost: Annotated[float, Field(ge=0)]

    def __str__(self) -> str:
        if self.rival is None:
            return f"{self.setting} {self.chosen}: nothing could be held out to compare it with others"
        points = f"{abs(100 * self.margin):.1f} points (standard error {100 * self.error:.1f})"
        side = "better" if self.margin >= 0 else "worse"
        reason = "preferred, and no other is clearly better" if self.chosen == self.preferred else "clearly better"
        return (
            f"{self.setting} {self.chosen}: {self.merits[self.chosen]:.1%} {self.measure} on held-out shots, {points} "
            f"{side} than {self.rival} ({reason})"
        )


def choose(
    setting: str,
    results: Mapping[str, NDArray[np.float64]],
    preferred: str,
    *,
    measure: Measure = "accuracy",
    cost: float = 0.0,
    clear: float = CLEAR,
) -> Choice:
    """Choose the candidate with the best mean result, unless the preferred one is not clearly worse.

    Parameters
    ----------
    setting, preferred, measure, cost
        See :class:`Choice`.
    clear : float, default CLEAR
        Standard errors that the best one must be ahead by.
    results : mapping of str to NDArray
        For each candidate the result on each of n held-out parts, (n,), the same parts for all; the larger, the better.
        Of equal candidates, the first one is the best.
    """
    n = len(results[preferred])
    if n == 0 or len(results) == 1:
        return Choice(setting, preferred, preferred, measure, {}, None, 0.0, 0.0, n, cost)
    merits = {name: float(each.mean()) for name, each in results.items()}
    best = max((name for name in merits if name != preferred), key=merits.__getitem__)
    gain, error = merits[best] - merits[preferred], _standard_error(results[best] - results[preferred])
    is_clear = gain > clear * error
    chosen, rival, margin = (best, preferred, gain) if is_clear else (preferred, best, -gain)
    return Choice(setting, chosen, preferred, measure, merits, rival, margin, error, n, cost)


def clear_among(n_rivals: int) -> float:
    """Return the standard errors for the best of several rivals, as probable by chance as ``CLEAR`` for a single one.

    The probability is divided by their number (Bonferroni).
    """
    normal = NormalDist()
    return -normal.inv_cdf(normal.cdf(-CLEAR) / max(n_rivals, 1))


def _standard_error(differences: NDArray[np.float64]) -> float:
    """Standard error of the mean of differences (n,) between fractions; the largest possible one for a single one."""
    n = len(differences)
    return float(differences.std(ddof=1)) / math.sqrt(n) if n > 1 else 1.0
