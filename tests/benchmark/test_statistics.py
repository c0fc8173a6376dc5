from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sotglp.benchmark.results import Result
from sotglp.benchmark.statistics import Scores, holm, paired, summary
from support.results import made

fractions = st.floats(0, 1)


def accuracy(result: Result) -> float:
    return result.metrics.accuracy


@given(st.lists(fractions, min_size=2, max_size=20))
def test_a_summary_is_scipys_t_interval(values: list[float]) -> None:
    told = summary(values)
    assert told.mean == pytest.approx(statistics.fmean(values))
    assert told.n == len(values)
    error = stats.sem(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=told.mean, scale=error) if error else (told.mean,) * 2
    assert told.low == pytest.approx(low)
    assert told.high == pytest.approx(high)


def test_a_summary_by_hand() -> None:
    told = summary([0.1, 0.2, 0.3])
    # t at 0.975 with two degrees of freedom is 4.3027, the deviation 0.1.
    assert told.high == pytest.approx(0.2 + 4.302653 * 0.1 / math.sqrt(3))
    assert told.low == pytest.approx(0.2 - 4.302653 * 0.1 / math.sqrt(3))


def test_one_value_has_no_interval() -> None:
    told = summary([0.7])
    assert (told.mean, told.low, told.high, told.n) == (0.7, None, None, 1)


def of_seeds(dataset: str, values: list[float], first_seed: int = 1) -> dict[tuple[str, int], float]:
    return {(dataset, seed): value for seed, value in enumerate(values, first_seed)}


def test_with_one_dataset_seeds_are_paired() -> None:
    one, other = [0.50, 0.60, 0.58, 0.61], [0.48, 0.61, 0.50, 0.55]
    told = paired(of_seeds("birds", one), of_seeds("birds", other))
    assert told is not None
    test = stats.ttest_rel(one, other)
    assert told.difference == pytest.approx(np.mean(one) - np.mean(other))
    assert (told.low, told.high) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert told.p == pytest.approx(test.pvalue)
    assert (told.n, told.unit, told.p_ranks) == (4, "seeds", None)


def test_with_several_datasets_their_means_over_seeds_are_paired() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.uniform(size=(2, 7, 3))
    values = [
        {(f"d{dataset}", seed + 1): float(value) for (dataset, seed), value in np.ndenumerate(of)}
        for of in (one, other)
    ]
    told = paired(*values)
    assert told is not None
    means = one.mean(axis=1), other.mean(axis=1)
    test = stats.ttest_rel(*means)
    assert told.difference == pytest.approx(np.mean(means[0] - means[1]))
    assert (told.low, told.high) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert told.p == pytest.approx(test.pvalue)
    assert told.p_ranks == pytest.approx(stats.wilcoxon(*means).pvalue)
    assert (told.n, told.unit) == (7, "datasets")
    swapped = paired(values[1], values[0])
    assert swapped is not None
    assert (swapped.difference, swapped.p) == pytest.approx((-told.difference, told.p))


def test_ranks_by_hand() -> None:
    # The first is ahead on all of six datasets: of 2**6 signs one is as extreme on either side.
    one = {(f"d{place}", 1): 0.5 + 0.01 * place for place in range(1, 7)}
    told = paired(one, dict.fromkeys(one, 0.5))
    assert told is not None
    assert told.p_ranks == pytest.approx(2 / 64)
    fewer = {name: value for name, value in one.items() if name[0] != "d6"}
    told = paired(fewer, dict.fromkeys(fewer, 0.5))
    assert told is not None
    assert (told.n, told.p_ranks) == (5, None)


def test_only_what_both_have_is_paired() -> None:
    one = of_seeds("a", [0.5, 0.6]) | of_seeds("b", [0.7, 0.9, 0.8]) | of_seeds("c", [0.1])
    other = of_seeds("a", [0.4, 0.4, 0.0]) | of_seeds("b", [0.6, 0.5], first_seed=2) | of_seeds("d", [0.1])
    told = paired(one, other)
    assert told is not None
    # a: 0.15 over seeds 1 and 2; b: 0.3 over seeds 2 and 3
    assert told.difference == pytest.approx((0.15 + 0.3) / 2)
    assert (told.n, told.unit) == (2, "datasets")


def test_a_value_without_seed_goes_with_every_seed() -> None:
    one, free = [0.5, 0.6, 0.8], {("birds", 0): 0.4}
    for told, sign in ((paired(of_seeds("birds", one), free), 1), (paired(free, of_seeds("birds", one)), -1)):
        assert told is not None
        assert told.difference == pytest.approx(sign * (np.mean(one) - 0.4))
        assert told.p == pytest.approx(stats.ttest_rel(one, [0.4] * 3).pvalue)
        assert told.n == 3
    told = paired(free, {("birds", 0): 0.1})
    assert told is not None
    assert (told.difference, told.n, told.p) == (pytest.approx(0.3), 1, None)


@pytest.mark.parametrize("values", [[0.3], [0.1 + 0.2, 0.2 + 0.1, 0.3]])
def test_without_spread_there_is_no_test(values: list[float]) -> None:
    told = paired(of_seeds("birds", values), of_seeds("birds", [0.1] * len(values)))
    assert told is not None
    assert told.difference == pytest.approx(0.2)
    assert (told.low, told.high, told.p, told.p_ranks) == (None, None, None, None)
    assert told.n == len(values)


def test_nothing_in_common() -> None:
    assert paired(of_seeds("a", [0.5]), of_seeds("b", [0.5])) is None
    assert paired(of_seeds("a", [0.5]), of_seeds("a", [0.5], first_seed=2)) is None
    assert paired({}, of_seeds("a", [0.5])) is None


def test_holm_by_hand() -> None:
    # 0.01 x 4, 0.02 x 3 = 0.06, 0.03 x 2 = 0.06, and 0.04 must not come below those before it.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_holm_does_not_count_what_was_not_tested() -> None:
    assert holm([None, 0.02, None, 0.03]) == [None, pytest.approx(0.04), None, pytest.approx(0.04)]


@given(st.lists(fractions, max_size=12), st.floats(0.001, 0.999))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float], level: float) -> None:
    rejected = set()
    for step, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[place] * (len(p_values) - step) > level:
            break
        rejected.add(place)
    assert {place for place, p in enumerate(holm(p_values)) if p is not None and p <= level} == rejected


def test_names_come_in_the_order_of_tables() -> None:
    methods = ["K 20", "sot-glp", "all", "K 5", "coop", "zero-shot", "K 0.5", "²"]
    datasets = ["rsscn7", "dtd", "imagenet", "cifar10", "caltech101"]
    scores = Scores([made(method, dataset, shots) for method in methods for dataset in datasets for shots in (16, 1)])
    assert scores.methods == ("zero-shot", "coop", "sot-glp", "K 0.5", "K 5", "K 20", "all", "²")
    assert scores.datasets == ("imagenet", "caltech101", "dtd", "cifar10", "rsscn7")
    assert scores.shots == (1, 16)


def test_a_cell_without_shots_stands_for_every_number_of_them() -> None:
    scores = Scores([made("zero-shot", shots=0, seed=0, accuracy=0.3), made(accuracy=0.6, seed=2), made(shots=4)])
    assert scores.by_seed("zero-shot", "birds", 16, accuracy) == {0: 0.3}
    assert scores.by_seed("zero-shot", "birds", 4, accuracy) == {0: 0.3}
    assert scores.by_seed("sot-glp", "birds", 16, accuracy) == {2: 0.6}
    assert scores.by_seed("sot-glp", "birds", 1, accuracy) == {}
    assert scores.shots == (4, 16)
    assert (scores.uses_shots("zero-shot"), scores.uses_shots("sot-glp")) == (False, True)
    assert Scores([made("zero-shot", shots=0, seed=0)]).shots == (0,)


def test_means_over_datasets_at_each_seed() -> None:
    results = [made("coop", "a", seed=seed, accuracy=0.1 * seed) for seed in (1, 2, 3)]
    results += [made("coop", "b", seed=seed, accuracy=0.5) for seed in (3, 2, 1)]
    parts = [("a", accuracy), ("b", accuracy)]
    assert Scores(results).over("coop", 16, parts) == pytest.approx({1: 0.3, 2: 0.35, 3: 0.4})
    # Without one seed of a dataset seeds don't pair, and their spread is not that of the mean.
    assert Scores(results[:-1]).over("coop", 16, parts) == pytest.approx({0: 0.35})
    assert Scores(results[:3]).over("coop", 16, parts) == {}
    assert Scores(results).over("coop", 16, []) == {}


def test_sets_that_are_measured_besides_and_by_which_datasets() -> None:
    far = {"auroc": 0.9}
    results = [
        made(dataset="rsscn7", ood={"zebra": far, "textures": far}),
        made(dataset="caltech101", ood={"sun": far, "zebra": far}),
        made("coop", dataset="dtd"),
    ]
    found = Scores(results).names(lambda result: result.metrics.ood)
    assert list(found.items()) == [
        ("sun", ("caltech101",)),
        ("textures", ("rsscn7",)),
        ("zebra", ("caltech101", "rsscn7")),
    ]
