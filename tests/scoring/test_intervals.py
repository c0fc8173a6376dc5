from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from sotglp.scoring.intervals import auroc_interval, share

Z = norm.ppf(0.975)
SCORES = st.lists(st.integers(0, 6), min_size=2, max_size=12)


@pytest.mark.parametrize(("count", "n"), [(0, 7), (7, 7), (3, 7), (86, 100), (1, 1), (999, 1000)])
def test_shares_by_wilsons_formula(count: int, n: int) -> None:
    p = count / n
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    found = share(count, n)
    assert found.value == p
    assert found.interval is not None
    # scipy closes the ends of the interval at 0 and 1 exactly.
    assert found.interval == pytest.approx((middle - half, middle + half), abs=1e-12)


def by_pairs(inside: list[float], outside: list[float]) -> tuple[float, float]:
    """Area and DeLong's variance, pair by pair."""
    order = np.array([[(a > b) + 0.5 * (a == b) for b in outside] for a in inside])
    return float(order.mean()), float(
        order.mean(axis=1).var(ddof=1) / len(inside) + order.mean(axis=0).var(ddof=1) / len(outside)
    )


@given(SCORES, SCORES)
def test_areas_by_delongs_variance_of_pairs(inside: list[float], outside: list[float]) -> None:
    area, variance = by_pairs(inside, outside)
    found = auroc_interval(inside, outside)
    if variance == 0 or area in (0, 1):
        assert found is None
        return
    assert found is not None
    half = Z * math.sqrt(variance) / (area * (1 - area))
    logit = math.log(area / (1 - area))
    assert found == pytest.approx([1 / (1 + math.exp(-logit + sign * half)) for sign in (1, -1)], abs=1e-9)
    assert 0 <= found.low < area < found.high <= 1


@pytest.mark.parametrize(
    ("inside", "outside"), [([1, 2], [0, 0.5]), ([1, 2], [3, 4]), ([1], [0, 2]), ([1, 2], [1.5]), ([1, 1], [1, 1])]
)
def test_areas_without_a_variance_have_no_interval(inside: list[float], outside: list[float]) -> None:
    assert auroc_interval(inside, outside) is None
    assert share(0, 0).interval is None
