from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from sotglp import SotglpError
from sotglp.scoring.risk_control import N_THRESHOLDS, check_max_error, reject_for_error


def test_the_threshold_accepts_most_images_of_those_that_pass_the_test() -> None:
    draw = np.random.default_rng(0)
    scores = draw.normal(size=400).astype(np.float32)
    correct = draw.random(400) < 1 / (1 + np.exp(-3 - 2 * scores))
    found = reject_for_error(scores, correct, 0.05, 0.9)
    passing = {}
    for part in range(1, N_THRESHOLDS + 1):
        above = scores > np.sort(scores)[400 - 40 * part]
        n, wrong = int(above.sum()), int((~correct[above]).sum())
        if binomtest(wrong, n, 0.05, alternative="less").pvalue <= 0.1 / N_THRESHOLDS:
            passing[n] = wrong
    n = max(passing)
    assert n < 399
    assert found.accepted_error is not None
    assert (found.accepted_error.n, found.accepted_error.n_wrong) == (n, passing[n])
    assert (found.n, found.tpr) == (400, n / 400)
    # A threshold accepts scores that are equal, and the test counted scores above.
    assert (scores >= found.threshold).sum() == n
    assert found.expected_tpr == pytest.approx(n / 400, abs=0.01)


def falling(score: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.4 * (1 - score) ** 2)


def bumpy(score: NDArray[np.float64]) -> NDArray[np.float64]:
    """The most familiar images are often wrong, so that the error does not fall with the score."""
    return np.asarray(np.where(score > 0.85, 0.2, 0.3 * (1 - score) ** 2))


def constant(score: NDArray[np.float64]) -> NDArray[np.float64]:
    """No threshold keeps to 10 %."""
    return np.full_like(score, 0.11)


@pytest.mark.parametrize("error_at", [falling, bumpy, constant])
@pytest.mark.parametrize("ties", [False, True])
def test_the_error_among_accepted_images_exceeds_the_bound_in_few_draws(
    error_at: Callable[[NDArray[np.float64]], NDArray[np.float64]], ties: bool
) -> None:
    draw, draws, n_bad, n_found = np.random.default_rng(1), 400, 0, 0
    grid = np.linspace(0, 1, 20001)
    grid = np.floor(grid * 8) / 8 if ties else grid
    for _ in range(draws):
        scores = draw.random(150)
        scores = np.floor(scores * 8) / 8 if ties else scores
        correct = draw.random(150) >= error_at(scores)
        try:
            found = reject_for_error(scores, correct, 0.1, 0.8)
        except SotglpError:
            continue
        n_found += 1
        n_bad += error_at(grid[grid >= found.threshold]).mean() > 0.1
    assert n_bad / draws < 0.2 + 3 * math.sqrt(0.2 * 0.8 / draws)
    if error_at is falling and not ties:
        assert n_found > 0.4 * draws  # the bound is of use


def test_what_can_not_be_bounded_is_refused() -> None:
    with pytest.raises(SotglpError, match=r"20 calibration images .* give at least 45"):
        reject_for_error(np.arange(20.0), np.ones(20, bool), 0.1)
    check_max_error(0.1, 0.9, 45)
    assert reject_for_error(np.arange(45.0), np.ones(45, bool), 0.1).tpr == 44 / 45
    with pytest.raises(SotglpError, match="of which 46 are misclassified"):
        reject_for_error(np.arange(46.0), np.zeros(46, bool), 0.1)
    for max_error, confidence, named in ((0, 0.9, "max_error = 0"), (0.1, 1, "confidence = 1"), (math.nan, 0.9, "nan")):
        with pytest.raises(SotglpError, match=named):
            check_max_error(max_error, confidence, 1000)
