"""Labels that may be wrong: images that look less like their own class than like many others, by the other images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from torch.nn import functional as F

from sotglp.backbone import Backbone
from sotglp.errors import SotglpError
from sotglp.features.encode import encode_image_features
from sotglp.images.image_set import ImageSet
from sotglp.methods.configs import LinearProbeConfig
from sotglp.methods.linear_probe import MOST_ITERATIONS
from sotglp.settings import InferenceConfig

MIN_RANK_FRACTION = 0.5
"""The own class is in the latter half; see docs/label_doubts.md."""

MOST_FOLDS = 5


@dataclass(frozen=True)
class Doubt:
    """An image whose label may be wrong.

    Attributes
    ----------
    index : int
        Its row.
    rank : int
        Place of its own class among all, the most probable at 1.
    n_classes : int
        Classes that there are, C.
    best : int
        The most probable class.
    probability_own, probability_best : float
        Probability of its own class and of that one.
    """

    index: int
    rank: int
    n_classes: int
    best: int
    probability_own: float
    probability_best: float


def find_doubts(probabilities: ArrayLike, targets: ArrayLike, worst: float = MIN_RANK_FRACTION) -> list[Doubt]:
    """Find images whose own class comes late among all.

    Parameters
    ----------
    probabilities : array-like
        Probability of each class for each image, from a classifier that did not see the image, (n, C).
    targets : array-like
        Class of each image by its label, (n,).
    worst : float, default WORST
        Least share of the other classes that come before the own one, (rank - 1) / (C - 1), above 0 and at most 1.
        A class that is as probable as the own one comes before it only where it has a smaller number. Where labels
        are wrong at random, a share of about 1 - ``worst`` of them can be found at most.

    Returns
    -------
    list of Doubt
        The most doubtful first, whose own class is the least probable.

    Raises
    ------
    SotglpError
        If shapes do not fit, a class is out of range, a probability is no number, or ``worst`` is out of range.
    """
    table, own = np.asarray(probabilities, dtype=np.float64), np.asarray(targets)
    if table.ndim != 2 or own.shape != table.shape[:1] or table.shape[1] < 2:
        raise SotglpError(
            f"probabilities of shape {table.shape} and classes of shape {own.shape} do not fit: give (n, C) of at "
            "least two classes, and (n,)"
        )
    n_images, n_classes = table.shape
    if own.dtype.kind not in "iu" or (own < 0).any() or (own >= n_classes).any():
        raise SotglpError(f"the classes of the images must be whole numbers from 0 to {n_classes - 1}")
    if not np.isfinite(table).all():
        raise SotglpError("some probabilities are no numbers: find out what the classifier was given")
    if not 0 < worst <= 1:
        raise SotglpError(f"worst = {worst} must be above 0 and at most 1")
    order = np.argsort(-table, axis=1, kind="stable")
    before = (order == own[:, None]).argmax(axis=1)  # classes before the own one, (n,)
    rows = np.arange(n_images)
    best = order[:, 0]
    # A hair's breadth below, since a share such as 0.9 of ten is not exact in binary.
    doubtful = rows[before >= worst * (n_classes - 1) - 1e-9]
    of_own = table[doubtful, own[doubtful]]
    return [
        Doubt(
            index=int(index),
            rank=int(before[index]) + 1,
            n_classes=n_classes,
            best=int(best[index]),
            probability_own=float(table[index, own[index]]),
            probability_best=float(table[index, best[index]]),
        )
        for index in doubtful[np.argsort(of_own, kind="stable")]
    ]


def out_of_fold(features: ArrayLike, targets: ArrayLike, seed: int = 1) -> NDArray[np.float64]:
    """Class probabilities of each image by a logistic regression that was fitted to others.

    Parameters
    ----------
    features : array-like
        Image features of unit length, (n, d).
    targets : array-like
        Class of each, from 0 to C - 1, (n,).
    seed : int, default 1
        Seed of the folds: five, or as many as the smallest class has images.

    Returns
    -------
    NDArray
        (n, C).

    Raises
    ------
    SotglpError
        If there are fewer than two classes, or a class has fewer than two images.
    """
    counts = np.bincount(np.asarray(targets))
    if len(counts) < 2 or counts.min() < 2:
        raise SotglpError("doubts about labels need two images each of at least two classes: add images")
    folds = StratifiedKFold(min(MOST_FOLDS, int(counts.min())), shuffle=True, random_state=seed)
    # The linear probe's, which looks at the same features.
    strength = LinearProbeConfig().inverse_regularisation
    regression = LogisticRegression(C=strength, max_iter=MOST_ITERATIONS)
    table: NDArray[np.float64] = cross_val_predict(
        regression, np.asarray(features), np.asarray(targets), cv=folds, method="predict_proba"
    )
    return table


def unit_features(
    backbone: Backbone, images: ImageSet, inference: InferenceConfig, cache_dir: Path | None = None
) -> NDArray[np.float64]:
    """Image features of unit length, (n, d); see :func:`sotglp.features.encode.encode_images`."""
    features = encode_image_features(backbone, images, inference, cache_dir)
    unit: NDArray[np.float64] = F.normalize(features.double().cpu(), dim=-1).numpy()
    return unit
