from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax
from sklearn.metrics import log_loss

from sotglp import SotglpError
from sotglp.scoring.temperature import HIGHEST, LOWEST, fit_temperature, tempered

SEEDS = st.integers(0, 2**32 - 1)
N_CLASSES = st.integers(2, 7)
TEMPERATURES = st.floats(LOWEST, HIGHEST)
TINY = np.finfo(np.float32).tiny


def drawn_labels(logits: NDArray[np.float64], draw: np.random.Generator) -> NDArray[np.int64]:
    """Labels drawn from softmax(logits)."""
    below = softmax(logits, axis=1).cumsum(axis=1) < draw.random((len(logits), 1))
    return below[:, :-1].sum(axis=1)


@given(SEEDS, N_CLASSES, TEMPERATURES)
@settings(deadline=None)
def test_tempered_is_the_softmax_of_divided_logits(seed: int, n_classes: int, temperature: float) -> None:
    logits = np.random.default_rng(seed).normal(0, 5, (6, n_classes))
    probabilities = softmax(logits, axis=1).astype(np.float32)
    found = tempered(probabilities, temperature)
    assert found.dtype == np.float32
    expected = torch.softmax(torch.tensor(logits) / temperature, dim=1).numpy()
    # The logarithm of a number in single precision is off by 6e-8, which 1/T multiplies.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 + 2e-7 / temperature)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)


@given(SEEDS, N_CLASSES, TEMPERATURES)
@settings(deadline=None)
def test_the_likeliest_class_stays_so(seed: int, n_classes: int, temperature: float) -> None:
    draw = np.random.default_rng(seed)
    # Whole-numbered logits tie, and large ones underflow to 0.
    probabilities = softmax(draw.integers(-4, 5, (8, n_classes)) * draw.choice([0.1, 1, 40]), axis=1).astype(np.float32)
    probabilities[draw.random(8) < 0.2] += np.float32(1e-8)
    found = tempered(probabilities, temperature)
    likeliest = np.take_along_axis(found, probabilities.argmax(axis=1)[:, None], axis=1)[:, 0]
    assert (likeliest == found.max(axis=1)).all()
    order = probabilities.argsort(axis=1)
    assert (np.diff(np.take_along_axis(found, order, axis=1), axis=1) >= 0).all()


def test_temperature_1_leaves_every_bit() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(5), size=50).astype(np.float32)
    probabilities[3] = [0, 1e-42, 0.5, 0.5, 0]
    found = tempered(probabilities, 1.0)
    assert found.tobytes() == probabilities.tobytes()
    found[0] = 0
    assert probabilities[0].any()


def test_what_underflowed_counts_as_the_smallest_normal_number() -> None:
    found = tempered(np.array([[1, 0, 1e-42]], dtype=np.float32), 2.0)
    root = math.sqrt(TINY)
    np.testing.assert_allclose(found[0], [1, root, root], rtol=1e-6)
    assert math.isfinite(fit_temperature([[1.0, 0.0], [0.5, 0.5]], [1, 0]))


@given(SEEDS, N_CLASSES, st.floats(0.2, 5))
@settings(deadline=None, max_examples=50)
def test_no_temperature_of_a_fine_grid_fits_better(seed: int, n_classes: int, factor: float) -> None:
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 2, (60, n_classes))
    targets = drawn_labels(logits, draw)
    probabilities = softmax(factor * logits, axis=1)

    def losses(temperatures: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean negative log-likelihood at each."""
        scaled = np.log(probabilities) / temperatures[:, None, None]
        return (logsumexp(scaled, axis=-1) - scaled[:, np.arange(60), targets]).mean(axis=-1)

    grid = np.geomspace(LOWEST, HIGHEST, 400)
    found, best = fit_temperature(probabilities, targets), losses(grid).argmin()
    assert losses(np.array([found]))[0] <= losses(grid).min() + 1e-12
    assert grid[max(best - 1, 0)] <= found <= grid[min(best + 1, len(grid) - 1)]
    assert losses(np.array([found]))[0] == pytest.approx(
        log_loss(targets, tempered(probabilities, found), labels=range(n_classes))
    )


@pytest.mark.parametrize("factor", [0.1, 1, 3, 20])
def test_the_factor_of_logits_is_found_again(factor: float) -> None:
    draw = np.random.default_rng(7)
    logits = draw.normal(0, 1.5, (20_000, 5))
    targets = drawn_labels(logits, draw)
    found = fit_temperature(softmax(factor * logits, axis=1).astype(np.float32), targets)
    # Fisher information at 1/T: the variance of the logits under the model, over all images.
    shares = softmax(logits, axis=1)
    variance = (shares * logits**2).sum(axis=1) - (shares * logits).sum(axis=1) ** 2
    spread = 1 / math.sqrt(variance.sum())
    assert abs(factor / found - 1) < 4 * spread
    assert 4 * spread < 0.05


def test_tempered_probabilities_need_no_further_temperature() -> None:
    draw = np.random.default_rng(1)
    logits = draw.normal(0, 2, (500, 4))
    targets = drawn_labels(logits, draw)
    probabilities = softmax(3 * logits, axis=1)
    found = fit_temperature(probabilities, targets)
    assert fit_temperature(tempered(probabilities, found), targets) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("probabilities", "targets", "temperature"),
    [
        ([[0.7, 0.3], [0.2, 0.8]], [0, 1], LOWEST),
        ([[0.3, 0.7], [0.8, 0.2]], [0, 1], HIGHEST),
        ([[0.2] * 5, [0.1] * 5], [0, 4], 1),
        ([[1.0], [1.0]], [0, 0], 1),
    ],
)
def test_the_ends_are_reached_and_1_where_nothing_changes(probabilities: Any, targets: Any, temperature: float) -> None:
    assert fit_temperature(probabilities, targets) == temperature


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan, 1e-40, 1e40])
def test_a_temperature_out_of_range_is_refused(temperature: float) -> None:
    with pytest.raises(SotglpError, match=f"^temperature = {re.escape(str(temperature))} can't be used: choose one"):
        tempered([[0.5, 0.5]], temperature)


def test_invalid_probabilities_and_targets_are_refused() -> None:
    with pytest.raises(SotglpError, match=r"^probabilities\[0, 1\] = 3.0 is not between 0 and 1"):
        tempered([[0.5, 3.0]], 2.0)
    for probabilities, targets, message in (([[math.nan, 1]], [0], "probabilities"), ([[0.5, 0.5]], [2], "targets")):
        with pytest.raises(SotglpError, match=f"^{message}"):
            fit_temperature(probabilities, targets)
