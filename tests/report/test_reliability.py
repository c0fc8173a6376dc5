from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotglp.report.reliability import N_BINS, Reliability


@given(st.integers(1, 60), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_bins_by_hand(n: int, n_classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(n_classes, 0.4), n).astype(np.float32)
    targets = rng.integers(n_classes, size=n)
    found = Reliability.of(probabilities, targets)
    sure, right = probabilities.max(axis=1).astype(float), probabilities.argmax(axis=1) == targets
    for i in range(N_BINS):
        low, high = i / N_BINS, (i + 1) / N_BINS
        inside = (sure > low) & ((sure <= high) | (i == N_BINS - 1))
        assert found.counts[i] == inside.sum()
        if inside.any():
            assert found.confidence[i] == pytest.approx(sure[inside].mean())
            assert found.accuracy[i] == pytest.approx(right[inside].mean())
        else:
            assert np.isnan([found.confidence[i], found.accuracy[i]]).all()
    # What is drawn and the JSON are the same: the mean distance of the points from the line.
    gaps = np.nan_to_num(np.abs(found.accuracy - found.confidence))
    assert found.error == pytest.approx((found.counts * gaps).sum() / n, abs=1e-6)
    values = found.to_dict()
    assert values["ece"] == found.error
    assert sum(one["count"] for one in values["bins"]) == n
