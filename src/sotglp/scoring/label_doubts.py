"""Find labels that are probably wrong, by confident learning (cleanlab) on out-of-fold predictions."""

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

FILTER = "both"
"""Rule of cleanlab by which labels are flagged; docs/label_doubts.md compares the rules."""

MIN_SKILL = 0.3
"""Below this share of the way from chance to full agreement, flagged labels are hardly wrong more often than others."""

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


@dataclass(frozen=True)
class Agreement:
    """Share of labels that out-of-fold predictions agree with, and that of the largest class, which is chance."""

    share: float
    chance: float

    @classmethod
    def of(cls, probabilities: ArrayLike, targets: ArrayLike) -> Agreement:
        """Compare out-of-fold probabilities (n, C) with class indices (n,)."""
        own = np.asarray(targets)
        return cls(float((np.argmax(probabilities, axis=1) == own).mean()), float(np.bincount(own).max() / len(own)))

    @property
    def is_near_chance(self) -> bool:
        """Whether doubts are withheld, since predictions are too often wrong to doubt labels."""
        return self.share - self.chance < MIN_SKILL * (1 - self.chance)


def find_doubts(probabilities: ArrayLike, targets: ArrayLike) -> list[Doubt]:
    """Find labels that are probably wrong, ordered by the probability of their class, ascending.

    ``probabilities`` (n, C) are out-of-fold, C at least 2, and ``targets`` (n,) the class indices of the labels.
    Confident learning estimates how many labels of each class are wrong, and which class they should have, from the
    mean probability of each class among its own labels. Flagged are so many images of each class whose label is least
    probable, if they are also among those with the largest margin of the likely class.
    """
    from cleanlab.filter import find_label_issues

    table = class_probabilities(probabilities, "probabilities")
    n_images, n_classes = table.shape
    own = class_targets(targets, n_images, n_classes)
    if len(np.unique(own)) < 2:  # there is no other class that cleanlab could compare with
        return []
    flagged = np.flatnonzero(find_label_issues(own, table, filter_by=FILTER, n_jobs=1))
    order = np.argsort(-table, axis=1, kind="stable")
    before = (order == own[:, None]).argmax(axis=1)
    of_own, of_best = table[np.arange(n_images), own], table.max(axis=1)
    return [
        Doubt(int(i), int(before[i]) + 1, n_classes, int(order[i, 0]), float(of_own[i]), float(of_best[i]))
        for i in flagged[np.argsort(of_own[flagged], kind="stable")]
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
