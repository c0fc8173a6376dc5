from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sotglp.metrics import ood_metrics

scores = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=30)


def average_precision(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the step-wise precision-recall curve, threshold by threshold."""
    area, recall_before = 0.0, 0.0
    for threshold in sorted({*positive, *negative}, reverse=True):
        taken = (positive >= threshold).sum()
        precision = taken / (taken + (negative >= threshold).sum())
        area += precision * (taken / len(positive) - recall_before)
        recall_before = taken / len(positive)
    return float(area)


@given(scores, scores)
def test_metrics_by_their_definitions(inside: list[float], outside: list[float]) -> None:
    ins, outs = np.array(inside), np.array(outside)
    found = ood_metrics(ins, outs)
    above = (ins[:, None] > outs).mean() + 0.5 * (ins[:, None] == outs).mean()
    assert found["auroc"] == pytest.approx(above)
    accepted = [threshold for threshold in ins if (ins >= threshold).mean() >= 0.95]
    assert found["fpr95"] == pytest.approx((outs >= max(accepted)).mean())
    assert found["aupr_in"] == pytest.approx(average_precision(ins, outs))
    assert found["aupr_out"] == pytest.approx(average_precision(-outs, -ins))


def test_perfect_and_inverted() -> None:
    assert ood_metrics([2, 3], [0, 1]) == {"auroc": 1.0, "fpr95": 0.0, "aupr_in": 1.0, "aupr_out": 1.0}
    assert ood_metrics([0, 1], [2, 3])["auroc"] == 0.0
    assert ood_metrics([0, 1], [2, 3])["fpr95"] == 1.0
