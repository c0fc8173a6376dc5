"""Metrics of OOD detection, open-set classification and calibration."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from sotglp.errors import SotglpError
from sotglp.scoring.arrays import class_probabilities, class_targets, finite_scores


class OodMetrics(TypedDict):
    """Fractions from 0 to 1; for ``fpr95`` and ``detection_error`` smaller is better, for the others larger."""

    auroc: float
    fpr95: float
    aupr_in: float
    aupr_out: float
    detection_error: float


def ood_metrics(in_scores: ArrayLike, out_scores: ArrayLike) -> OodMetrics:
    """Compute how well scores separate in-distribution from OOD images.

    Parameters
    ----------
    in_scores, out_scores : array-like
        Scores of in-distribution (n,) and OOD images (m,); larger is more in-distribution.

    Returns
    -------
    OodMetrics
        ``auroc``; ``fpr95``: share of OOD images accepted at the highest threshold that accepts at least 95 % of the
        in-distribution ones; ``aupr_in`` and ``aupr_out``: average precision with either side as the positive one;
        ``detection_error``: mean of the false rejection and false acceptance rates at the threshold that minimises it.
        Images with equal scores are accepted or rejected together.

    Raises
    ------
    SotglpError
        If a side is empty or a score is not finite.

    References
    ----------
    Hendrycks & Gimpel, arXiv 1610.02136; Liang et al., arXiv 1706.02690, for FPR at 95 % TPR and the detection
    error.
    """
    inside, outside = finite_scores(in_scores, "in_scores"), finite_scores(out_scores, "out_scores")
    scores = np.concatenate([inside, outside])
    is_in = np.arange(len(scores)) < len(inside)
    fpr, tpr, _ = roc_curve(is_in, scores, drop_intermediate=False)
    return {
        "auroc": float(roc_auc_score(is_in, scores)),
        "fpr95": float(fpr[np.argmax(tpr >= 0.95)]),
        "aupr_in": float(average_precision_score(is_in, scores)),
        "aupr_out": float(average_precision_score(~is_in, -scores)),
        "detection_error": float(((1 - tpr) + fpr).min() / 2),
    }


def oscr(in_scores: ArrayLike, is_right: ArrayLike, out_scores: ArrayLike) -> float:
    """Compute the open-set classification rate (OSCR).

    It is the area under the curve of the correct classification rate (share of the in-distribution images that are
    accepted and correctly classified) over the false positive rate (share of the OOD images that are accepted), with
    one point for each distinct score and linear interpolation, as for a ROC curve: a tie counts half. (In the paper's
    formula a tie counts as the worse case.)

    Parameters
    ----------
    in_scores : array-like
        Scores of in-distribution images, larger is more in-distribution, (n,).
    is_right : array-like of bool
        Whether each of these images is correctly classified, (n,).
    out_scores : array-like
        Scores of OOD images, (m,).

    Returns
    -------
    float
        From 0 to the accuracy, which scores that separate both sides reach.

    Raises
    ------
    SotglpError
        If a side is empty, a score is not finite, or ``is_right`` has another length than ``in_scores``.

    References
    ----------
    Dhamija et al., arXiv 1811.04110, section on evaluation.
    """
    inside, outside = finite_scores(in_scores, "in_scores"), finite_scores(out_scores, "out_scores")
    right = np.asarray(is_right)
    if right.dtype != np.bool_ or right.shape != inside.shape:
        raise SotglpError(
            f"is_right is of type {right.dtype} and shape {right.shape}: give true or false for each of the "
            f"{len(inside)} in_scores"
        )
    if not right.any():
        return 0.0
    # Only correctly classified images raise the curve, which is their ROC curve times their share.
    scores = np.concatenate([inside[right], outside])
    return float(right.mean() * roc_auc_score(np.arange(len(scores)) < right.sum(), scores))


def expected_calibration_error(probabilities: ArrayLike, targets: ArrayLike, n_bins: int = 15) -> float:
    """Compute the expected calibration error (ECE) of the predicted class.

    Images are binned by confidence into intervals of equal width, closed on the right; the distances between mean
    confidence and accuracy are averaged over the images.

    Parameters
    ----------
    probabilities : array-like
        (n, C).
    targets : array-like of int
        True class indices, (n,).
    n_bins : int, default 15
        Number of intervals between 0 and 1.

    Returns
    -------
    float
        From 0 to 1, smaller is better.

    Raises
    ------
    SotglpError
        If there are no images, targets don't match, a value isn't a probability, or ``n_bins`` is below 1.

    References
    ----------
    Guo et al., arXiv 1706.04599, section 2, equation 3.
    """
    if n_bins < 1:
        raise SotglpError(f"n_bins = {n_bins} must be 1 or more")
    given = class_probabilities(probabilities, "probabilities")
    right = given.argmax(axis=1) == class_targets(targets, *given.shape)
    return calibration_gap(given.max(axis=1), right, n_bins)


def calibration_gap(confidence: NDArray[Any], is_right: NDArray[np.bool_], n_bins: int = 15) -> float:
    """Compute the expected calibration error from the probabilities (n,) of predicted classes."""
    sure = confidence.astype(np.float64)
    gaps = np.bincount(confidence_bins(sure, n_bins), weights=is_right - sure)
    return float(np.abs(gaps).sum() / len(sure))


def confidence_bins(confidence: NDArray[np.float64], n_bins: int) -> NDArray[np.int64]:
    """Bin index of each probability (n,), for ``n_bins`` intervals of equal width that are closed on the right."""
    # Without the outer edges, so that a confidence that rounding puts above 1 is still in the last bin.
    bins: NDArray[np.int64] = np.searchsorted(np.arange(1, n_bins) / n_bins, confidence, side="left")
    return bins
