from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit, softmax
from sklearn.isotonic import isotonic_regression

from sotglp import SotglpError
from sotglp.scoring.metrics import expected_calibration_error
from sotglp.scoring.probability_map import KINDS, TILT, ProbabilityMap, fit_map


def overconfident(n: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 6, n)
    logits = draw.normal(size=(n, 6)) + 1.5 * np.eye(6)[labels]
    return softmax(4 * logits, axis=1).astype(np.float32), labels


def test_platt_scaling_is_the_likeliest_sigmoid_of_log_odds() -> None:
    probabilities, labels = overconfident(300)
    found = fit_map("platt", probabilities, labels)
    odds = logit(np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)).ravel()
    is_true = np.eye(6)[labels].ravel()

    def loss(line: NDArray[np.float64]) -> float:
        return float(np.logaddexp(0, np.where(is_true, -1, 1) * (line[0] * odds + line[1])).mean())

    best = minimize(loss, [1.0, 0.0], tol=1e-10).x
    np.testing.assert_allclose([found.x[0], found.y[0]], best, rtol=1e-3)
    mapped = expit(best[0] * odds + best[1]).reshape(-1, 6)
    np.testing.assert_allclose(found.apply(probabilities), mapped / mapped.sum(axis=1, keepdims=True), rtol=1e-3)


def test_isotonic_regression_is_scikit_learns() -> None:
    probabilities, labels = overconfident(300)
    found = fit_map("isotonic", probabilities, labels)
    flat = probabilities.astype(np.float64).ravel()
    order = np.argsort(flat, kind="stable")
    values = np.empty(len(flat))
    values[order] = isotonic_regression(np.eye(6)[labels].ravel()[order])
    mapped = (values + TILT * flat).reshape(-1, 6)
    expected = mapped / mapped.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.apply(probabilities), expected, atol=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_maps_calibrate_new_images_and_keep_labels(kind: str) -> None:
    found = fit_map(kind, *overconfident(400))
    probabilities, labels = overconfident(2000, seed=1)
    mapped = found.apply(probabilities)
    np.testing.assert_allclose(mapped.sum(axis=1), 1, rtol=1e-5)
    assert (mapped.argmax(axis=1) == probabilities.argmax(axis=1)).all()
    before = expected_calibration_error(probabilities, labels)
    assert expected_calibration_error(mapped, labels) < before / 3
    assert found.is_valid()


def test_what_can_not_be_fitted_is_refused() -> None:
    probabilities, labels = overconfident(50)
    with pytest.raises(SotglpError, match=r"no calibrator 'plat'"):
        fit_map("plat", probabilities, labels)
    with pytest.raises(SotglpError, match="better than chance"):
        fit_map("platt", probabilities, probabilities.argmin(axis=1))


def test_maps_that_are_not_increasing_are_not_valid() -> None:
    one, two = np.ones(1), np.array([0.0, 0.5])
    assert not ProbabilityMap("platt", -one, one).is_valid()
    assert not ProbabilityMap("isotonic", two, two[::-1]).is_valid()
    assert not ProbabilityMap("isotonic", two, one).is_valid()
    assert not ProbabilityMap("isotonic", two, np.array([0.0, np.nan])).is_valid()
    assert not ProbabilityMap("other", two, two).is_valid()
