from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sotglp.scoring.choice import CLEAR, choose, clear_among


def correct(n: int, n_correct: int) -> NDArray[np.float64]:
    return (np.arange(n) < n_correct).astype(float)


def test_the_preferred_one_stays_unless_another_is_clearly_better() -> None:
    slightly = choose("method", {"a": correct(100, 60), "b": correct(100, 61)}, "a")
    assert (slightly.chosen, slightly.rival) == ("a", "b")
    assert slightly.margin == pytest.approx(-0.01)
    clearly = choose("method", {"a": correct(100, 60), "b": correct(100, 80)}, "a")
    assert (clearly.chosen, clearly.rival) == ("b", "a")
    assert clearly.margin == pytest.approx(0.2)


def test_clear_is_a_number_of_standard_errors_of_the_paired_difference() -> None:
    a, b = correct(50, 25), correct(50, 29)
    found = choose("method", {"a": a, "b": b}, "a")
    assert found.error == pytest.approx((b - a).std(ddof=1) / np.sqrt(50))
    assert (found.chosen == "b") == (CLEAR * found.error < 0.08)


def test_of_equal_candidates_the_preferred_one_stays() -> None:
    found = choose("method", {"b": correct(9, 5), "a": correct(9, 5), "c": correct(9, 1)}, "a")
    assert (found.chosen, found.rival, found.margin, found.error) == ("a", "b", 0, 0)


def test_a_single_part_decides_nothing() -> None:
    assert choose("method", {"a": correct(1, 0), "b": correct(1, 1)}, "a").chosen == "a"


def test_without_held_out_parts_there_is_no_evidence() -> None:
    found = choose("method", {"a": np.empty(0)}, "a")
    assert (found.chosen, found.rival, found.merits, found.n) == ("a", None, {}, 0)


def test_the_sentence_has_merit_margin_error_and_rival() -> None:
    sentence = str(choose("method", {"a": correct(100, 60), "b": correct(100, 80)}, "a"))
    for part in ("b", "80.0%", "20.0", "4.0", "than a"):
        assert part in sentence


def test_the_best_of_several_rivals_must_be_further_ahead() -> None:
    assert clear_among(1) == pytest.approx(CLEAR)
    assert clear_among(5) == pytest.approx(2.2, abs=0.05)
    results = {"a": correct(50, 25), "b": correct(50, 29)}
    assert choose("method", results, "a").chosen == "b"
    assert choose("method", results, "a", clear=clear_among(5)).chosen == "a"
