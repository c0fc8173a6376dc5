from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from sotglp.report.confusion import Confused, Confusion
from sotglp.scoring.intervals import share

LABELS = ("cat", "dog", "sea", "sky")
PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@given(PAIRS)
def test_counts_are_sklearns(pairs: list[tuple[int, int]]) -> None:
    targets, predicted = np.array(pairs).T
    found = Confusion.of(LABELS, targets, predicted)
    expected = confusion_matrix(targets, predicted, labels=range(4))
    np.testing.assert_array_equal(found.counts, expected)
    with np.errstate(invalid="ignore"):
        shares = np.nan_to_num(expected / expected.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found.shares, shares)
    assert found.untested == [label for label, row in zip(LABELS, expected, strict=True) if row.sum() == 0]
    assert {(one["label"], one["predicted"]): one["count"] for one in found.to_dicts()} == {
        (LABELS[row], LABELS[column]): expected[row, column] for row, column in zip(*expected.nonzero(), strict=True)
    }
    # Every mistake is in some worst class and some pair.
    n_wrong = int(expected.sum() - np.trace(expected))
    assert sum(one.accuracy.n - one.accuracy.count for one in found.worst(4)) == n_wrong
    assert sum(one.count for one in found.most_confused(12)) == n_wrong
    accuracies = [one.accuracy.value for one in found.worst(4)]
    assert accuracies == sorted(accuracies)


COUNTS = np.array([[5, 3, 2, 0], [0, 9, 0, 1], [1, 4, 5, 0], [0, 0, 0, 0]])


def test_worst_classes_and_what_they_are_taken_for() -> None:
    first, second, third = Confusion(LABELS, COUNTS).worst(10)
    assert (first.label, first.accuracy, first.mistaken_for, first.mistaken_count) == ("cat", share(5, 10), "dog", 3)
    assert (second.label, second.mistaken_for, second.mistaken_count) == ("sea", "dog", 4)
    assert (third.label, third.mistaken_for, third.mistaken_count) == ("dog", "sky", 1)
    assert [one.label for one in Confusion(LABELS, COUNTS).worst(2)] == ["cat", "sea"]
    assert Confusion(LABELS, COUNTS).untested == ["sky"]
    equal = Confusion(("cat", "dog"), np.array([[1, 1], [10, 10]]))  # more mistakes first
    assert [one.label for one in equal.worst(2)] == ["dog", "cat"]


def test_most_confused_pairs() -> None:
    assert Confusion(LABELS, COUNTS).most_confused(3) == [
        Confused("sea", "dog", 4, 10),
        Confused("cat", "dog", 3, 10),
        Confused("cat", "sea", 2, 10),
    ]
    perfect = Confusion(LABELS, np.diag([3, 2, 1, 0]))
    assert (perfect.worst(5), perfect.most_confused(5)) == ([], [])
