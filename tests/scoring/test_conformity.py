from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sotglp.scoring.conformity import RAPS_FREE, RAPS_PENALTY, TrueClasses, conformity
from sotglp.settings import SetScore

SCORES: tuple[SetScore, ...] = ("lac", "aps", "raps")


@given(st.integers(0, 2**32 - 1), st.integers(2, 9))
@settings(deadline=None)
def test_scores_by_their_definition(seed: int, n_classes: int) -> None:
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(n_classes), (2, 3)).astype(np.float32)
    found = {score: conformity(probabilities, score) for score in SCORES}
    for index in np.ndindex(*probabilities.shape):
        row, own = probabilities[index[:2]].astype(np.float64), float(probabilities[index])
        above = [one for one in row if one > own]
        mass, rank = sum(above) + own, len(above) + 1
        assert found["lac"][index] == probabilities[index]
        assert found["aps"][index] == pytest.approx(-mass)
        assert found["raps"][index] == pytest.approx(-mass - RAPS_PENALTY * max(0, rank - RAPS_FREE))


@pytest.mark.parametrize("score", SCORES)
def test_true_classes_have_the_bits_of_all_classes(score: SetScore) -> None:
    draw = np.random.default_rng(0)
    probabilities = draw.dirichlet(np.ones(12), 20).astype(np.float32)
    targets = draw.integers(0, 12, 20)
    own = TrueClasses.of(probabilities, targets).conformity(score, probabilities[np.arange(20), targets])
    np.testing.assert_array_equal(own, conformity(probabilities, score)[np.arange(20), targets])


def test_equal_probabilities_are_ranked_by_their_order() -> None:
    assert conformity(np.full((1, 4), 0.25, np.float32), "aps").tolist() == [[-0.25, -0.5, -0.75, -1.0]]
