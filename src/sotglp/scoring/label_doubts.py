"""Find labels that are probably wrong: images whose class ranks low in out-of-fold predictions."""

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
from sotglp.scoring.arrays import class_probabilities, class_targets
from sotglp.settings import InferenceConfig

MIN_RANK_FRACTION = 0.5
"""The label's class ranks in the second half; see docs/label_doubts.md."""

MAX_FOLDS = 5


@dataclass(frozen=True)
class Doubt:
    """An image whose label is probably wrong.

    ``index`` is its position, ``rank`` the rank of its label's class among ``n_classes``, 1 for the most probable, and
    ``best`` the index of the most probable class; both classes with their probabilities.
    """

    index: int
    rank: int
    n_classes: int
    best: int
    probability_own: float
    probability_best: float


def find_doubts(probabilities: ArrayLike, targets: ArrayLike, worst: float = MIN_RANK_FRACTION) -> list[Doubt]:
    """Find images whose label's class ranks low, ordered by the probability of that class, ascending.

    ``probabilities`` (n, C) are out-of-fold, C at least 2, and ``targets`` (n,) the class indices of the labels.
    ``worst``, above 0 and at most 1, is the least share of the other classes that rank before the label's, (rank - 1) /
    (C - 1); of two equally probable classes the one with the smaller index ranks first. At most a share of about 1 -
    ``worst`` of labels that are wrong at random can be found.
    """
    table = class_probabilities(probabilities, "probabilities")
    n_images, n_classes = table.shape
    own = class_targets(targets, n_images, n_classes)
    if not 0 < worst <= 1:
        raise SotglpError(f"worst = {worst} must be above 0 and at most 1")
    order = np.argsort(-table, axis=1, kind="stable")
    before = (order == own[:, None]).argmax(axis=1)
    of_own, of_best = table[np.arange(n_images), own], table.max(axis=1)
    # The tolerance is for shares such as 0.9 of ten, which is not exact in binary.
    doubtful = np.flatnonzero(before >= worst * (n_classes - 1) - 1e-9)
    return [
        Doubt(int(i), int(before[i]) + 1, n_classes, int(order[i, 0]), float(of_own[i]), float(of_best[i]))
        for i in doubtful[np.argsort(of_own[doubtful], kind="stable")]
    ]


def out_of_fold(features: ArrayLike, targets: ArrayLike, seed: int = 1) -> NDArray[np.float64]:
    """Predict class probabilities (n, C) by a cross-validated logistic regression on unit features (n, d).

    There are five folds, or as many as the smallest class has images. Raise a SotglpError if there are fewer than two
    classes, or a class has fewer than two images.
    """
    counts = np.bincount(np.asarray(targets))
    if len(counts) < 2 or counts.min() < 2:
        raise SotglpError("checking labels needs two or more images of each of two or more classes: add images")
    folds = StratifiedKFold(min(MAX_FOLDS, int(counts.min())), shuffle=True, random_state=seed)
    regression = LogisticRegression(C=LinearProbeConfig().inverse_regularisation, max_iter=MOST_ITERATIONS)
    table: NDArray[np.float64] = cross_val_predict(
        regression, np.asarray(features), np.asarray(targets), cv=folds, method="predict_proba"
    )
    return table


def unit_features(
    backbone: Backbone, images: ImageSet, inference: InferenceConfig, cache_dir: Path | None = None
) -> NDArray[np.float64]:
    """Encode images into features of unit length, (n, d)."""
    features = encode_image_features(backbone, images, inference, cache_dir)
    unit: NDArray[np.float64] = F.normalize(features.double().cpu(), dim=-1).numpy()
    return unit
