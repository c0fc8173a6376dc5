from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pytorch_ood.metrics import functional as pytorch_ood
from sklearn.calibration import calibration_curve
from sklearn.metrics import auc, roc_curve

from sotglp import SotglpError
from sotglp.scoring.metrics import expected_calibration_error, ood_metrics, oscr

SCORE = st.integers(-4, 4).map(float)
SCORES = st.lists(SCORE, min_size=1, max_size=30)
JUDGED = st.lists(st.tuples(SCORE, st.booleans()), min_size=1, max_size=30)
"""Scores, and whether the prediction is right."""


def average_precision(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the step-wise precision-recall curve, threshold by threshold."""
    area, recall_before = 0.0, 0.0
    for threshold in sorted({*positive, *negative}, reverse=True):
        taken = (positive >= threshold).sum()
        precision = taken / (taken + (negative >= threshold).sum())
        area += precision * (taken / len(positive) - recall_before)
        recall_before = taken / len(positive)
    return float(area)


def drawn(seed: int, step: float) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """In-distribution scores, which of them are right, and other scores; rounded to steps, so that they tie."""
    draw = np.random.default_rng(seed)
    inside, outside = draw.normal(1, 1, 90), draw.normal(0, 1.5, 70)
    right = draw.random(90) < 1 / (1 + np.exp(-inside))
    return (inside, right, outside) if step == 0 else (np.round(inside / step), right, np.round(outside / step))


@given(SCORES, SCORES)
@settings(deadline=None)
def test_metrics_by_their_definitions(inside: list[float], outside: list[float]) -> None:
    ins, outs = np.array(inside), np.array(outside)
    found = ood_metrics(ins, outs)
    above = (ins[:, None] > outs).mean() + 0.5 * (ins[:, None] == outs).mean()
    assert found["auroc"] == pytest.approx(above)
    accepted = [threshold for threshold in ins if (ins >= threshold).mean() >= 0.95]
    assert found["fpr95"] == pytest.approx((outs >= max(accepted)).mean())
    assert found["aupr_in"] == pytest.approx(average_precision(ins, outs))
    assert found["aupr_out"] == pytest.approx(average_precision(-outs, -ins))
    errors = [((ins < threshold).mean() + (outs >= threshold).mean()) / 2 for threshold in [*ins, *outs, np.inf]]
    assert found["detection_error"] == pytest.approx(min(errors))


@pytest.mark.parametrize("n", [20, 40, 100])
@pytest.mark.parametrize("tied", [False, True])
def test_a_threshold_that_accepts_exactly_95_percent_counts(n: int, tied: bool) -> None:
    inside, outside = np.arange(n), np.arange(n) - 0.5
    if tied:
        inside = np.maximum(inside, n // 20)
        inside[: n // 20] = 0
    fpr, tpr, thresholds = roc_curve(np.repeat([1, 0], n), np.r_[inside, outside], drop_intermediate=False)
    first = np.flatnonzero((tpr * n).round() >= n * 95 // 100)[0]
    assert thresholds[first] == n // 20
    assert ood_metrics(inside, outside)["fpr95"] == fpr[first] == (n - n // 20 - 1) / n


@pytest.mark.parametrize("step", [0, 0.5, 2], ids=["untied", "tied", "few values"])
@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_those_of_pytorch_ood(seed: int, step: float) -> None:
    inside, right, outside = drawn(seed, step)
    found = ood_metrics(inside, outside)
    scores = torch.tensor(np.concatenate([inside, outside]))
    # There larger scores and negative labels are out-of-distribution, and that is the positive side.
    labels = torch.tensor([0] * len(inside) + [-1] * len(outside))
    assert found["auroc"] == pytest.approx(float(pytorch_ood.auroc(-scores, labels)))
    # It takes 95 % of the out-of-distribution side, and we, as published, of the other one: the sides are swapped.
    assert found["fpr95"] == pytest.approx(float(pytorch_ood.fpr_at_tpr(scores, -1 - labels)))
    assert ood_metrics(-outside, -inside)["fpr95"] == pytest.approx(float(pytorch_ood.fpr_at_tpr(-scores, labels)))
    # It joins the points of the precision-recall curve by straight lines, and we by steps: only the points are equal.
    for name, side in (("aupr_in", "id"), ("aupr_out", "ood")):
        precision, recall, _ = pytorch_ood.pr_curve(-scores, labels, positive=side)
        steps = ((recall[:-1] - recall[1:]) * precision[:-1]).sum()
        assert found[name] == pytest.approx(float(steps))  # type: ignore[literal-required]
    fpr, tpr, _ = pytorch_ood.roc_curve(-scores, labels)
    assert found["detection_error"] == pytest.approx(float((fpr + 1 - tpr).min() / 2))
    predictions = torch.tensor([*np.where(right, 0, 1), *np.zeros(len(outside), dtype=int)])
    assert oscr(inside, right, outside) == pytest.approx(pytorch_ood.oscr_score(-scores, predictions, labels))


@given(JUDGED, SCORES)
@settings(deadline=None)
def test_oscr_is_the_area_under_its_curve(judged: list[tuple[float, bool]], outside: list[float]) -> None:
    inside, right = (np.array(column) for column in zip(*judged, strict=True))
    outs = np.array(outside)
    thresholds = sorted({*inside, *outs}, reverse=True)
    correct = [0.0, *(((inside >= threshold) & right).mean() for threshold in thresholds)]
    false = [0.0, *((outs >= threshold).mean() for threshold in thresholds)]
    found = oscr(inside, right, outs)
    assert found == pytest.approx(auc(false, correct))
    assert 0 <= found <= right.mean()
    assert oscr(inside, np.ones(len(inside), dtype=bool), outs) == pytest.approx(ood_metrics(inside, outs)["auroc"])


TWENTIETHS = st.lists(st.tuples(st.integers(11, 20), st.booleans()), min_size=1, max_size=40)


@given(TWENTIETHS, st.integers(1, 25))
@settings(deadline=None)
def test_calibration_error_bin_by_bin(judged: list[tuple[int, bool]], n_bins: int) -> None:
    top, right = (np.array(column) for column in zip(*judged, strict=True))
    probabilities = np.stack([(20 - top) / 20, top / 20, np.zeros(len(top))], axis=1)
    expected = 0.0
    for lowest in range(n_bins):
        # In whole numbers, since a confidence may lie exactly on the edge of a bin.
        inside = (top * n_bins > lowest * 20) & (top * n_bins <= (lowest + 1) * 20)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - top[inside].mean() / 20)
    assert expected_calibration_error(probabilities, np.where(right, 1, 2), n_bins) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_calibration_error_is_that_of_other_libraries(seed: int) -> None:
    draw = np.random.default_rng(seed)
    probabilities = draw.dirichlet(np.ones(4), size=500)
    targets = draw.integers(0, 4, size=500)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    shares, means = calibration_curve(right, confidence, n_bins=15)
    sizes = np.histogram(confidence, bins=15, range=(0, 1))[0]
    expected = np.abs(shares - means) @ sizes[sizes > 0] / 500
    assert expected_calibration_error(probabilities, targets) == pytest.approx(expected)
    single = pytorch_ood.calibration_error(torch.tensor(confidence), torch.tensor(right), p="1", beta=500)
    assert expected_calibration_error(probabilities, targets, n_bins=1) == pytest.approx(single)


def test_calibration_error_of_the_sure_and_of_the_honest() -> None:
    sure = np.eye(2, dtype=np.float32)[[0, 0, 1, 1]]
    assert expected_calibration_error(sure, [0, 0, 1, 1]) == 0
    assert expected_calibration_error(sure, [1, 1, 0, 0]) == 1
    assert expected_calibration_error(sure, [0, 1, 1, 0]) == 0.5
    honest = [[0.75, 0.25]] * 4
    assert expected_calibration_error(honest, [0, 0, 1, 0]) == 0
    # A mean of probabilities may pass 1 by a rounding, and is in the last bin all the same.
    assert expected_calibration_error([[1.0000001, 0], [0.99, 0.01]], [1, 0]) == pytest.approx(0.495)


@pytest.mark.parametrize("n_bins", range(3, 40))
def test_a_bin_holds_its_upper_end(n_bins: int) -> None:
    for place in range(n_bins // 2 + 1, n_bins):
        edge, above, below = place / n_bins, (place + 0.5) / n_bins, (place - 0.25) / n_bins
        apart = expected_calibration_error([[edge, 0], [above, 0]], [1, 0], n_bins)
        assert apart == pytest.approx((edge + 1 - above) / 2)
        together = expected_calibration_error([[edge, 0], [below, 0]], [1, 0], n_bins)
        assert together == pytest.approx(abs(0.5 - (edge + below) / 2))


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        (lambda: ood_metrics([], [1]), r"in_scores are of shape \(0,\)"),
        (lambda: ood_metrics([1], [2, np.nan]), r"out_scores\[1\] = nan"),
        (lambda: oscr([np.nan], [True], [1]), r"in_scores\[0\] = nan"),
        (lambda: oscr([1], [True], []), r"out_scores are of shape \(0,\)"),
        (lambda: oscr([1, 2], [True], [1]), r"is_right is of type bool and shape \(1,\)"),
        (lambda: oscr([1, 2], np.array([3, 0]), [1]), "is_right is of type int64"),
        (lambda: expected_calibration_error([[1.0, 0.0]], [0], n_bins=0), "n_bins = 0"),
        (lambda: expected_calibration_error([[1.0, 0.0]], [0, 1]), r"targets are of shape \(2,\)"),
    ],
)
def test_what_can_not_be_judged_is_refused(judge: Callable[[], object], message: str) -> None:
    with pytest.raises(SotglpError, match=f"^{message}"):
        judge()
