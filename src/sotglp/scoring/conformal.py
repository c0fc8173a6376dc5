"""Conformal prediction sets: they contain the true class of a chosen share of images, for any model and data.

A class is in the set unless its probability is small compared with those that the calibration images gave their true
class:

    p-value = (1 + #{calibration images whose true class has at most this probability}) / (n + 1) > 1 - coverage.

**Coverage.** The new image and the n calibration images are exchangeable. Of n + 1 numbers at most k have no more than
k of them (themselves included) at or below them; ties make it fewer. So the true class is left out, p-value
<= k / (n + 1), in at most the share k / (n + 1) of all draws, and k = floor((n + 1) (1 - coverage)) keeps that within
1 - coverage. Without ties it is exactly k / (n + 1), and the coverage is at most ``coverage`` + 1 / (n + 1). Counting
ties by < would break the bound.

If (n + 1) (1 - coverage) < 1, every set contains all classes.

The guarantee is marginal over images and draws of calibration images. It doesn't hold for each class, nor for images
from another distribution: equally many shots of each class represent images of equally frequent classes. For
each class, see :mod:`sotglp.scoring.class_conditional`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sotglp.errors import SotglpError
from sotglp.scoring.arrays import class_probabilities
from sotglp.scoring.rejection import rank_below


def split_sets(probabilities: ArrayLike, true_probabilities: ArrayLike, coverage: float = 0.9) -> NDArray[np.bool_]:
    """Compute the prediction sets of one model that was calibrated on held-out images (split conformal).

    A set contains the true class with a probability of at least ``coverage``, and at most ``coverage`` + 1 / (n + 1)
    without ties. A set may be empty.

    Parameters
    ----------
    probabilities : array-like
        Class probabilities of new images, (B, C).
    true_probabilities : array-like
        The model's probability of the true class of each calibration image, (n,).
    coverage : float, default 0.9
        Above 0 and below 1.

    Returns
    -------
    NDArray
        Whether each class is in the set of each image, (B, C).

    Raises
    ------
    SotglpError
        If ``coverage`` is out of range, there are no images, or a value isn't a probability.

    References
    ----------
    Vovk et al., 2005, Algorithmic Learning in a Random World; Sadinle et al., arXiv 1609.00451, for this conformity.
    """
    check_coverage(coverage)
    given = class_probabilities(probabilities, "probabilities")
    known = class_probabilities(true_probabilities, "true_probabilities", axes=("images",))
    k = rank_below(len(known), coverage)
    return given >= (np.sort(known)[k - 1] if k > 0 else 0)


def cross_sets(
    probabilities: ArrayLike, true_probabilities: ArrayLike, folds: ArrayLike, coverage: float = 0.9
) -> NDArray[np.bool_]:
    """Compute the prediction sets of the models of a cross-validation, without held-out images (cross-conformal).

    Each calibration image is compared with the prediction for the new image by the model that was not trained on that
    calibration image. These comparisons are not exchangeable, so the guarantee is weaker than for :func:`split_sets`:
    with F folds of equal size a set contains the true class with a probability of at least 2 ``coverage`` - 1 -
    min(2 (1 - 1/F) / (n/F + 1), (1 - F/n) / (F + 1)), which is never below 2 ``coverage`` - 1 - sqrt(2/n). The
    observed coverage is close to ``coverage``, and often above, if the F models agree.

    Parameters
    ----------
    probabilities : array-like
        Class probabilities of new images by the model of each fold, which was not trained on that fold, (F, B, C).
    true_probabilities : array-like
        Probability of the true class of each calibration image, by the model of its fold, (n,).
    folds : array-like of int
        The fold of each calibration image, from 0 to F - 1, (n,).
    coverage : float, default 0.9
        Above 0 and below 1.

    Returns
    -------
    NDArray
        Whether each class is in the set of each image, (B, C).

    Raises
    ------
    SotglpError
        If ``coverage`` is out of range, there are no images, folds don't match, or a value isn't a probability.

    References
    ----------
    Vovk, arXiv 1208.0806, for cross-conformal predictors; Barber et al., arXiv 1905.02928, theorem 4, and Romano et
    al., arXiv 2006.02544, for the bound.
    """
    check_coverage(coverage)
    given = class_probabilities(probabilities, "probabilities", axes=("folds", "images", "classes"))
    known = class_probabilities(true_probabilities, "true_probabilities", axes=("images",))
    fold_of = _fold_of(folds, len(known), len(given))
    return at_least(given, known, fold_of, coverage)


def at_least(
    given: NDArray[np.floating[Any]], known: NDArray[np.floating[Any]], folds: NDArray[np.integer[Any]], coverage: float
) -> NDArray[np.bool_]:
    """Whether enough of the known values are no larger than given ones (F, B, C), (B, C)."""
    n_below = np.zeros(given.shape[1:], dtype=np.intp)
    for fold, by_fold in enumerate(given):
        n_below += np.searchsorted(np.sort(known[folds == fold]), by_fold, side="right")
    return n_below >= rank_below(len(known), coverage)


def check_coverage(coverage: float) -> None:
    """Raise a SotglpError unless ``coverage`` is above 0 and below 1."""
    if not 0 < coverage < 1:
        raise SotglpError(f"coverage = {coverage} must be above 0 and below 1")


def _fold_of(folds: ArrayLike, n_images: int, n_folds: int) -> NDArray[np.integer[Any]]:
    fold_of = np.asarray(folds)
    if fold_of.dtype.kind not in "iu" or fold_of.shape != (n_images,):
        raise SotglpError(
            f"folds are of type {fold_of.dtype} and shape {fold_of.shape}: give an integer for each of the {n_images} "
            "calibration images"
        )
    if fold_of.min() < 0 or fold_of.max() >= n_folds:
        raise SotglpError(f"folds range from {fold_of.min()} to {fold_of.max()}: number the {n_folds} models from 0")
    return fold_of
