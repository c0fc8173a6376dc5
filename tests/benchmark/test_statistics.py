from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sotglp.benchmark.statistics import Summary, detectable_effect, effect_size, holm, paired, summary

fractions = st.floats(0, 1)


@given(st.lists(fractions, min_size=2, max_size=20))
def test_a_summary_is_scipys_t_interval(values: list[float]) -> None:
    found = summary(values)
    assert found.mean == pytest.approx(statistics.fmean(values))
    assert found.n == len(values)
    error = stats.sem(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=found.mean, scale=error) if error else (found.mean,) * 2
    assert found.low == pytest.approx(low)
    assert found.high == pytest.approx(high)
    assert summary(values[:1]) == Summary(values[0], None, None, 1)


def of_seeds(dataset: str, values: list[float], first_seed: int = 1) -> dict[tuple[str, int], float]:
    return {(dataset, seed): value for seed, value in enumerate(values, first_seed)}


def test_with_one_dataset_seeds_are_paired() -> None:
    one, other = [0.50, 0.60, 0.58, 0.61], [0.48, 0.61, 0.50, 0.55]
    found = paired(of_seeds("birds", one), of_seeds("birds", other))
    assert found is not None
    test = stats.ttest_rel(one, other)
    assert found.difference == pytest.approx(np.mean(one) - np.mean(other))
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert found.p == pytest.approx(test.pvalue)
    assert (found.n, found.unit, found.p_ranks) == (4, "seeds", None)


def test_with_several_datasets_their_means_over_seeds_are_paired() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.uniform(size=(2, 7, 3))
    values = [
        {(f"d{dataset}", seed + 1): float(value) for (dataset, seed), value in np.ndenumerate(of)}
        for of in (one, other)
    ]
    found = paired(*values)
    assert found is not None
    means = one.mean(axis=1), other.mean(axis=1)
    test = stats.ttest_rel(*means)
    assert found.difference == pytest.approx(np.mean(means[0] - means[1]))
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert found.p == pytest.approx(test.pvalue)
    assert found.p_ranks == pytest.approx(stats.wilcoxon(*means).pvalue)
    assert (found.n, found.unit) == (7, "datasets")
    swapped = paired(values[1], values[0])
    assert swapped is not None
    assert (swapped.difference, swapped.p) == pytest.approx((-found.difference, found.p))


def test_signed_ranks_need_six_pairs() -> None:
    # The first is ahead on all of six datasets: of 2**6 signs one is as extreme on either side.
    one = {(f"d{i}", 1): 0.5 + 0.01 * i for i in range(1, 7)}
    for values, p_ranks in ((one, pytest.approx(2 / 64)), (dict(list(one.items())[:5]), None)):
        found = paired(values, dict.fromkeys(values, 0.5))
        assert found is not None
        assert (found.n, found.p_ranks) == (len(values), p_ranks)


def test_only_what_both_have_is_paired() -> None:
    one = of_seeds("a", [0.5, 0.6]) | of_seeds("b", [0.7, 0.9, 0.8]) | of_seeds("c", [0.1])
    other = of_seeds("a", [0.4, 0.4, 0.0]) | of_seeds("b", [0.6, 0.5], first_seed=2) | of_seeds("d", [0.1])
    found = paired(one, other)
    assert found is not None
    # a: 0.15 over seeds 1 and 2; b: 0.3 over seeds 2 and 3
    assert found.difference == pytest.approx((0.15 + 0.3) / 2)
    assert (found.n, found.unit) == (2, "datasets")
    for unpaired in ({}, of_seeds("b", [0.5]), of_seeds("a", [0.5], first_seed=2)):
        assert paired(unpaired, of_seeds("a", [0.5])) is None


def test_a_value_without_seed_goes_with_every_seed() -> None:
    one, free = [0.5, 0.6, 0.8], {("birds", 0): 0.4}
    for found, sign in ((paired(of_seeds("birds", one), free), 1), (paired(free, of_seeds("birds", one)), -1)):
        assert found is not None
        assert found.difference == pytest.approx(sign * (np.mean(one) - 0.4))
        assert found.p == pytest.approx(stats.ttest_rel(one, [0.4] * 3).pvalue)
        assert found.n == 3
    found = paired(free, {("birds", 0): 0.1})
    assert found is not None
    assert (found.difference, found.n, found.p) == (pytest.approx(0.3), 1, None)


@pytest.mark.parametrize("values", [[0.3], [0.1 + 0.2, 0.2 + 0.1, 0.3]])
def test_without_spread_there_is_no_test(values: list[float]) -> None:
    found = paired(of_seeds("birds", values), of_seeds("birds", [0.1] * len(values)))
    assert found is not None
    assert found.difference == pytest.approx(0.2)
    assert (found.low, found.high, found.p, found.p_ranks) == (None, None, None, None)
    assert found.n == len(values)


def test_holm_by_hand() -> None:
    # 0.01 x 4, 0.02 x 3 = 0.06, 0.03 x 2 = 0.06, and 0.04 must not come below those before it.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
    assert holm([None, 0.02, None, 0.03]) == [None, pytest.approx(0.04), None, pytest.approx(0.04)]


@given(st.lists(fractions, max_size=12), st.floats(0.001, 0.999))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float], level: float) -> None:
    rejected = set()
    for step, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[i] * (len(p_values) - step) > level:
            break
        rejected.add(i)
    assert {i for i, p in enumerate(holm(p_values)) if p is not None and p <= level} == rejected


def test_an_effect_sizes_interval_holds_zero_where_the_t_test_does() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        differences = rng.normal(0.6, 1.0, size=9)
        effect = effect_size(differences)
        assert effect.mean == pytest.approx(differences.mean() / differences.std(ddof=1))
        assert effect.low is not None
        assert (effect.low > 0) == (stats.ttest_1samp(differences, 0).pvalue < 0.05 and differences.mean() > 0)


def test_intervals_of_the_effect_size_cover_the_true_effect() -> None:
    rng = np.random.default_rng(4)
    found = [effect_size(rng.normal(0.8, 1.0, size=9)) for _ in range(400)]
    covered = sum(bool(one.low and one.high and one.low <= 0.8 <= one.high) for one in found)
    assert stats.binom.ppf(0.001, 400, 0.95) <= covered <= stats.binom.ppf(0.999, 400, 0.95)


@pytest.mark.parametrize("n", [3, 9, 30])
def test_the_t_test_finds_a_detectable_effect_four_times_in_five(n: int) -> None:
    drawn = np.random.default_rng(5).normal(detectable_effect(n), 1.0, size=(n, 20_000))
    power = float((stats.ttest_1samp(drawn, 0).pvalue < 0.05).mean())
    assert power == pytest.approx(0.8, abs=0.012)
