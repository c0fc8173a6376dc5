"""Prediction sets whose coverage holds for each class, and sets from any measure of conformity."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sotglp.scoring.conformal import at_least, check_coverage
from sotglp.scoring.rejection import rank_below


def conformal_sets(
    given: NDArray[np.floating[Any]],
    known: NDArray[np.floating[Any]],
    folds: NDArray[np.integer[Any]],
    coverage: float,
    targets: NDArray[np.int64] | None = None,
) -> NDArray[np.bool_]:
    """Compute prediction sets: a class is in the set unless too few calibration images conform less.

    With ``targets``, a class is compared with the calibration images of that class alone (Mondrian sets). Images of
    each class then have sets with the true class with a probability of at least ``coverage``, however rare or hard it
    is. A class with n images is in every set if (n + 1) (1 - coverage) < 1: 9 images are needed for 90 %. With several
    folds the guarantee is weaker, as in :func:`sotglp.scoring.conformal.cross_sets`.

    Parameters
    ----------
    given : NDArray
        Conformity of each class for new images, by the model of each fold, (F, B, C); larger is more conforming. One
        model that was calibrated on held-out images is a single fold.
    known : NDArray
        Conformity of the true class of each calibration image, by the model of its fold, (n,).
    folds : NDArray
        Fold of each calibration image, (n,).
    coverage : float
        Above 0 and below 1.
    targets : NDArray or None
        True class of each calibration image, (n,), for coverage in each class; None for coverage over all images.

    Returns
    -------
    NDArray
        Whether each class is in the set of each image, (B, C).

    Raises
    ------
    SotglpError
        If ``coverage`` is out of range.

    References
    ----------
    Vovk, arXiv 1209.2673, for class-conditional sets; :mod:`sotglp.scoring.conformal` for the guarantee over all
    images.
    """
    check_coverage(coverage)
    if targets is None:
        return at_least(given, known, folds, coverage)
    columns = [
        at_least(given[..., [index]], known[targets == index], folds[targets == index], coverage)
        for index in range(given.shape[-1])
    ]
    return np.concatenate(columns, axis=-1)


def classes_without_bound(targets: NDArray[np.int64], n_classes: int, coverage: float) -> list[int]:
    """Return the classes with too few calibration images, which are in every class-conditional set."""
    counts = np.bincount(targets, minlength=n_classes)
    return [index for index, count in enumerate(counts.tolist()) if rank_below(count, coverage) == 0]
