"""Sets of classes that hold the right one for a chosen share of images, whatever the model and the data are.

A class conforms to an image as well as its probability is large. It comes into the set unless nearly all calibration
images conform better to their right class:

    p-value = (1 + #{calibration images whose right class has at most this probability}) / (n + 1) > 1 - coverage.

**Why that covers.** Take the new image, with its right class, and the n calibration images together; their order tells
nothing about their probabilities. Of n + 1 numbers at most k have no more than k of them (themselves included) at or
below them, and ties make it fewer. So the right class is left out, p-value <= k / (n + 1), in at most the share
k / (n + 1) of all draws; k = floor((n + 1) (1 - coverage)) keeps that within 1 - coverage. Without ties it is exactly
k / (n + 1), and coverage is at most ``coverage`` + 1 / (n + 1). Counting ties by < would break the first part.

Where (n + 1) (1 - coverage) < 1, no class can be left out: every set holds all classes.

The share is one over images and draws of calibration images. It is not promised for each class, nor for images that
are drawn in another way: equally many shots of each class stand for images of equally frequent classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sotglp.errors import SotglpError
from sotglp.scoring.arrays import class_probabilities
from sotglp.scoring.rejection import rank_below


def split_sets(probabilities: ArrayLike, true_probabilities: ArrayLike, coverage: float = 0.9) -> NDArray[np.bool_]:
    """Prediction sets of one model, calibrated on images on which it was not trained.

    A set holds the right class with a probability of at least ``coverage``, and of at most ``coverage`` + 1 / (n + 1)
    if no probabilities tie. A set may be empty: no class conforms then.

    Parameters
    ----------
    probabilities : array-like
        Of new images, (B, C).
    true_probabilities : array-like
        What the same model gave the right class of each calibration image, (n,).
    coverage : float, default 0.9
        Between 0 and 1.

    Returns
    -------
    NDArray
        Which classes are in the set of each image, (B, C).

    Raises
    ------
    SotglpError
        If ``coverage`` is not in that range, there are no images, or a probability is none.

    References
    ----------
    Vovk et al., 2005, Algorithmic Learning in a Random World; Sadinle et al., arXiv 1609.00451, for this conformity.
    """
    _check_coverage(coverage)
    given = class_probabilities(probabilities, "probabilities")
    known = class_probabilities(true_probabilities, "true_probabilities", axes=("images",))
    k = rank_below(len(known), coverage)
    # At least k images have at most the probability of a class where the k-th smallest has.
    return given >= (np.sort(known)[k - 1] if k > 0 else 0)


def cross_sets(
    probabilities: ArrayLike, true_probabilities: ArrayLike, folds: ArrayLike, coverage: float = 0.9
) -> NDArray[np.bool_]:
    """Prediction sets of the models of a cross-validation, which need no image that is kept from training.

    Each calibration image is compared with what the model that was not trained on it says of the new image. Such
    comparisons are not exchangeable, and less is proven than for :func:`split_sets`: with F folds of equal size a set
    holds the right class with a probability of at least 2 ``coverage`` - 1 - min(2 (1 - 1/F) / (n/F + 1),
    (1 - F/n) / (F + 1)), which is never below 2 ``coverage`` - 1 - sqrt(2/n). What is seen is close to ``coverage``
    where the F models say much the same, and often above.

    Parameters
    ----------
    probabilities : array-like
        Of new images, by the model of each fold, which was not trained on that fold, (F, B, C).
    true_probabilities : array-like
        What the model of its own fold gave the right class of each calibration image, (n,).
    folds : array-like of int
        The fold of each calibration image, from 0 to F - 1, (n,).
    coverage : float, default 0.9
        Between 0 and 1.

    Returns
    -------
    NDArray
        Which classes are in the set of each image, (B, C).

    Raises
    ------
    SotglpError
        If ``coverage`` is not in that range, there are no images, folds don't fit, or a probability is none.

    References
    ----------
    Vovk, arXiv 1208.0806, for cross-conformal predictors; Barber et al., arXiv 1905.02928, theorem 4, and Romano et
    al., arXiv 2006.02544, for the bound.
    """
    _check_coverage(coverage)
    given = class_probabilities(probabilities, "probabilities", axes=("folds", "images", "classes"))
    known = class_probabilities(true_probabilities, "true_probabilities", axes=("images",))
    fold_of = _fold_of(folds, len(known), len(given))
    n_below = np.zeros(given.shape[1:], dtype=np.intp)
    for fold, by_fold in enumerate(given):
        n_below += np.searchsorted(np.sort(known[fold_of == fold]), by_fold, side="right")
    return n_below >= rank_below(len(known), coverage)


def _check_coverage(coverage: float) -> None:
    if not 0 < coverage < 1:
        raise SotglpError(f"coverage = {coverage} must be above 0 and below 1")


def _fold_of(folds: ArrayLike, n_images: int, n_folds: int) -> NDArray[np.integer[Any]]:
    fold_of = np.asarray(folds)
    if fold_of.dtype.kind not in "iu" or fold_of.shape != (n_images,):
        raise SotglpError(
            f"folds are of type {fold_of.dtype} and shape {fold_of.shape}: give a whole number for each of the "
            f"{n_images} calibration images"
        )
    if fold_of.min() < 0 or fold_of.max() >= n_folds:
        raise SotglpError(f"folds go from {fold_of.min()} to {fold_of.max()}: count the {n_folds} models from 0")
    return fold_of
