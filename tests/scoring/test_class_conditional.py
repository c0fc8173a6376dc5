from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import betabinom, norm
from sklearn.base import BaseEstimator, ClassifierMixin

from sotglp import SotglpError
from sotglp.scoring.class_conditional import classes_without_bound, conformal_sets
from sotglp.scoring.conformal import cross_sets, split_sets
from sotglp.scoring.conformity import conformity
from sotglp.settings import SetScore

SEEDS = st.integers(0, 2**32 - 1)
COVERAGES = st.integers(1, 99)


@given(SEEDS, st.integers(1, 40), COVERAGES)
@settings(deadline=None)
def test_over_all_images_sets_of_probabilities_are_the_usual_ones(seed: int, n: int, coverage: int) -> None:
    draw = np.random.default_rng(seed)
    probabilities, known = draw.integers(0, 9, (3, 4, 5)) / 8, draw.integers(0, 9, n) / 8
    folds = draw.integers(0, 3, n)
    expected = cross_sets(probabilities, known, folds, coverage / 100)
    assert (conformal_sets(probabilities, known, folds, coverage / 100) == expected).all()
    expected = split_sets(probabilities[0], known, coverage / 100)
    assert (conformal_sets(probabilities[:1], known, np.zeros(n, int), coverage / 100) == expected).all()


@given(SEEDS, st.integers(1, 40), COVERAGES)
@settings(deadline=None)
def test_per_class_each_column_is_calibrated_alone(seed: int, n: int, coverage: int) -> None:
    draw = np.random.default_rng(seed)
    given_, known, folds = draw.integers(0, 9, (2, 4, 3)) / 8, draw.integers(0, 9, n) / 8, draw.integers(0, 2, n)
    targets = draw.integers(0, 3, n)
    found = conformal_sets(given_, known, folds, coverage / 100, targets)
    for image, label in np.ndindex(4, 3):
        own = np.flatnonzero(targets == label)
        count = sum(known[one] <= given_[folds[one], image, label] for one in own)
        assert found[image, label] == (Fraction(1 + int(count), len(own) + 1) > 1 - Fraction(coverage, 100))
    free = classes_without_bound(targets, 3, coverage / 100)
    assert free == [label for label in range(3) if ((targets == label).sum() + 1) * (100 - coverage) < 100]
    assert found[:, free].all()


class GivenProbabilities(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted classifier whose inputs are the probabilities."""

    def fit(self, X: object = None, y: object = None) -> GivenProbabilities:
        self.classes_ = np.arange(5)
        return self

    def predict_proba(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        return X

    def predict(self, X: NDArray[np.float64]) -> NDArray[np.int64]:
        return X.argmax(axis=1)


class World:
    """Four classes: two rare ones hide behind two frequent ones, so that they are hardly ever the most probable."""

    shares = np.array([0.45, 0.4, 0.08, 0.07])

    def __init__(self, seed: int) -> None:
        self.draw = np.random.default_rng(seed)

    def of(self, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Probabilities of images of these classes."""
        logits = self.draw.normal(size=(len(labels), 4)) + 1.5 * np.eye(4)[labels] + np.log(self.shares)
        logits[:, 0] += 1.5 * (labels == 2)
        return np.asarray(softmax(2 * logits, axis=1), np.float32)


@pytest.mark.parametrize("score", ["lac", "aps", "raps"])
@pytest.mark.parametrize(("n_each", "coverage"), [(5, 0.8), (20, 0.9), (100, 0.9)])
def test_coverage_of_each_class_is_that_of_the_theory(score: SetScore, n_each: int, coverage: float) -> None:
    world, draws, n_new = World(n_each), 200, 25
    targets, new = np.arange(4).repeat(n_each), np.arange(4).repeat(n_new)
    covered, marginal = np.zeros((draws, 4)), np.zeros((draws, 4))
    for one in range(draws):
        known = conformity(world.of(targets), score)[np.arange(len(targets)), targets]
        given_ = conformity(world.of(new), score)
        for into, by in ((covered, targets), (marginal, None)):
            sets = conformal_sets(given_[None], known, np.zeros_like(targets), coverage, by)
            into[one] = sets[np.arange(len(new)), new].reshape(4, n_new).sum(axis=1)
    k = math.floor((n_each + 1) * (1 - Fraction(str(coverage))))
    expected = betabinom(n_new, n_each + 1 - k, k)
    tolerance = norm.isf(1e-4 / 4) * expected.std() / math.sqrt(draws)
    assert np.abs(covered.mean(axis=0) - expected.mean()).max() < tolerance
    # Over all images, the hard class pays for the easy ones.
    assert marginal.mean(axis=0).min() < expected.mean() - tolerance


def test_adaptive_sets_are_larger_for_hard_images_and_the_penalty_cuts_their_tails() -> None:
    draw = np.random.default_rng(0)
    sizes = {}
    labels = draw.integers(0, 50, 2000)
    sharpness = np.where(np.arange(2000) % 2, 4.0, 1.0)[:, None]  # odd images are easy
    probabilities = softmax(sharpness * (draw.normal(size=(2000, 50)) + 2 * np.eye(50)[labels]), axis=1)
    probabilities = probabilities.astype(np.float32)
    for score in ("lac", "aps", "raps"):
        values = conformity(probabilities, score)
        known = values[np.arange(1000), labels[:1000]]
        sets = conformal_sets(values[None, 1000:], known, np.zeros(1000, int), 0.9)
        assert sets[np.arange(1000), labels[1000:]].mean() == pytest.approx(0.9, abs=0.05)
        sizes[score] = sets.sum(axis=1)
    assert sizes["aps"][::2].mean() > 2 * sizes["aps"][1::2].mean()
    assert sizes["raps"].mean() < sizes["aps"].mean()
    assert sizes["raps"].max() < sizes["aps"].max()


@pytest.mark.parametrize(("n", "coverage"), [(50, 0.9), (100, 0.8), (37, 0.85)])
def test_sets_of_probabilities_are_mapies(n: int, coverage: float) -> None:
    mapie = pytest.importorskip("mapie.classification")
    draw = np.random.default_rng(0)
    probabilities = draw.dirichlet(np.ones(5), 300).astype(np.float32).astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    labels = np.array([draw.choice(5, p=row) for row in probabilities])
    oracle = mapie.SplitConformalClassifier(
        GivenProbabilities().fit(), confidence_level=coverage, conformity_score="lac", prefit=True
    ).conformalize(probabilities[:n], labels[:n])
    known = probabilities[np.arange(n), labels[:n]]
    found = conformal_sets(probabilities[None, n:], known, np.zeros(n, int), coverage)
    assert (found == oracle.predict_set(probabilities[n:])[1][:, :, 0]).all()


@pytest.mark.parametrize("coverage", [0, 1, 1.5, float("nan")])
def test_coverage_out_of_range(coverage: float) -> None:
    with pytest.raises(SotglpError, match="must be above 0 and below 1"):
        conformal_sets(np.ones((1, 1, 2)), np.ones(3), np.zeros(3, int), coverage)
