from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import betabinom, norm

from sotglp import SotglpError
from sotglp.scoring.conformal import cross_sets, split_sets

SEEDS = st.integers(0, 2**32 - 1)
COVERAGES = st.integers(1, 99)
"""In percent."""


def tied(seed: int, *shape: int) -> NDArray[np.float32]:
    """Probabilities in eighths, many of which are equal."""
    return np.random.default_rng(seed).integers(0, 9, shape).astype(np.float32) / 8


def in_set(p_value: Fraction, coverage: int) -> bool:
    return p_value > 1 - Fraction(coverage, 100)


@given(SEEDS, st.integers(1, 40), COVERAGES)
@settings(deadline=None)
def test_split_sets_by_their_definition(seed: int, n: int, coverage: int) -> None:
    probabilities, known = tied(seed, 4, 3), tied(seed + 1, n)
    found = split_sets(probabilities, known, coverage / 100)
    assert found.shape == (4, 3)
    for image in range(4):
        for label in range(3):
            # Papadopoulos' p-value, of the nonconformity 1 - p: how many are at least as strange.
            strange = 1 - probabilities[image, label]
            as_strange = sum(1 - one >= strange for one in known)
            assert found[image, label] == in_set(Fraction(1 + as_strange, n + 1), coverage)


@given(SEEDS, st.integers(1, 40), st.integers(1, 6), COVERAGES)
@settings(deadline=None)
def test_cross_sets_by_their_definition(seed: int, n: int, n_folds: int, coverage: int) -> None:
    probabilities, known = tied(seed, n_folds, 3, 4), tied(seed + 1, n)
    folds = np.random.default_rng(seed).integers(0, n_folds, n)
    found = cross_sets(probabilities, known, folds, coverage / 100)
    assert found.shape == (3, 4)
    for image in range(3):
        for label in range(4):
            count = sum(known[one] <= probabilities[folds[one], image, label] for one in range(n))
            assert found[image, label] == in_set(Fraction(1 + int(count), n + 1), coverage)


@given(SEEDS, st.integers(1, 40), COVERAGES, COVERAGES)
@settings(deadline=None)
def test_sets_grow_with_coverage(seed: int, n: int, one: int, other: int) -> None:
    probabilities, known = tied(seed, 3, 5, 4), tied(seed + 1, n)
    folds = np.arange(n) % 3
    less, more = sorted((one, other))
    assert (split_sets(probabilities[0], known, less / 100) <= split_sets(probabilities[0], known, more / 100)).all()
    assert (
        cross_sets(probabilities, known, folds, less / 100) <= cross_sets(probabilities, known, folds, more / 100)
    ).all()


@given(SEEDS, st.integers(1, 40), COVERAGES)
@settings(deadline=None)
def test_the_order_of_classes_and_images_changes_nothing_else(seed: int, n: int, coverage: int) -> None:
    draw = np.random.default_rng(seed)
    probabilities, known, folds = tied(seed, 3, 5, 4), tied(seed + 1, n), draw.integers(0, 3, n)
    classes, calibration, order = draw.permutation(4), draw.permutation(n), draw.permutation(3)
    found = cross_sets(probabilities, known, folds, coverage / 100)
    again = cross_sets(
        probabilities[order][..., classes], known[calibration], np.argsort(order)[folds][calibration], coverage / 100
    )
    assert (again == found[:, classes]).all()
    # A class that is likelier than another one in the set is in it too.
    sets = split_sets(probabilities[0], known, coverage / 100)
    assert ((probabilities[0] >= np.where(sets, probabilities[0], np.inf).min(axis=1, keepdims=True)) == sets).all()


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_too_few_images_leave_no_class_out(coverage: float) -> None:
    enough = round(1 / (1 - coverage)) - 1
    for n, expected in ((1, True), (enough - 1, True), (enough, False)):
        known = np.full(n, 0.5)
        assert split_sets([[0.0, 1.0]], known, coverage).tolist() == [[expected, True]]
        assert cross_sets([[[0.0, 1.0]]] * 2, known, np.arange(n) % 2, coverage).tolist() == [[expected, True]]
    assert not split_sets([[0.3, 0.3, 0.4]], np.full(50, 0.9), coverage).any()  # enough may leave out all of them


class World:
    """Five Gaussian classes in the plane, three of them close together."""

    centres = np.array([[0, 0], [1, 0.5], [0, 1.5], [4, 4], [-3, 1]])

    def __init__(self, seed: int) -> None:
        self.draw = np.random.default_rng(seed)

    def images(self, n: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Points (n, 2) and their classes (n,)."""
        labels = self.draw.integers(0, 5, n)
        return self.centres[labels] + self.draw.normal(size=(n, 2)), labels

    @staticmethod
    def wrong_model(points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Far too sure, and mistaken about the classes' indices and frequencies."""
        squares = ((points[:, None] - 1.3 * World.centres - 0.4) ** 2).sum(axis=-1)
        return softmax(-4 * squares + np.arange(5), axis=1)


def of_right_class(values: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[Any]:
    return values[np.arange(len(labels)), labels]


@pytest.mark.parametrize(("n", "coverage"), [(99, 0.9), (50, 0.9), (30, 0.75), (8, 0.9)])
def test_split_sets_of_a_wrong_model_cover_as_they_promise(n: int, coverage: float) -> None:
    world, draws, n_new = World(n), 200, 100
    covered = np.zeros(draws)
    for one in range(draws):
        points, labels = world.images(n)
        new, right = world.images(n_new)
        # Noise of 1e-9 parts what rounds to 0 or 1, so that no probabilities tie.
        known, probabilities = (np.clip(world.wrong_model(of), 1e-6, 1 - 1e-6) for of in (points, new))
        known, probabilities = (values + world.draw.uniform(0, 1e-9, values.shape) for values in (known, probabilities))
        covered[one] = of_right_class(split_sets(probabilities, of_right_class(known, labels), coverage), right).sum()
    k = math.floor((n + 1) * (1 - Fraction(str(coverage))))
    if k == 0:
        assert (covered == n_new).all()
        return
    expected = betabinom(n_new, n + 1 - k, k)
    assert abs(covered.mean() - expected.mean()) < norm.isf(1e-4) * expected.std() / math.sqrt(draws)
    # The spread over draws is that of the distribution as well, not of its mean alone.
    low, high = expected.ppf(0.05) - 1, expected.ppf(0.95) + 1
    assert ((covered > low) & (covered < high)).mean() >= 0.85
    assert coverage <= expected.mean() / n_new <= coverage + 1 / (n + 1)


def test_ties_never_cost_coverage() -> None:
    world, covered = World(5), []
    for _ in range(200):
        points, labels = world.images(40)
        new, right = world.images(100)
        known, probabilities = (np.round(world.wrong_model(of), 1) for of in (points, new))
        covered.append(of_right_class(split_sets(probabilities, of_right_class(known, labels), 0.9), right).mean())
    expected = betabinom(100, 37, 4)
    assert np.mean(covered) > 0.9 - norm.isf(1e-4) * expected.std() / 100 / math.sqrt(200)


def refit(points: NDArray[np.float64], labels: NDArray[np.int64], images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Far too sure probabilities of images, by distances to class means, drawn to 0 so that a class may lack images."""
    is_of = np.eye(5)[labels]
    means = (is_of.T @ points) / (1 + is_of.sum(axis=0)[:, None])
    squares = ((images[:, None] - means) ** 2).sum(axis=-1)
    return softmax(-3 * squares, axis=1)


@pytest.mark.parametrize(("n", "coverage"), [(20, 0.9), (40, 0.9), (100, 0.8)])
def test_cross_sets_of_refitted_models_cover_as_they_should(n: int, coverage: float) -> None:
    world, draws, n_folds = World(n), 200, 5
    folds = np.arange(n) % n_folds
    covered = np.zeros(draws)
    for draw in range(draws):
        points, labels = world.images(n)
        new, right = world.images(100)
        known, probabilities = np.zeros(n), np.zeros((n_folds, 100, 5))
        for fold in range(n_folds):
            own = folds == fold
            both = refit(points[~own], labels[~own], np.concatenate([points[own], new]))
            known[own], probabilities[fold] = of_right_class(both[: own.sum()], labels[own]), both[own.sum() :]
        covered[draw] = of_right_class(cross_sets(probabilities, known, folds, coverage), right).mean()
    proven = 2 * coverage - 1 - min(2 * (1 - 1 / n_folds) / (n / n_folds + 1), (1 - n_folds / n) / (n_folds + 1))
    assert covered.mean() > proven
    # More than proven is seen of models that say much the same.
    assert covered.mean() > coverage - norm.isf(1e-3) * covered.std() / math.sqrt(draws)


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.5, 90.0, math.nan])
def test_a_coverage_out_of_range_is_refused(coverage: float) -> None:
    message = f"^coverage = {coverage} must be above 0 and below 1$"
    with pytest.raises(SotglpError, match=message):
        split_sets([[0.5, 0.5]], [0.5], coverage)
    with pytest.raises(SotglpError, match=message):
        cross_sets([[[0.5, 0.5]]], [0.5], [0], coverage)


@pytest.mark.parametrize(
    ("probabilities", "known", "message"),
    [
        ([[0.5, 0.5]], [], "true_probabilities are of shape (0,)"),
        ([[0.5, 0.5]], [0.5, math.nan], "true_probabilities[1] = nan is not between 0 and 1"),
        ([0.5, 0.5], [0.5], "probabilities are of shape (2,)"),
        ([[0.5, math.nan]], [0.5], "probabilities[0, 1] = nan is not between 0 and 1"),
    ],
)
def test_invalid_probabilities_are_refused(probabilities: Any, known: Any, message: str) -> None:
    with pytest.raises(SotglpError, match="^" + re.escape(message)):
        split_sets(probabilities, known)


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([0], "folds are of type int64 and shape (1,): give an integer for each of the 2 calibration images"),
        ([0.0, 1.0], "folds are of type float64 and shape (2,)"),
        ([1, 2], "folds range from 1 to 2: number the 2 models from 0"),
        ([-1, 0], "folds range from -1 to 0: number the 2 models from 0"),
    ],
)
def test_folds_that_do_not_match_are_refused(folds: Any, message: str) -> None:
    with pytest.raises(SotglpError, match="^" + re.escape(message)):
        cross_sets(np.full((2, 3, 4), 0.25), [0.5, 0.5], folds)
