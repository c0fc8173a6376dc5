from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import betabinom, norm

from sotglp import SotglpError
from sotglp.scoring.class_conditional import conformal_sets
from sotglp.scoring.cluster_conditional import UNCLUSTERED, cluster_classes, cluster_sets, fewest_images

N_CLASSES = 40


def conformities(draw: np.random.Generator, targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Conformity of true classes: the second half of the classes is hard."""
    return draw.normal(size=len(targets)) - 10 * (targets >= N_CLASSES // 2)


def test_classes_that_conform_alike_share_a_cluster() -> None:
    targets = np.arange(N_CLASSES).repeat(60)
    known = conformities(np.random.default_rng(0), targets)
    clusters, is_free = cluster_classes(known, targets, N_CLASSES, 0.9)
    share = N_CLASSES / (75 + N_CLASSES)
    assert (np.bincount(targets[~is_free]) == int(60 * share)).all()
    assert len(set(clusters)) == int(60 * share) // 2
    assert not set(clusters[: N_CLASSES // 2]) & set(clusters[N_CLASSES // 2 :])
    again = cluster_classes(known, targets, N_CLASSES, 0.9)
    assert (clusters == again[0]).all()
    assert (is_free == again[1]).all()


def test_each_class_is_compared_with_the_free_images_of_its_cluster() -> None:
    draw = np.random.default_rng(1)
    targets = np.concatenate([np.arange(N_CLASSES).repeat(60), np.full(3, N_CLASSES)])  # the last class is rare
    known, folds = conformities(draw, targets).round(1), draw.integers(0, 2, len(targets))
    given = draw.normal(size=(2, 3, N_CLASSES + 1)).round(1)
    found, clusters = cluster_sets(given, known, folds, 0.8, targets)
    _, is_free = cluster_classes(known, targets, N_CLASSES + 1, 0.8)
    assert clusters[-1] == UNCLUSTERED
    for image, label in np.ndindex(*found.shape):
        alike = clusters[targets] == clusters[label]
        own = np.flatnonzero(is_free & (alike | (clusters[label] == UNCLUSTERED)))
        count = int((known[own] <= given[folds[own], image, label]).sum())
        assert found[image, label] == (Fraction(1 + count, len(own) + 1) > Fraction(1, 5))


def test_few_images_give_the_sets_over_all_images() -> None:
    draw = np.random.default_rng(2)
    targets = np.arange(5).repeat(8)
    known, given, folds = draw.normal(size=40), draw.normal(size=(1, 6, 5)), np.zeros(40, np.int64)
    found, clusters = cluster_sets(given, known, folds, 0.9, targets)
    assert (clusters == UNCLUSTERED).all()
    assert (found == conformal_sets(given, known, folds, 0.9)).all()


def test_coverage_in_each_cluster_is_that_of_the_theory() -> None:
    draw, draws, n_new = np.random.default_rng(3), 200, 10
    targets, new = np.arange(N_CLASSES).repeat(60), np.arange(N_CLASSES).repeat(n_new)
    differences, variances = [], []
    for _ in range(draws):
        known, conforming = conformities(draw, targets), conformities(draw, new)
        given = np.repeat(conforming[:, None], N_CLASSES, axis=1)[None]
        sets, clusters = cluster_sets(given, known, np.zeros_like(targets), 0.9, targets)
        covered = sets[np.arange(len(new)), new]
        _, is_free = cluster_classes(known, targets, N_CLASSES, 0.9)
        for cluster in set(clusters):
            n = int((is_free & (clusters[targets] == cluster)).sum())
            k = math.floor((n + 1) * Fraction(1, 10))
            own = covered[clusters[new] == cluster]
            differences.append(own.mean() - (n + 1 - k) / (n + 1))
            variances.append(betabinom(len(own), n + 1 - k, k).var() / len(own) ** 2)
    standard_error = math.sqrt(np.sum(variances)) / len(variances)
    assert abs(np.mean(differences)) < norm.isf(1e-4) * standard_error


@pytest.mark.parametrize(("coverage", "fewest"), [(0.9, 9), (0.95, 19), (0.5, 1)])
def test_fewest_images_of_a_class(coverage: float, fewest: int) -> None:
    assert fewest_images(coverage) == fewest


def test_coverage_out_of_range() -> None:
    with pytest.raises(SotglpError, match="must be above 0 and below 1"):
        cluster_sets(np.ones((1, 1, 2)), np.ones(3), np.zeros(3, int), 1.0, np.zeros(3, int))
