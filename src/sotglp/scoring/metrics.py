"""How well scores tell in-distribution images and right predictions from others, and how honest probabilities are."""

from __future__ import annotations

from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from sotglp.errors import SotglpError
from sotglp.scoring.arrays import class_probabilities, class_targets, finite_scores


class OodMetrics(TypedDict):
    """Fractions from 0 to 1; all but ``fpr95`` and ``detection_error`` are better when larger."""

    auroc: float
    fpr95: float
    aupr_in: float
    aupr_out: float
    detection_error: float


class AccuracyCoverage(NamedTuple):
    """How right a model is on the share of images that it is surest of.

    Attributes
    ----------
    coverage : NDArray
        Shares of the images that are answered, ascending; the last is 1, (k,).
    accuracy : NDArray
        Share of right answers among those, (k,).
    """

    coverage: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def mean_accuracy(self) -> float:
        """Accuracy averaged over coverages: 1 - AURC; all coverages of a tied group have the accuracy at its end."""
        return float(np.diff(self.coverage, prepend=0.0) @ self.accuracy)


def ood_metrics(in_scores: ArrayLike, out_scores: ArrayLike) -> OodMetrics:
    """Judge scores that should be larger for in-distribution images.

    Parameters
    ----------
    in_scores, out_scores : array-like
        Scores of in-distribution (n,) and other images (m,).

    Returns
    -------
    OodMetrics
        ``auroc``; ``fpr95``: share of other images accepted at the first threshold that accepts 95 % of the
        in-distribution ones; ``aupr_in`` and ``aupr_out``: average precision with either side as the positive one;
        ``detection_error``: the mean of the shares that are wrongly rejected and wrongly accepted, at the threshold
        where it is least. A threshold accepts all images of its score or none.

    Raises
    ------
    SotglpError
        If a side is empty or has a score that is not finite.

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
    """Open-set classification rate: how well scores let right predictions pass and images of no known class not.

    It is the area under the curve of the correct classification rate (share of the in-distribution images that are
    accepted and rightly classified) over the false positive rate (share of the other images that are accepted).
    The curve has a point for each distinct score, whose images are accepted together, and straight lines between
    points, as a ROC curve has: a tie counts half. (The paper's formula lets a tie count as the worse case.)

    Parameters
    ----------
    in_scores : array-like
        Scores of in-distribution images, larger for those that are surer to be such, (n,).
    is_right : array-like of bool
        Whether each of those is rightly classified, (n,).
    out_scores : array-like
        Scores of other images, (m,).

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
    right = _flags(is_right, len(inside))
    if not right.any():
        return 0.0
    # Only images that are rightly classified raise the curve, which is their ROC curve times their share.
    scores = np.concatenate([inside[right], outside])
    return float(right.mean() * roc_auc_score(np.arange(len(scores)) < right.sum(), scores))


def accuracy_coverage(scores: ArrayLike, is_right: ArrayLike) -> AccuracyCoverage:
    """Accuracy on the images whose score reaches a threshold, over the share of images that do.

    Parameters
    ----------
    scores : array-like
        How sure the model is of each image, larger is surer, (n,).
    is_right : array-like of bool
        Whether each is rightly classified, (n,).

    Returns
    -------
    AccuracyCoverage
        A point for each distinct score: images that are equally sure are answered together.

    Raises
    ------
    SotglpError
        If there are no scores, one is not finite, or ``is_right`` has another length.

    References
    ----------
    Geifman & El-Yaniv, arXiv 1705.08500, whose selective risk is 1 - accuracy.
    """
    sureness = finite_scores(scores, "scores")
    right = _flags(is_right, len(sureness))
    _, group, sizes = np.unique(-sureness, return_inverse=True, return_counts=True)
    answered = np.cumsum(sizes)
    return AccuracyCoverage(answered / len(sureness), np.cumsum(np.bincount(group, weights=right)) / answered)


def expected_calibration_error(probabilities: ArrayLike, targets: ArrayLike, n_bins: int = 15) -> float:
    """How far the probability of the predicted class lies from the share of right predictions.

    Images are binned by that probability into intervals of equal width that hold their upper end, and the distance
    between its mean and the accuracy is averaged over the images.

    Parameters
    ----------
    probabilities : array-like
        (n, C).
    targets : array-like of int
        Place of the right class, (n,).
    n_bins : int, default 15
        Number of intervals between 0 and 1.

    Returns
    -------
    float
        From 0 to 1, smaller is better.

    Raises
    ------
    SotglpError
        If there are no images, targets don't fit, a probability is none, or there is no bin.

    References
    ----------
    Guo et al., arXiv 1706.04599, section 2, equation 3.
    """
    if n_bins < 1:
        raise SotglpError(f"n_bins = {n_bins} must be 1 or more")
    given = class_probabilities(probabilities, "probabilities")
    right = given.argmax(axis=1) == class_targets(targets, *given.shape)
    confidence = given.max(axis=1).astype(np.float64)
    gaps = np.bincount(confidence_bins(confidence, n_bins), weights=right - confidence)
    return float(np.abs(gaps).sum() / len(confidence))


def confidence_bins(confidence: NDArray[np.float64], n_bins: int) -> NDArray[np.int64]:
    """The interval that each probability (n,) lies in, of ``n_bins`` of equal width that hold their upper end, (n,)."""
    # The outer edges are left out, so that a confidence of 1 and a rounding is still in the last bin.
    bins: NDArray[np.int64] = np.searchsorted(np.arange(1, n_bins) / n_bins, confidence, side="left")
    return bins


def _flags(is_right: ArrayLike, n_images: int) -> NDArray[np.bool_]:
    flags = np.asarray(is_right)
    if flags.dtype != np.bool_:
        raise SotglpError(f"is_right is of type {flags.dtype}: give true or false for each image")
    if flags.shape != (n_images,):
        raise SotglpError(f"is_right is of shape {flags.shape}: give true or false for each of the {n_images} scores")
    return flags
