"""Prediction sets whose coverage holds for each cluster of classes, for more classes than images of each can bound.

Classes whose true-class conformity is alike are calibrated together (Ding et al., arXiv 2306.09335). Part of the
calibration images, the same number of each class or its share, finds the clusters: each class is described by
quantiles of its conformity, and these are clustered by k-means. The others calibrate each cluster. A set contains the
true class of images of each cluster with a probability of at least ``coverage``; within a cluster, classes have that
coverage as far as they are alike. Classes with too few images to be described are compared with all images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sotglp.scoring.conformal import at_least, check_coverage
from sotglp.scoring.rejection import rank_below

QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Quantiles of conformity that describe a class: the published levels 0.9 to 0.5 of nonconformity."""

UNCLUSTERED = -1
"""Cluster of classes that are compared with all images."""

SEED = 0
"""Seed of the split and of k-means, so that the same calibration always gives the same sets."""


def cluster_sets(
    given: NDArray[np.floating[Any]],
    known: NDArray[np.floating[Any]],
    folds: NDArray[np.integer[Any]],
    coverage: float,
    targets: NDArray[np.int64],
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Compute prediction sets that are calibrated in each cluster of classes.

    Parameters
    ----------
    given, known, folds, coverage, targets
        See :func:`sotglp.scoring.class_conditional.conformal_sets`.

    Returns
    -------
    sets : NDArray
        Whether each class is in the set of each image, (B, C).
    clusters : NDArray
        Cluster of each class, (C,); -1 for those that are compared with all images.

    Raises
    ------
    SotglpError
        If ``coverage`` is out of range.
    """
    check_coverage(coverage)
    clusters, is_free = cluster_classes(known, targets, given.shape[-1], coverage)
    sets = np.empty(given.shape[1:], dtype=bool)
    for cluster in np.unique(clusters):
        columns = np.flatnonzero(clusters == cluster)
        used = is_free if cluster == UNCLUSTERED else is_free & np.isin(targets, columns)
        sets[:, columns] = at_least(given[..., columns], known[used], folds[used], coverage)
    return sets, clusters


def cluster_classes(
    known: NDArray[np.floating[Any]], targets: NDArray[np.int64], n_classes: int, coverage: float
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Cluster the classes by the conformity of a part of their calibration images.

    Returns
    -------
    clusters : NDArray
        Cluster of each class, (C,), or -1.
    is_free : NDArray
        Whether each calibration image is left for calibration, (n,).
    """
    clusters = np.full(n_classes, UNCLUSTERED, dtype=np.int64)
    is_free = np.ones(len(targets), dtype=bool)
    counts = np.bincount(targets, minlength=n_classes)
    needed = fewest_images(coverage)
    # The paper's rule: the share of images and the number of clusters follow from the least frequent class.
    smallest = max(int(counts.min()), needed)
    n_described = int((counts >= smallest).sum())
    share = n_described / (75 + n_described)
    n_clusters = int(share * smallest) // 2
    if n_clusters < 2:
        return clusters, is_free
    draw = np.random.default_rng(SEED)
    described, quantiles, weights = [], [], []
    for index in range(n_classes):
        own = draw.permutation(np.flatnonzero(targets == index))[: int(share * counts[index])]
        if len(own) >= needed:
            described.append(index)
            quantiles.append(np.quantile(known[own], QUANTILES))
            weights.append(np.sqrt(len(own)))
        is_free[own] = False
    if len(described) <= n_clusters:
        return clusters, np.ones_like(is_free)
    # scikit-learn takes longer to import than images take to predict.
    from sklearn.cluster import KMeans

    means = KMeans(n_clusters, n_init=10, random_state=SEED)
    clusters[described] = means.fit_predict(np.array(quantiles, dtype=np.float64), sample_weight=np.array(weights))
    return clusters, is_free


def fewest_images(coverage: float) -> int:
    """Return the fewest calibration images that bound a class: about 1 / (1 - coverage) - 1."""
    fewest = 1
    while rank_below(fewest, coverage) == 0:
        fewest += 1
    return fewest
