from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom, norm

from sotglp import SotglpError
from sotglp.scoring.rejection import rank_below, reject_below

SCORES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=80)
PERCENT = st.integers(1, 100)


@pytest.mark.parametrize(
    ("n", "tpr", "k"),
    [(19, 0.95, 1), (18, 0.95, 1), (39, 0.95, 2), (38, 0.95, 1), (99, 0.9, 10), (9, 0.7, 3), (5, 1, 1), (2, 2 / 3, 1)],
)
def test_the_threshold_is_the_score_of_a_rank(n: int, tpr: float, k: int) -> None:
    scores = np.random.default_rng(n).permutation(n).astype(np.float32)
    found = reject_below(scores, tpr)
    assert found.threshold == k - 1
    assert (found.tpr, found.n) == (tpr, n)
    assert found.expected_tpr == (n + 1 - k) / (n + 1)


@pytest.mark.parametrize(
    "tpr", [0.95, 0.7, 0.1 * 7, 0.9, 1 - 0.1, 1 / 3, 0.29, np.float32(0.7), np.float32(0.9), np.float16(0.95)]
)
def test_a_float_counts_as_the_number_that_was_meant(tpr: float) -> None:
    meant = {0.95: (19, 20), 0.7: (7, 10), 0.9: (9, 10), 0.29: (29, 100)}.get(round(float(tpr), 3), (1, 3))
    for n in range(1, 400):
        assert rank_below(n, tpr) == (n + 1) * (meant[1] - meant[0]) // meant[1]


@given(SCORES, PERCENT)
@settings(deadline=None)
def test_enough_of_the_given_images_pass(scores: list[float], percent: int) -> None:
    found = reject_below(scores, percent / 100)
    passing = (np.array(scores) >= found.threshold).sum()
    assert Fraction(int(passing), len(scores)) >= Fraction(percent, 100)
    # The next larger score would be too much to promise, unless it is a tie.
    larger = [score for score in scores if score > found.threshold]
    if larger:
        below = sum(score <= found.threshold for score in scores)
        assert Fraction(len(scores) - below, len(scores) + 1) < Fraction(percent, 100)


@given(SCORES, PERCENT, PERCENT)
@settings(deadline=None)
def test_who_asks_for_more_gets_a_lower_threshold(scores: list[float], one: int, other: int) -> None:
    less, more = (reject_below(scores, percent / 100) for percent in sorted((one, other)))
    assert more.threshold <= less.threshold
    assert more.expected_tpr >= less.expected_tpr
    assert more.interval >= less.interval


@given(st.integers(1, 300), PERCENT)
@settings(deadline=None)
def test_the_promise_is_that_of_the_beta_distribution(n: int, percent: int) -> None:
    found = reject_below(np.arange(n), percent / 100)
    k = max(math.floor(Fraction((n + 1) * (100 - percent), 100)), 1)
    low, high = found.interval
    distribution = beta(n + 1 - k, k)
    assert found.expected_tpr == pytest.approx(distribution.mean())
    assert distribution.cdf(low) == pytest.approx(0.05)
    assert distribution.sf(high) == pytest.approx(0.05)
    is_enough = n * (100 - percent) >= percent
    assert (found.expected_tpr >= percent / 100 - 1e-12) == is_enough


@pytest.mark.parametrize(("n", "tpr"), [(10, 0.95), (19, 0.95), (60, 0.95), (45, 0.8)])
def test_share_that_passes_over_many_draws(n: int, tpr: float) -> None:
    draws = 2000
    found = [reject_below(scores, tpr) for scores in np.random.default_rng(n).normal(3, 2, (draws, n))]
    passing = norm.sf([one.threshold for one in found], 3, 2)
    k = max((n + 1) * round(100 - 100 * tpr) // 100, 1)
    spread = beta.std(n + 1 - k, k) / math.sqrt(draws)
    assert abs(passing.mean() - found[0].expected_tpr) < norm.isf(1e-4) * spread
    low, high = found[0].interval
    assert {one.interval for one in found} == {(low, high)}
    held = ((passing >= low) & (passing <= high)).sum()
    fewest, most = binom.interval(0.999, draws, 0.9)
    assert fewest <= held <= most


def test_more_pass_where_scores_tie() -> None:
    draws = np.random.default_rng(0).normal(size=(500, 60))
    untied = norm.sf([reject_below(scores, 0.9).threshold for scores in draws])
    # Halves: a score of t holds all from t to t + 1/2.
    tied = norm.sf([reject_below(np.floor(2 * scores) / 2, 0.9).threshold for scores in draws])
    assert (tied > untied).all()
    assert reject_below([1, 1, 1, 1], 0.5).threshold == 1


def test_a_threshold_of_single_precision_compares_as_it_is() -> None:
    scores = np.random.default_rng(0).random(40).astype(np.float32)
    found = reject_below(scores)
    assert (scores < found.threshold).sum() == 1
    assert np.float32(found.threshold) in scores
    assert reject_below([3, 1, 2], 1e-12).threshold == 3  # a tiny share still has one


@pytest.mark.parametrize(
    ("scores", "tpr", "message"),
    [
        *(([1.0], tpr, f"tpr = {tpr} must be") for tpr in (0.0, -0.1, 1.01, math.nan)),
        ([], 0.95, r"scores are of shape \(0,\)"),
        ([1, math.nan], 0.95, r"scores\[1\] = nan is not finite"),
    ],
)
def test_invalid_scores_and_shares_are_refused(scores: list[float], tpr: float, message: str) -> None:
    with pytest.raises(SotglpError, match=f"^{message}"):
        reject_below(scores, tpr)
