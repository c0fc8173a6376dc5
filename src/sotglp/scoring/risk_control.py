"""Choose the threshold of rejection by the error among the images that are accepted."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sotglp.errors import SotglpError
from sotglp.scoring.arrays import finite_scores
from sotglp.scoring.rejection import AcceptedError, Rejection, reject_at_rank

N_THRESHOLDS = 10
"""Candidates: they accept about 10 % of the calibration images, 20 % and so on."""


def reject_for_error(scores: ArrayLike, is_correct: ArrayLike, max_error: float, confidence: float = 0.9) -> Rejection:
    """Choose the threshold that accepts most images of those that bound the error among accepted ones.

    With a probability of at least ``confidence`` over draws of calibration images, at most the share ``max_error`` of
    the accepted images of the model's classes is misclassified, for any model and distribution of scores. Images of
    other classes are not in that share.

    Each of ten candidates, scores of fixed ranks, is tested by the exact binomial test: given the score of a rank, the
    images above it are independent draws of accepted images. The level 1 - ``confidence`` is shared among the tests
    (Learn then Test with a union bound), so that the best one may be chosen afterwards.

    Parameters
    ----------
    scores : array-like
        Scores of images that the model was not trained on, larger is more in-distribution, (n,).
    is_correct : array-like of bool
        Whether each image is correctly classified, (n,).
    max_error : float
        Largest share of misclassified images among accepted ones, above 0 and below 1.
    confidence : float, default 0.9
        Probability of keeping to it, above 0 and below 1.

    Returns
    -------
    Rejection
        Its ``tpr`` is the share of the given images that it accepts, its ``accepted_error`` the test that it passed.

    Raises
    ------
    SotglpError
        If no candidate passes, a share is out of range, or scores can't be used.

    References
    ----------
    Angelopoulos et al., arXiv 2110.01052; Geifman and El-Yaniv, arXiv 1705.08500.
    """
    # Model files are described without SciPy, which takes half a second to import.
    from scipy.stats import binom

    given = finite_scores(scores, "scores")
    correct = np.asarray(is_correct, dtype=bool)
    check_max_error(max_error, confidence, len(given))
    ascending: NDArray[np.float64] = np.sort(given)
    for part in range(N_THRESHOLDS, 0, -1):
        k = len(given) - math.ceil(len(given) * part / N_THRESHOLDS) + 1
        is_accepted = given > ascending[k - 1]
        n, n_wrong = int(is_accepted.sum()), int((is_accepted & ~correct).sum())
        if n and binom.cdf(n_wrong, n, max_error) <= (1 - confidence) / N_THRESHOLDS:
            accepted_error = AcceptedError(max_error, confidence, n, n_wrong)
            return reject_at_rank(ascending, k, n / len(given), accepted_error)
    raise SotglpError(
        f"no threshold bounds the error among accepted images by {max_error:g} with a confidence of {confidence:g} on "
        f"these {len(given)} images, of which {int((~correct).sum())} are misclassified: allow more errors, or "
        "calibrate on more images"
    )


def check_max_error(max_error: float, confidence: float, n: int) -> None:
    """Raise a SotglpError unless the shares are above 0 and below 1, and n images can suffice for them."""
    for name, share in (("max_error", max_error), ("confidence", confidence)):
        if not 0 < share < 1:
            raise SotglpError(f"{name} = {share} must be above 0 and below 1")
    needed = math.ceil(math.log((1 - confidence) / N_THRESHOLDS) / math.log1p(-max_error)) + 1
    if n < needed:
        raise SotglpError(
            f"{n} calibration images can't bound the error among accepted ones by {max_error:g} with a confidence of "
            f"{confidence:g}, even if all are correct: give at least {needed}, or allow more errors"
        )
