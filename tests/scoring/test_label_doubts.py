from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from sotglp import Backbone, SotglpError
from sotglp.images.image_set import ImageSet
from sotglp.scoring.label_doubts import Agreement, Doubt, find_doubts, out_of_fold, unit_features
from sotglp.settings import InferenceConfig


def clusters(n_classes: int = 6, per_class: int = 20, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Unit vectors around a direction for each class, and their classes."""
    rng = np.random.default_rng(seed)
    targets = np.repeat(np.arange(n_classes), per_class)
    features = np.eye(n_classes, 16)[targets] + rng.normal(0, 0.15, (len(targets), 16))
    return features / np.linalg.norm(features, axis=1, keepdims=True), targets


def test_planted_errors_are_found() -> None:
    features, targets = clusters()
    planted = [3, 47, 90, 111]
    labels = targets.copy()
    labels[planted] = (targets[planted] + [1, 2, 3, 4]) % 6
    doubts = find_doubts(out_of_fold(features, labels), labels)
    assert sorted(doubt.index for doubt in doubts) == planted
    for doubt in doubts:
        assert doubt.best == targets[doubt.index]
        assert doubt.n_classes == 6
        assert doubt.probability_best > 0.5 > doubt.probability_own
    assert find_doubts(out_of_fold(features, targets), targets) == []


def test_a_doubt_in_numbers() -> None:
    # Ten sure images of each of three classes, but one that is labelled as the second most probable class.
    table = np.repeat(np.eye(3) * 0.7 + 0.1, 10, axis=0)
    table[4] = [0.85, 0.1, 0.05]
    targets = np.repeat(np.arange(3), 10)
    targets[4] = 1
    (doubt,) = find_doubts(table, targets)
    assert doubt == Doubt(index=4, rank=2, n_classes=3, best=0, probability_own=0.1, probability_best=0.85)


@given(
    st.integers(2, 8).flatmap(
        lambda c: arrays.arrays(np.float64, st.tuples(st.integers(2, 9), st.just(c)), elements=st.floats(0, 1))
    ),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_doubts_of_any_table(table: NDArray[np.float64], seed: int) -> None:
    n_images, n_classes = table.shape
    targets = np.random.default_rng(seed).integers(n_classes, size=n_images)
    found = find_doubts(table, targets)
    assert found == find_doubts(table, targets)
    for doubt in found:
        row, own = table[doubt.index], targets[doubt.index]
        assert doubt.rank == rankdata(-row, method="ordinal")[own] > 1
        assert (doubt.probability_own, doubt.probability_best) == (row[own], row.max() == row[doubt.best] and row.max())
    own = [doubt.probability_own for doubt in found]
    assert own == sorted(own)


def test_agreement_with_random_predictions_is_near_chance() -> None:
    rng = np.random.default_rng(0)
    targets = np.repeat(np.arange(5), [60, 20, 20, 20, 20])
    random = Agreement.of(rng.random((140, 5)), targets)
    assert random.is_near_chance
    assert random.chance == 60 / 140
    # Always the largest class is chance too.
    largest = Agreement.of(np.eye(5)[np.zeros(140, int)], targets)
    assert largest.share == largest.chance
    assert largest.is_near_chance
    assert not Agreement.of(np.eye(5)[targets], targets).is_near_chance


def test_no_image_is_judged_by_itself() -> None:
    features, targets = clusters(3, 5)
    found = out_of_fold(features, targets, seed=7)
    expected = np.empty_like(found)
    for fit, judge in StratifiedKFold(5, shuffle=True, random_state=7).split(features, targets):
        regression = LogisticRegression(C=100, max_iter=2000).fit(features[fit], targets[fit])
        expected[judge] = regression.predict_proba(features[judge])
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert not np.array_equal(found, out_of_fold(features, targets, seed=8))


def test_small_classes_make_fewer_folds() -> None:
    features, targets = clusters(3, 5)
    kept = np.flatnonzero((targets != 1) | (np.arange(15) < 7))  # two images of class 1
    assert out_of_fold(features[kept], targets[kept]).shape == (12, 3)
    one = np.flatnonzero((targets != 1) | (np.arange(15) < 6))
    for few in (one, np.arange(5)):
        with pytest.raises(SotglpError, match="two or more images of each of two or more classes"):
            out_of_fold(features[few], targets[few])


def test_features_are_the_backbones(tiny_backbone: Backbone, class_folders: Path) -> None:
    images = ImageSet.from_path(class_folders)
    features = unit_features(tiny_backbone, images, InferenceConfig(batch_size=5))
    assert features.shape == (18, 32)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1)
    only = unit_features(tiny_backbone, images.take([7]), InferenceConfig())
    np.testing.assert_allclose(features[7], only[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("table", "targets", "message"),
    [
        ([[0.5, 0.5]], [0, 1], r"targets are of shape \(2,\)"),
        ([0.5, 0.5], [0, 1], r"probabilities are of shape \(2,\)"),
        ([[0.5, float("nan")]], [0], "is not between 0 and 1"),
    ],
)
def test_invalid_arguments_are_refused(table: object, targets: object, message: str) -> None:
    with pytest.raises(SotglpError, match=message):
        find_doubts(table, targets)  # type: ignore[arg-type]
