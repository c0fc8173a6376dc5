from __future__ import annotations

import re

import numpy as np
import pytest

from sotglp import SotglpError
from sotglp.scoring.arrays import class_probabilities, class_targets, finite_scores


def test_valid_arrays_pass_unchanged() -> None:
    assert finite_scores([1, -2.5], "scores").tolist() == [1, -2.5]
    given = np.array([[0.25, 0.75], [0, 1.0005]], dtype=np.float32)
    assert class_probabilities(given, "probabilities") is given
    assert class_probabilities([[0, 1]], "probabilities").dtype == np.float64
    assert class_probabilities([0.5], "probabilities", axes=("images",)).tolist() == [0.5]
    targets = class_targets(np.array([2, 0], dtype=np.uint8), 2, 3)
    assert targets.tolist() == [2, 0]
    assert targets.dtype == np.int64


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "scores are of shape (0,): give one for each image, at least one"),
        ([[1, 2]], "scores are of shape (1, 2)"),
        (3.0, "scores are of shape ()"),
        ([1, np.nan], "scores[1] = nan is not finite"),
        ([-np.inf], "scores[0] = -inf is not finite"),
    ],
)
def test_invalid_scores_are_refused(values: object, message: str) -> None:
    with pytest.raises(SotglpError, match=re.escape(message)):
        finite_scores(values, "scores")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((0, 3)), "p are of shape (0, 3): give 2 axes (images, classes), none of them empty"),
        (np.zeros((3, 0)), "p are of shape (3, 0)"),
        ([0.5, 0.5], "p are of shape (2,)"),
        ([[0.5, 0.5], [0.5, np.nan]], "p[1, 1] = nan is not between 0 and 1"),
        ([[-0.01, 1]], "p[0, 0] = -0.01 is not between 0 and 1: correct it or leave that image out"),
        ([[1.01, 0]], "p[0, 0] = 1.01 is not between 0 and 1"),
    ],
)
def test_invalid_probabilities_are_refused(values: object, message: str) -> None:
    with pytest.raises(SotglpError, match=re.escape(message)):
        class_probabilities(values, "p")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.0, 1.0], "targets are of type float64: give the class index of each image, from 0"),
        (["cat", "dog"], "targets are of type <U3"),
        ([0, 1, 1], "targets are of shape (3,): give one for each of the 2 images"),
        ([0, 2], "targets[1] = 2 is not one of 2 classes"),
        ([-1, 0], "targets[0] = -1 is not one of 2 classes"),
    ],
)
def test_invalid_targets_are_refused(values: object, message: str) -> None:
    with pytest.raises(SotglpError, match=re.escape(message)):
        class_targets(values, 2, 2)  # type: ignore[arg-type]
