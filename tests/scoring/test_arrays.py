from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from sotglp import SotglpError
from sotglp.scoring.arrays import class_probabilities, class_targets, finite_scores


def two_targets(values: object, name: str) -> object:
    return class_targets(values, 2, 2)  # type: ignore[arg-type]


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
    ("check", "values", "message"),
    [
        (finite_scores, [], "shape (0,): give one for each image, at least one"),
        (finite_scores, [[1, 2]], "shape (1, 2)"),
        (finite_scores, 3.0, "shape ()"),
        (finite_scores, [1, np.nan], "x[1] = nan is not finite"),
        (finite_scores, [-np.inf], "x[0] = -inf is not finite"),
        (class_probabilities, np.zeros((0, 3)), "shape (0, 3): give 2 axes (images, classes), none of them empty"),
        (class_probabilities, np.zeros((3, 0)), "shape (3, 0)"),
        (class_probabilities, [0.5, 0.5], "shape (2,)"),
        (class_probabilities, [[0.5, 0.5], [0.5, np.nan]], "x[1, 1] = nan is not between 0 and 1"),
        (class_probabilities, [[-0.01, 1]], "x[0, 0] = -0.01"),
        (class_probabilities, [[1.01, 0]], "x[0, 0] = 1.01"),
        (two_targets, [0.0, 1.0], "targets are of type float64"),
        (two_targets, ["cat", "dog"], "targets are of type <U3"),
        (two_targets, [0, 1, 1], "targets are of shape (3,): give one for each of the 2 images"),
        (two_targets, [0, 2], "targets[1] = 2 is not one of 2 classes"),
        (two_targets, [-1, 0], "targets[0] = -1"),
    ],
)
def test_invalid_arrays_are_refused(check: Callable[..., object], values: object, message: str) -> None:
    with pytest.raises(SotglpError, match=re.escape(message)):
        check(values, "x")
