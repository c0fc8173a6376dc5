"""How well scores tell in-distribution images from others."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve


class OodMetrics(TypedDict):
    """Fractions from 0 to 1; all but ``fpr95`` are better when larger."""

    auroc: float
    fpr95: float
    aupr_in: float
    aupr_out: float


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
        in-distribution ones; ``aupr_in`` and ``aupr_out``: average precision with either side as the positive one.

    References
    ----------
    Hendrycks & Gimpel, arXiv 1610.02136; Liang et al., arXiv 1706.02690 for FPR at 95 % TPR.
    """
    scores = np.concatenate([np.asarray(in_scores, dtype=np.float64), np.asarray(out_scores, dtype=np.float64)])
    is_in = np.arange(len(scores)) < len(np.asarray(in_scores))
    fpr, tpr, _ = roc_curve(is_in, scores, drop_intermediate=False)
    return {
        "auroc": float(roc_auc_score(is_in, scores)),
        "fpr95": float(fpr[np.argmax(tpr >= 0.95)]),
        "aupr_in": float(average_precision_score(is_in, scores)),
        "aupr_out": float(average_precision_score(~is_in, -scores)),
    }
